//! How work is shared out: words, lanes, parts, windows, segments, workgroups. Every loop of every
//! kernel is bounded here.

use crate::desc::{CHANNEL_EPS, ChannelPart, ChannelStats, DType, Layout, MAX_ROW};
use crate::desc::{Mode, NormDesc, NormKind, TensorDesc};
use crate::error::Error;
use crate::kernels::{KernelId, Spec};
use crate::params::{
    CUMULATIVE, ESTIMATE, NO_CHANNEL_PART, PER_CHANNEL, Params, TRAINING, UNBIASED,
};
use crate::plan::{RowSource, Window, within};
use crate::tuning::Tuning;

/// llvmpipe ends an invocation after about this many loop iterations, without an error; no kernel
/// is planned to run more, over all of its loops.
pub(super) const MAX_ITERATIONS: u32 = 65_000;

/// Most words of neighbouring channels that an invocation takes together: kernels are written out for each.
const MAX_COLUMN_WORDS: u32 = 16;

/// Invocations that should share a position before they take more than a word each: those that a processor
/// runs at once.
pub(super) const SIDE_BY_SIDE: u32 = 8;

/// Most invocations of a workgroup, whatever the tuning says: no device has as many.
const MAX_WORKGROUP_SIZE: u32 = 1 << 16;

/// Most invocations that a fold makes share a column where the tuning's are too few: what WebGPU grants a workgroup.
const MOST_FOLD_LANES: u32 = 256;

/// Most windows of a tensor: each is a dispatch with a bind group of its own, so that a binding limit far below any
/// device's would make plans that take minutes and gigabytes. The largest tensor takes 128 with WebGPU's default.
const MAX_WINDOWS: usize = 4096;

/// The largest subgroups that WebGPU knows of.
const MAX_SUBGROUP_SIZE: u32 = 128;

/// Words that the tensor-sized kernels take per loop iteration (`CHUNK` in `span.wgsl`).
#[cfg(test)]
const CHUNK: u32 = 4;

/// The offset of a window of a buffer: no device asks for a larger alignment of storage bindings.
const WINDOW_ALIGNMENT: u64 = 256;

/// Most bytes of a part of the positions, all its channels, where channels come last. Whatever the
/// binding limit: parts decide the order of sums.
const COLUMN_PART_BYTES: u64 = 32 << 20;

/// How a tensor-sized kernel goes over a tensor.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Split {
    /// Elements of a word.
    pub width: u32,
    pub aligned: bool,
    pub lanes: u32,
    /// Of neighbouring channels that an invocation takes together.
    pub column_words: u32,
    pub parts: u32,
    /// Words of a part of a row; with channels last, positions of a part.
    pub words_per_part: u32,
    pub items: u32,
}

impl Split {
    /// Cuts rows of `row_words` words into parts of `words_per_part`.
    fn with_part(self, row_words: u32, words_per_part: u32, rows: u64) -> Result<Self, Error> {
        let parts = row_words.div_ceil(words_per_part);
        let items = rows * u64::from(parts);
        within(
            || format!("rows times parts ({rows} * {parts})"),
            items,
            u64::from(u32::MAX),
            "u32 index",
            // There are no more rows than a u32 counts: it is the parts that are too many.
            "tune for fewer parts (a larger max_words_per_lane, a smaller min_invocations)",
        )?;
        Ok(Self {
            parts,
            words_per_part,
            items: items as u32,
            ..self
        })
    }
}

/// What is common to all steps of a plan.
#[derive(Debug, Default)]
pub(super) struct Geometry {
    /// The tensor as the kernels see it. A norm without a group part need not tell samples apart where
    /// channels come last: they are positions then.
    pub samples: u32,
    pub channels: u32,
    pub row_len: u32,
    /// Rows of a channel that lie together: its elements of a sample, where these are rows over the
    /// samples; else 0.
    pub channel_len: u32,
    /// Whether the kernels for channels last run: (N, C) is both layouts at once.
    pub channels_last: bool,
    pub dtype: DType,
    pub reduce: Split,
    pub map: Split,
}

