//! Tensors beyond a binding: a kernel's work items, cut into windows of the tensor.

use super::split::{Geometry, Split};
use super::step::Window;
use crate::error::{Error, within};
use crate::limits::{MAX_WINDOWS, WINDOW_ALIGNMENT};
use crate::tuning::Tuning;

/// One dispatch of a tensor-sized kernel.
#[derive(Debug, Clone, Copy)]
pub(super) struct WindowItems {
    pub first_item: u32,
    pub items: u32,
    pub first_word: u32,
    pub words: u64,
    pub column_words: u32,
    pub window: Option<Window>,
}

impl Geometry {
    /// Bytes of a word.
    pub fn word_bytes(&self, split: &Split) -> u64 {
        self.dtype.bytes() * u64::from(split.width)
    }

    /// The words that the items `first..=last` touch, rounded out.
    fn words_of(&self, split: &Split, first: u64, last: u64) -> (u64, u64) {
        let (parts, width) = (u64::from(split.parts), u64::from(split.width));
        let len = u64::from(self.row_len);
        let part_words = u64::from(split.words_per_part);
        if self.channels_last {
            let columns = u64::from(self.channels / split.width);
            let position = |block: u64, end: u64| {
                block / parts * len + ((block % parts + end) * part_words).min(len)
            };
            let (block, word) = (first / columns, first % columns);
            let begin = position(block, 0) * columns + word;
            let (block, word) = (last / columns, last % columns);
            // The last position of the last item; where its part is empty, what lies before it.
            let (from, to) = (position(block, 0), position(block, 1));
            let end = match to > from {
                true => (to - 1) * columns + word + 1,
                false => from * columns,
            };
            // Items before the last one, of its block, reach no further.
            return (begin.min(end), end);
        }
        let row_begin = |item: u64| item / parts * len;
        let row_end = |item: u64| (row_begin(item) + len).div_ceil(width);
        let part_begin = |item: u64, part: u64| row_begin(item) / width + part * part_words;
        let begin = part_begin(first, first % parts);
        // A map's words begin up to a word later, and its last part has the row's last word, too.
        let end = part_begin(last, last % parts + 1) + 2;
        (begin.min(row_end(first)), end.min(row_end(last)))
    }