impl Geometry {
    pub fn new(
        norm: &NormDesc,
        tensor: &TensorDesc,
        mode: Mode,
        rows: RowSource,
        tuning: &Tuning,
    ) -> Result<Self, Error> {
        check(tuning)?;
        let mut geometry = Self {
            samples: tensor.num_samples(),
            channels: tensor.num_channels(),
            channel_len: 0,
            row_len: tensor.row_len(),
            channels_last: tensor.layout() == Layout::ChannelsLast || tensor.row_len() == 1,
            dtype: tensor.dtype(),
            reduce: Split::default(),
            map: Split::default(),
        };
        if tensor.elements() == 0 {
            return Ok(geometry);
        }
        let positions = u64::from(geometry.samples) * u64::from(geometry.row_len);
        let group = match norm.has_group_part(mode) {
            true => (norm.num_channels / norm.num_groups) as u64 * u64::from(geometry.row_len),
            false => 0,
        };
        // More than one sample, or the row would be too long: the batch can be split.
        within(
            || "the number of a channel's values, N * L,".into(),
            positions,
            u64::from(u32::MAX),
            "u32 count",
            "split the batch",
        )?;
        within(
            || "the number of a group's values, C / G * L,".into(),
            group,
            u64::from(u32::MAX),
            "u32 count",
            "use more groups, fewer channels or smaller spatial sizes",
        )?;
        let samples_matter = norm.has_group_part(mode) || rows == RowSource::Given;
        let last = geometry.channels_last || geometry.channels == 1;
        if last && !samples_matter && positions <= MAX_ROW {
            geometry.samples = 1;
            // At most MAX_ROW, a u32.
            geometry.row_len = positions as u32;
        }
        geometry.channels_last &= geometry.channels > 1;
        if !geometry.channels_last && !samples_matter {
            geometry.take_short_rows(tuning);
        }
        // More than one sample: there are no more channels than a u32 counts.
        within(
            || "the number of rows, N * C,".into(),
            geometry.rows(),
            u64::from(u32::MAX),
            "u32 index",
            "split the batch",
        )?;
        if geometry.channels_last {
            geometry.reduce = geometry.columns(tuning.reduce_lanes, true, tuning)?;
            geometry.map = geometry.columns(tuning.map_lanes, false, tuning)?;
        } else {
            geometry.reduce = geometry.row_words(tuning.reduce_lanes, true, tuning)?;
            geometry.map = geometry.row_words(tuning.map_lanes, false, tuning)?;
        }
        Ok(geometry)
    }

    /// Rows that are short, and fewer than samples: a sample's elements are rows over the samples then,
    /// which makes the tables shorter.
    fn take_short_rows(&mut self, tuning: &Tuning) {
        let short = self.row_len <= tuning.short_batch_row;
        let elements = self.channels.checked_mul(self.row_len);
        if let Some(elements) = elements
            && short
            && 1 < self.row_len
            && self.row_len < self.samples
        {
            (self.channel_len, self.channels) = (self.row_len, elements);
            (self.row_len, self.samples) = (self.samples, 1);
            self.channels_last = true;
        }
    }

    /// Rows of the tables.
    pub fn rows(&self) -> u64 {
        u64::from(self.samples) * u64::from(self.channels)
    }

    /// Channels first: items are parts of rows, cut at words.
    fn row_words(&self, max_lanes: u32, reduces: bool, tuning: &Tuning) -> Result<Split, Error> {
        // A word may lie in at most two rows, and the tensor is whole words.
        let elements = self.rows() * u64::from(self.row_len);
        let width = match self.row_len {
            4.. if elements.is_multiple_of(4) => 4,
            _ => self.dtype.alone(),
        };
        let aligned = self.row_len.is_multiple_of(width);
        // A row that begins within a word touches one word more.
        let row_words = self.row_len.div_ceil(width) + u32::from(!aligned);
        let split = split(
            row_words,
            self.rows(),
            max_lanes,
            Shares::of(reduces, tuning),
        )?;
        Ok(Split {
            width,
            aligned,
            ..split
        })
    }