    /// The windows of a tensor-sized kernel: runs of items whose words fit a binding.
    pub fn windows(&self, split: &Split, tuning: &Tuning) -> Result<Vec<WindowItems>, Error> {
        let word_bytes = self.word_bytes(split);
        let elements = self.rows() * u64::from(self.row_len);
        let total = elements.div_ceil(u64::from(split.width));
        let limit = tuning.limits.max_binding_bytes;
        // A single element of 16 bits is read from a u32.
        if (elements * self.dtype.bytes()).next_multiple_of(4) <= limit {
            return Ok(vec![WindowItems {
                first_item: 0,
                items: split.items,
                first_word: 0,
                words: total,
                column_words: split.column_words,
                window: None,
            }]);
        }
        let align = WINDOW_ALIGNMENT / word_bytes;
        let most = (limit / WINDOW_ALIGNMENT) * align;
        let window = |first_item: u64, items: u64, begin: u64, end: u64| WindowItems {
            // Items and words are counted modulo 2^32 by the kernels.
            first_item: first_item as u32,
            items: items as u32,
            first_word: begin as u32,
            words: end - begin,
            // Windows may hold fewer words than an invocation takes.
            column_words: match [first_item, items]
                .iter()
                .all(|items| items.is_multiple_of(u64::from(split.column_words)))
            {
                true => split.column_words,
                false => 1,
            },
            window: Some(Window {
                offset: begin * word_bytes,
                // The last word may reach beyond the tensor.
                bytes: ((end - begin) * word_bytes)
                    .min(elements * self.dtype.bytes() - begin * word_bytes)
                    .next_multiple_of(4),
            }),
        };
        // Where a single item does not fit: what it takes, in bytes that windows may have.
        let item_fits = |words: u64| {
            within(
                || "what one work item reads of a tensor, in bytes and multiples of 256,".into(),
                (words * word_bytes).next_multiple_of(WINDOW_ALIGNMENT),
                limit,
                "max_storage_buffer_binding_size (tuning.limits.max_binding_bytes)",
                "request the device with the adapter's limits, or tune for smaller parts (parts.max_words_per_lane)",
            )
        };
        let another_fits = |windows: &[_]| match windows.len() < MAX_WINDOWS {
            true => Ok(()),
            false => within(
                || {
                    format!(
                        "the least number of windows that the tensor is bound in, {limit} bytes each,"
                    )
                },
                total.div_ceil(most).max(MAX_WINDOWS as u64 + 1),
                MAX_WINDOWS as u64,
                "dispatches of a kernel",
                "raise tuning.limits.max_binding_bytes (max_storage_buffer_binding_size of the device)",
            ),
        };
        let mut windows = Vec::new();
        if self.channels_last && !split.aligned {
            item_fits(1)?;
            let mut begin = 0;
            while begin < total {
                another_fits(&windows)?;
                let end = (begin + most).min(total);
                let items = u64::from(self.strided_items(end - begin, tuning));
                windows.push(window(0, items, begin, end));
                begin = end;
            }
        } else {
            let all = u64::from(split.items);
            let mut first = 0;
            while first < all {
                let begin = self.words_of(split, first, first).0 / align * align;
                let fits = |last: u64| self.words_of(split, first, last).1 <= begin + most;
                item_fits(self.words_of(split, first, first).1 - begin)?;
                another_fits(&windows)?;
                // The last item that fits: words grow with items.
                let (mut good, mut bad) = (first, all);
                while bad - good > 1 {
                    let middle = good + (bad - good) / 2;
                    if fits(middle) {
                        good = middle
                    } else {
                        bad = middle
                    }
                }
                // Whole invocations, if it may be.
                let items = good + 1 - first;
                let together = u64::from(split.column_words);
                if items > together {
                    good -= items % together;
                }
                let end = self
                    .words_of(split, first, good)
                    .1
                    .max(begin + 1)
                    .min(total);
                windows.push(window(first, good + 1 - first, begin, end));
                first = good + 1;
            }
        }
        Ok(windows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desc::{DType, Layout, Mode, NormDesc, TensorDesc};
    use crate::plan::RowSource;

    /// Elements that an item reads or writes, as the kernels define it.
    fn elements_of(geometry: &Geometry, split: &Split, item: u64) -> (u64, u64) {
        let (len, parts) = (u64::from(geometry.row_len), u64::from(split.parts));
        let (width, part_words) = (u64::from(split.width), u64::from(split.words_per_part));
        if geometry.channels_last {
            let channels = u64::from(geometry.channels);
            let columns = channels / width;
            let (block, word) = (item / columns, item % columns);
            let (sample, part) = (block / parts, block % parts);
            let begin = sample * len + (part * part_words).min(len);
            let end = sample * len + ((part + 1) * part_words).min(len);
            if begin == end {
                return (begin * channels, begin * channels);
            }
            let first = begin * channels + word * width;
            let last = ((word + 1) * width).min(channels);
            return (first, (end - 1) * channels + last);
        }
        let (row, part) = (item / parts, item % parts);
        let (begin, end) = (row * len, (row + 1) * len);
        let origin = begin / width * width;
        let first = (origin + part * part_words * width).max(begin).min(end);
        let last = origin + ((part + 1) * part_words + 1) * width;
        (first, last.min(end).max(first))
    }

    /// Shapes of up to 2^32 elements, in both layouts and all types: every item is in exactly one window,
    /// which holds all it touches, is aligned, and is no larger than a binding.
    #[test]
    fn windows_cover_tensors_of_all_sizes() {
        let shapes: &[&[usize]] = &[
            &[64, 256, 512, 512],
            &[2, 2, 1 << 30],
            &[1, 1, (1 << 31) - 1],
            &[2, 3, 1000 * 1000 * 100 + 1],
            &[1 << 16, (1 << 16) - 1],
            &[65_537, 65_535],
            &[1, 64, 8192, 8191],
            &[3, 65, 1_000_003],
            &[4, 1, 33_554_435],
        ];
        let norms = [NormDesc::batch_norm(1), NormDesc::layer_norm(1)];
        let mut windowed = 0;
        for (dims, dtype, layout, norm) in combinations(shapes, &norms) {
            let tensor = TensorDesc::new(dims).unwrap();
            let tensor = tensor.with_dtype(dtype).with_layout(layout);
            let norm = NormDesc {
                num_channels: dims[1],
                ..norm
            };
            for tuning in [Tuning::GPU, Tuning::SOFTWARE] {
                let what = format!(
                    "{dims:?} {dtype:?} {layout:?} {:?} {:?}",
                    norm.kind, tuning.class
                );
                let computed = RowSource::Computed;
                let geometry = match Geometry::new(&norm, &tensor, Mode::Train, computed, &tuning) {
                    Ok(geometry) => geometry,
                    Err(error) => panic!("{what}: {error}"),
                };
                for split in [geometry.reduce, geometry.map] {
                    let windows = geometry.windows(&split, &tuning).unwrap();
                    windowed += usize::from(windows.len() > 1);
                    check_windows(&what, &geometry, &split, &windows, &tensor);
                }
            }
        }
        assert!(windowed > 100, "{windowed}");
    }

    fn combinations<'a>(
        shapes: &'a [&'a [usize]],
        norms: &'a [NormDesc],
    ) -> impl Iterator<Item = (&'a [usize], DType, Layout, NormDesc)> {
        let layouts = [Layout::ChannelsFirst, Layout::ChannelsLast];
        shapes.iter().flat_map(move |&dims| {
            [DType::F32, DType::F16, DType::BF16]
                .into_iter()
                .flat_map(move |dtype| {
                    layouts.into_iter().flat_map(move |layout| {
                        norms.iter().map(move |&norm| (dims, dtype, layout, norm))
                    })
                })
        })
    }