    /// Channels last: items are parts of the positions of a word of channels.
    fn columns(&self, max_lanes: u32, reduces: bool, tuning: &Tuning) -> Result<Split, Error> {
        let channels = self.channels;
        let alone = self.dtype.alone();
        let width = match channels {
            _ if channels.is_multiple_of(4) => 4,
            _ if channels.is_multiple_of(alone) => alone,
            // A reduction can read half a u32.
            _ if reduces => 1,
            // A map writes whole ones: pairs that may reach into the next position.
            _ => {
                let words = (self.rows() * u64::from(self.row_len)).div_ceil(2);
                return Ok(Split {
                    width: 2,
                    aligned: false,
                    lanes: 1,
                    column_words: 1,
                    parts: 1,
                    words_per_part: self.row_len,
                    items: self.strided_items(words, tuning),
                });
            }
        };
        self.aligned_columns(width, reduces, max_lanes, tuning)
    }

    /// Where positions are whole numbers of words.
    fn aligned_columns(
        &self,
        width: u32,
        reduces: bool,
        max_lanes: u32,
        tuning: &Tuning,
    ) -> Result<Split, Error> {
        let channels = self.channels;
        let words = channels / width;
        // A map's workgroup goes over memory from end to end, as far as the channels go.
        let (workgroup_size, tile) = match reduces {
            true => (tuning.column_workgroup_size, tuning.column_tile),
            false => (tuning.workgroup_size, tuning.workgroup_size),
        };
        let tile = match words < tile {
            true => words.next_power_of_two(),
            false => tile,
        };
        let lanes = (workgroup_size / tile).max(1).min(max_lanes);
        // Down to a power of two that divides the workgroup.
        let lanes = 1 << (lanes.ilog2().min(workgroup_size.trailing_zeros()));
        let columns = u64::from(self.samples) * u64::from(words);
        // Of the sizes that cut a position into whole invocations of whole words.
        let mut column_words = match (lanes, width) {
            (1, 4) => 1 << tuning.column_words.ilog2().min(words.trailing_zeros()),
            _ => 1,
        };
        while column_words > 1 && column_words * SIDE_BY_SIDE > words {
            column_words /= 2;
        }
        let split = split(
            self.row_len,
            columns / u64::from(column_words),
            lanes,
            Shares::of(reduces, tuning),
        )?;
        // A part is all channels of its positions: it must fit a window.
        let position_bytes = u64::from(channels) * self.dtype.bytes();
        let most = u32::try_from(COLUMN_PART_BYTES / position_bytes)
            .unwrap_or(u32::MAX)
            .max(1);
        // Where an invocation takes several words, it loops over them at each position.
        let most = match column_words {
            1 => most,
            words => most.min(MAX_ITERATIONS / (words + 1) - 8 * words),
        };
        let split = split.with_part(self.row_len, split.words_per_part.min(most), columns)?;
        Ok(Split {
            width,
            aligned: true,
            column_words,
            ..split
        })
    }

    /// A tensor of `elements` as one sample, its samples as positions and their elements as channels. Maps
    /// have words of `width`, which divides a group, and one lane.
    pub fn samples_as_positions(
        &self,
        elements: u32,
        width: u32,
        tuning: &Tuning,
    ) -> Result<Geometry, Error> {
        let mut view = Geometry {
            samples: 1,
            channels: elements / self.samples,
            channel_len: self.row_len,
            row_len: self.samples,
            channels_last: true,
            dtype: self.dtype,
            ..Default::default()
        };
        let single_words = Tuning {
            column_words: 1,
            ..*tuning
        };
        view.reduce = view.columns(tuning.reduce_lanes, true, &single_words)?;
        let map = view.aligned_columns(width, false, 1, &single_words)?;
        // Maps take samples one at a time, then the elements of their word.
        let most = map.words_per_part.min(MAX_ITERATIONS - width);
        view.map = map.with_part(view.row_len, most, u64::from(view.channels / width))?;
        Ok(view)
    }