    fn check_windows(
        what: &str,
        geometry: &Geometry,
        split: &Split,
        windows: &[WindowItems],
        tensor: &TensorDesc,
    ) {
        let word_bytes = geometry.word_bytes(split);
        let strided = geometry.channels_last && !split.aligned;
        let (mut next_item, mut next_byte) = (0u64, 0u64);
        for w in windows {
            let window = w.window.unwrap_or(Window {
                offset: 0,
                bytes: tensor.buffer_bytes(),
            });
            assert!(
                window.offset.is_multiple_of(256) && window.bytes.is_multiple_of(4),
                "{what}"
            );
            assert!(window.bytes <= 128 << 20, "{what}");
            assert!(
                window.offset + window.bytes <= tensor.buffer_bytes(),
                "{what}"
            );
            assert_eq!(
                u64::from(w.first_word) * word_bytes,
                window.offset,
                "{what}"
            );
            if strided {
                assert_eq!(next_byte, window.offset, "{what}");
                next_byte = window.offset + window.bytes;
                continue;
            }
            assert_eq!(u64::from(w.first_item), next_item, "{what}");
            let items = u64::from(w.items);
            // The first and last items, and some between.
            for i in (0..items)
                .step_by((items / 50).max(1) as usize)
                .chain([items - 1])
            {
                let (begin, end) = elements_of(geometry, split, next_item + i);
                let bytes = tensor.dtype().bytes();
                assert!(begin * bytes >= window.offset, "{what}: {w:?} {i}");
                let whole_words = (end * bytes).next_multiple_of(word_bytes.max(4));
                let limit = (window.offset + window.bytes).next_multiple_of(word_bytes.max(4));
                assert!(
                    whole_words <= limit,
                    "{what}: {w:?} {split:?} {i}: {whole_words} {limit}"
                );
            }
            next_item += items;
        }
        if strided {
            assert_eq!(next_byte, tensor.buffer_bytes(), "{what}");
        } else {
            assert_eq!(next_item, u64::from(split.items), "{what}");
        }
    }
}