    /// Invocations that take `words` words as they come.
    pub fn strided_items(&self, words: u64, tuning: &Tuning) -> u32 {
        let each = tuning.map_words_per_lane.clamp(1, MAX_ITERATIONS);
        let items = words.div_ceil(u64::from(each));
        // At most 2^31 words of 16 bits.
        items as u32
    }

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
        let limit = tuning.max_binding_bytes;
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
                "max_storage_buffer_binding_size (tuning.max_binding_bytes)",
                "request the device with the adapter's limits, or tune for smaller parts (max_words_per_lane)",
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
                "raise tuning.max_binding_bytes (max_storage_buffer_binding_size of the device)",
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

/// Every value that no plan can be made with.
fn check(tuning: &Tuning) -> Result<(), Error> {
    let mut problems = Vec::new();
    let mut expect = |name, value: u32, right: bool, expected: &dyn Fn() -> String| {
        if !right {
            problems.push(format!("{name} is {value}: it must be {}", expected()));
        }
    };
    for (name, value, most) in [
        ("workgroup_size", tuning.workgroup_size, MAX_WORKGROUP_SIZE),
        (
            "fold_workgroup_size",
            tuning.fold_workgroup_size,
            MAX_WORKGROUP_SIZE,
        ),
        (
            "column_workgroup_size",
            tuning.column_workgroup_size,
            MAX_WORKGROUP_SIZE,
        ),
        ("column_words", tuning.column_words, MAX_COLUMN_WORDS),
        // Of chunks of 4 words, with room for what is left over.
        (
            "max_words_per_lane",
            tuning.max_words_per_lane,
            MAX_ITERATIONS * 3,
        ),
    ] {
        let expected = || format!("from 1 to {most}");
        expect(name, value, (1..=most).contains(&value), &expected);
    }
    for (name, lanes, workgroup, size) in [
        (
            "reduce_lanes",
            tuning.reduce_lanes,
            "workgroup_size",
            tuning.workgroup_size,
        ),
        (
            "map_lanes",
            tuning.map_lanes,
            "workgroup_size",
            tuning.workgroup_size,
        ),
        (
            "fold_lanes",
            tuning.fold_lanes,
            "fold_workgroup_size",
            tuning.fold_workgroup_size,
        ),
    ] {
        let expected = || format!("a power of two that divides {workgroup}, which is {size}");
        let right = lanes.is_power_of_two() && size.is_multiple_of(lanes);
        expect(name, lanes, right, &expected);
    }
    let tile = tuning.column_tile;
    expect("column_tile", tile, tile.is_power_of_two(), &|| {
        "a power of two".into()
    });
    let subgroup = tuning.subgroup_size;
    let right = subgroup.is_power_of_two() && subgroup <= MAX_SUBGROUP_SIZE;
    expect("subgroup_size", subgroup, right, &|| {
        format!(
            "a power of two up to {MAX_SUBGROUP_SIZE}, the device's smallest subgroup at most, or 1 for none"
        )
    });
    match problems.is_empty() {
        true => Ok(()),
        false => Err(Error::Tuning { problems }),
    }
}

/// How many words lanes and parts should have.
#[derive(Debug, Clone, Copy)]
struct Shares {
    /// A lane, before the row gets another one.
    per_lane: u32,
    /// A lane, where the row gets more because rows alone make too few invocations.
    least_of_lane: u32,
    /// The lanes of a part each, where rows are split for the same reason.
    least_of_part: u32,
    /// A lane at most: it bounds the loops, and the growth of rounding.
    most: u32,
    min_invocations: u32,
}

impl Shares {
    fn of(reduces: bool, tuning: &Tuning) -> Shares {
        let least = tuning.min_words_per_lane.max(1);
        let of_map = tuning.map_words_per_lane.max(1);
        let (per_lane, least_of_lane, least_of_part) = match reduces {
            true => (tuning.words_per_lane.max(1), least, least),
            false => (of_map, 1, of_map),
        };
        Shares {
            per_lane,
            least_of_lane,
            least_of_part,
            most: tuning.max_words_per_lane,
            min_invocations: tuning.min_invocations,
        }
    }
}

/// Lanes and parts for rows of `row_words` words.
fn split(row_words: u32, rows: u64, max_lanes: u32, shares: Shares) -> Result<Split, Error> {
    let row_words = row_words.max(1);
    // A lane for each share of words; more while rows alone make too few invocations, as long as each has work.
    let alone = u64::from(shares.min_invocations).div_ceil(rows.max(1));
    let worth = row_words.div_ceil(shares.least_of_lane);
    let alone = u32::try_from(alone).unwrap_or(u32::MAX).min(worth);
    let lanes = row_words
        .div_ceil(shares.per_lane)
        .max(alone)
        .checked_next_power_of_two()
        .unwrap_or(max_lanes)
        .min(max_lanes);
    // Enough parts to bound a lane's share; more, while a part keeps its lanes busy, for parallelism.
    let bound = row_words.div_ceil(shares.most.saturating_mul(lanes));
    let wanted = u64::from(shares.min_invocations).div_ceil((rows * u64::from(lanes)).max(1));
    let useful = row_words.div_ceil(shares.least_of_part.saturating_mul(lanes));
    let parts = bound.max(wanted.min(u64::from(useful)) as u32);
    let split = Split {
        lanes,
        column_words: 1,
        ..Split::default()
    };
    split.with_part(row_words, row_words.div_ceil(parts), rows)
}

/// Entries that a lane should keep where a column gets lanes for their own sake.
const ENTRIES_WORTH_A_LANE: u32 = 8;

/// Lanes for a fold of `items` columns, each of which runs over `entries`, `loops` times.
pub(super) fn fold_lanes(
    kernel: KernelId,
    items: u32,
    entries: u32,
    loops: u32,
    tuning: &Tuning,
) -> Result<u32, Error> {
    let lanes = entries
        .div_ceil(tuning.entries_per_lane.max(1))
        .max(1)
        .checked_next_power_of_two()
        .unwrap_or(tuning.fold_lanes)
        .min(tuning.fold_lanes);
    // Few columns leave most of the processor idle: lanes then, where each keeps enough to do.
    let idle = (tuning.min_fold_invocations / items.max(1))
        .min(entries / ENTRIES_WORTH_A_LANE)
        .min(tuning.fold_workgroup_size)
        .max(1);
    let lanes = lanes.max(1 << idle.ilog2());
    let iterations = u64::from(entries.div_ceil(lanes)) * u64::from(loops);
    if iterations <= u64::from(MAX_ITERATIONS) {
        return Ok(lanes);
    }
    // The tuning's lanes are too few: as many as it takes. A lane may have an entry more than its share.
    let most = u64::from(MAX_ITERATIONS - loops);
    within(
        || {
            format!(
                "the number of entries that one item of {} folds",
                kernel.name()
            )
        },
        u64::from(entries),
        u64::from(MOST_FOLD_LANES) * most / u64::from(loops),
        "what 256 invocations of 65,000 loop iterations fold",
        match kernel {
            KernelId::GroupFold | KernelId::GroupFoldBackward => {
                "use more groups or fewer channels"
            }
            KernelId::RunningFold => "split the batch",
            KernelId::SampleFold | KernelId::SampleFoldBackward => {
                "tune with a smaller samples_per_segment"
            }
            KernelId::ChannelFold | KernelId::ChannelFoldBackward => {
                "tune with a smaller samples_per_segment, or gather fewer shards at a time"
            }
            _ => {
                "tune for fewer parts of rows (a larger max_words_per_lane, a smaller min_invocations), or for \
                 fewer short rows (a smaller short_row and short_batch_row)"
            }
        },
    )?;
    let lanes = (u64::from(entries) * u64::from(loops)).div_ceil(most);
    // At most MOST_FOLD_LANES, a power of two.
    Ok((lanes as u32).next_power_of_two())
}

/// Segments that a column of `entries` is folded in, and entries of each; one segment where a
/// single fold does.
pub(super) fn segments(entries: u32, tuning: &Tuning) -> (u32, u32) {
    let per_segment = tuning.samples_per_segment.max(1);
    if entries <= per_segment {
        return (1, entries);
    }
    // The root bounds both folds by 46,341 entries for any u32.
    let per_segment = per_segment.max(entries.isqrt() + 1).min(MAX_ITERATIONS);
    (entries.div_ceil(per_segment), per_segment)
}

/// Workgroups for `items`, folded into two dimensions beyond the limit of one.
pub(super) fn workgroups(
    spec: &Spec,
    items: u32,
    tensor: &TensorDesc,
    tuning: &Tuning,
) -> Result<[u32; 2], Error> {
    let each = u64::from(spec.workgroup_size / spec.lanes) * u64::from(spec.column_words);
    let total = u64::from(items).div_ceil(each).max(1);
    let most = u64::from(tuning.max_workgroups.max(1));
    within(
        || format!("workgroups of {}", spec.kernel.name()),
        total,
        most * most,
        "max_compute_workgroups_per_dimension, squared",
        "tune for larger workgroups, or raise max_workgroups as far as the device grants",
    )?;
    let y = total.div_ceil(most);
    let x = total.div_ceil(y);
    // Kernels number the items of all workgroups, those behind the last item too, in u32.
    within(
        || {
            format!(
                "the number of items in whole workgroups of {}",
                spec.kernel.name()
            )
        },
        x * y * each,
        1 << 32,
        "u32 index",
        tensor.smaller(),
    )?;
    // Neither is more than `most`.
    Ok([x as u32, y as u32])
}

/// The fields that all steps share.
pub(super) fn base_params(norm: &NormDesc, mode: Mode, geometry: &Geometry) -> Params {
    let part = norm.channel_part(mode);
    let momentum = match norm.stats {
        ChannelStats::Batch { momentum } => momentum,
        ChannelStats::Estimate { moving_speed } => Some(moving_speed),
    };
    let training = part.reads_batch();
    let cumulative = part == ChannelPart::Batch
        && mode == Mode::Train
        && norm.track_running_stats
        && momentum.is_none();
    let group_part = norm.has_group_part(mode);
    let flags = [
        (TRAINING, training),
        (ESTIMATE, part == ChannelPart::Estimate),
        (CUMULATIVE, cumulative),
        (NO_CHANNEL_PART, part == ChannelPart::None),
        (
            PER_CHANNEL,
            group_part && (norm.kind != NormKind::BcNorm || norm.per_channel_affine),
        ),
        (UNBIASED, norm.kind == NormKind::WeightStandardization),
    ];
    Params {
        num_samples: geometry.samples,
        num_channels: geometry.channels / geometry.channel_len.max(1),
        channel_len: geometry.channel_len,
        // A divisor of num_channels, which is a u32.
        num_groups: if group_part {
            norm.num_groups as u32
        } else {
            0
        },
        row_len: geometry.row_len,
        flags: flags
            .iter()
            .map(|&(flag, on)| if on { flag } else { 0 })
            .sum(),
        eps: norm.eps,
        channel_eps: if group_part { CHANNEL_EPS } else { norm.eps },
        // InstanceNorm without a momentum keeps its statistics, as in PyTorch.
        momentum: momentum.unwrap_or(0.0),
        ..Params::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iterations_of_a_chunk_loop_are_bounded() {
        // Whole chunks, then at most CHUNK * lanes + 2 loose words.
        for tuning in [Tuning::GPU, Tuning::SOFTWARE, Tuning::CPU] {
            assert!(tuning.max_words_per_lane.div_ceil(CHUNK) + CHUNK + 2 <= MAX_ITERATIONS);
        }
        assert!((MAX_ITERATIONS * 3).div_ceil(CHUNK) + CHUNK + 2 <= MAX_ITERATIONS);
    }

    #[test]
    fn segments_bound_both_folds() {
        for entries in [1, 1024, 1025, 140_000, 1 << 30, u32::MAX] {
            let (count, size) = segments(entries, &Tuning::SOFTWARE);
            assert!(u64::from(count) * u64::from(size) >= u64::from(entries));
            assert!(
                count <= MAX_ITERATIONS + 1100 && size <= 65_535,
                "{entries}"
            );
        }
    }

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

    #[test]
    fn workgroups_fold_into_two_dimensions() {
        let spec = Spec::new(KernelId::RowAffine, 8, 1);
        let tensor = TensorDesc::new(&[1, 1]).unwrap();
        let workgroups = |items, tuning| workgroups(&spec, items, &tensor, tuning);
        assert_eq!(workgroups(8 * 65_535, &Tuning::SOFTWARE), Ok([65_535, 1]));
        let [x, y] = workgroups(8 * 65_536, &Tuning::SOFTWARE).unwrap();
        assert!(x <= 65_535 && y == 2 && x * y >= 65_536);
        let tiny = Tuning {
            max_workgroups: 3,
            ..Tuning::SOFTWARE
        };
        assert!(workgroups(80, &tiny).is_err());
    }
}
