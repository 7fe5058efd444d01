//! Tensors with channels last. Channels lie next to each other, so kernels compute [`TILE`] of them at once.

use super::parallel::for_ranges;
use super::tile::{CHUNK, TILE, Tile, or_first};
use crate::params::ColumnParams;
use crate::stages::Element;
use crate::stages::element::to_f32;
use std::num::NonZero;
use std::ops::Range;

/// The numbers of a dispatch over (samples, parts, words of channels), as these kernels use them.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub channels: usize,
    pub row_len: usize,
    pub parts: usize,
    per_part: usize,
    /// Words of a position, and their width.
    columns: usize,
    width: usize,
}

impl Shape {
    pub fn new(params: &ColumnParams, width: u32) -> Self {
        Self {
            channels: params.split.num_channels as usize,
            row_len: params.split.row_len as usize,
            parts: params.split.parts as usize,
            per_part: params.split.positions_per_part as usize,
            columns: params.split.words_per_position as usize,
            width: width as usize,
        }
    }
}

/// Consecutive work items of one part of one sample: some channels over some positions.
pub(super) struct Run {
    pub sample: usize,
    pub part: usize,
    pub channels: Range<usize>,
    /// Positions counted over all samples.
    pub positions: Range<usize>,
}

impl Run {
    /// The rows of its channels.
    #[inline(always)]
    pub fn rows(&self, shape: Shape) -> Range<usize> {
        let first = self.sample * shape.channels;
        first + self.channels.start..first + self.channels.end
    }

    pub fn num_tiles(&self) -> usize {
        self.channels.len().div_ceil(TILE)
    }

    /// Its chunks: the first position of each, and how many positions it has.
    #[inline(always)]
    pub fn chunks(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let end = self.positions.end;
        self.positions
            .clone()
            .step_by(CHUNK)
            .map(move |first| (first, CHUNK.min(end - first)))
    }
}

/// The runs of a range of work items (counted over all windows).
#[inline(always)]
pub(super) fn runs(shape: Shape, items: Range<usize>) -> impl Iterator<Item = Run> {
    let mut next = items.start;
    std::iter::from_fn(move || {
        if next >= items.end {
            return None;
        }
        let block = next / shape.columns;
        let first = next - block * shape.columns;
        let end = shape.columns.min(first + (items.end - next));
        next += end - first;
        let (sample, part) = (block / shape.parts, block % shape.parts);
        let begin = (part * shape.per_part).min(shape.row_len);
        let stop = (begin + shape.per_part).min(shape.row_len);
        Some(Run {
            sample,
            part,
            channels: first * shape.width..end * shape.width,
            positions: sample * shape.row_len + begin..sample * shape.row_len + stop,
        })
    })
}

/// Reduces every work item of a dispatch: `reduce` writes one result for each channel of a run; they
/// land in `output` where the kernel puts them.
pub(super) fn reduce<R: Copy + Default + Send>(
    threads: NonZero<usize>,
    params: &ColumnParams,
    width: u32,
    output: &mut [R],
    reduce: impl Fn(&Run, &mut [R]) + Sync,
) {
    let shape = Shape::new(params, width);
    let (items, first) = (
        params.dispatch.items as usize,
        params.dispatch.first_item as usize,
    );
    // In the order of the work items, so that threads write ranges; the order of the table is another.
    let mut results = vec![R::default(); items * shape.width];
    for_ranges(
        threads,
        0..items,
        &mut results[..],
        |item| item * shape.width,
        #[inline(always)]
        |range, mut results| {
            for run in runs(shape, first + range.start..first + range.end) {
                let (mine, rest) = results.split_at_mut(run.channels.len());
                reduce(&run, mine);
                results = rest;
            }
        },
    );
    let mut results = &results[..];
    for run in runs(shape, first..first + items) {
        for (row, result) in run.rows(shape).zip(results) {
            output[row * shape.parts + run.part] = *result;
        }
        results = &results[run.channels.len()..];
    }
}

/// Consecutive elements of one sample that a map computes.
pub(super) struct Strip {
    pub sample: usize,
    /// Of the tensor.
    pub elements: Range<usize>,
}

/// What a map's dispatch writes, cut for threads into units that follow each other in memory: positions
/// where it is aligned, else elements.
pub(super) struct MapWindow {
    shape: Shape,
    aligned: bool,
    /// Work items, counted over all windows.
    items: Range<usize>,
    pub units: Range<usize>,
    pub unit_size: usize,
}

impl MapWindow {
    pub fn new(params: &ColumnParams, width: u32, aligned: bool) -> Self {
        let shape = Shape::new(params, width);
        let items = params.dispatch.range();
        let (units, unit_size) = if aligned {
            // The positions of all parts that the items touch.
            let begin_of = |block: usize| {
                let (sample, part) = (block / shape.parts, block % shape.parts);
                sample * shape.row_len + (part * shape.per_part).min(shape.row_len)
            };
            let begin = begin_of(items.start / shape.columns);
            let end = begin_of(items.end.div_ceil(shape.columns));
            (begin..end, shape.channels)
        } else {
            // The words of the window; the last may reach beyond the tensor.
            let elements = params.split.num_samples as usize * shape.row_len * shape.channels;
            let begin = params.dispatch.first_word as usize * shape.width;
            let end = begin + params.split.num_words as usize * shape.width;
            (begin..end.min(elements), 1)
        };
        Self {
            shape,
            aligned,
            items,
            units,
            unit_size,
        }
    }

    /// Runs `work` on what the dispatch writes of these units.
    #[inline(always)]
    pub fn strips(&self, units: Range<usize>, mut work: impl FnMut(Strip)) {
        let Shape { channels, .. } = self.shape;
        let sample_size = self.shape.row_len * channels;
        let (mut start, end) = (units.start * self.unit_size, units.end * self.unit_size);
        while start < end {
            let sample = start / sample_size;
            let sample_begin = sample * sample_size;
            if !self.aligned {
                let stop = end.min(sample_begin + sample_size);
                let elements = start..stop;
                work(Strip { sample, elements });
                start = stop;
                continue;
            }
            let part = (start - sample_begin) / channels / self.shape.per_part;
            let part_end = ((part + 1) * self.shape.per_part).min(self.shape.row_len);
            let stop = end.min(sample_begin + part_end * channels);
            // The window may begin or end within the part's words of channels.
            let Shape { parts, columns, .. } = self.shape;
            let first_item = (sample * parts + part) * columns;
            let from = self.items.start.saturating_sub(first_item).min(columns);
            let to = self.items.end.saturating_sub(first_item).min(columns);
            if (from, to) == (0, columns) {
                let elements = start..stop;
                work(Strip { sample, elements });
            } else {
                for position in (start..stop).step_by(channels) {
                    let from = position + from * self.shape.width;
                    let to = position + to * self.shape.width;
                    let elements = from..to;
                    work(Strip { sample, elements });
                }
            }
            start = stop;
        }
    }
}

/// Elements that a map computes at once.
pub(super) const BLOCK: usize = 64;

/// Fields of the maps of one sample's rows, one array a field, as elements follow each other in memory:
/// channel after channel, over and over for a block from any channel on.
pub(super) struct Maps<const FIELDS: usize> {
    sample: Option<usize>,
    fields: [Vec<f32>; FIELDS],
}

impl<const FIELDS: usize> Maps<FIELDS> {
    pub fn new() -> Self {
        Self {
            sample: None,
            fields: std::array::from_fn(|_| Vec::new()),
        }
    }

    /// Puts a sample's maps in place, where another's are; `entries` are those of all rows.
    #[inline(always)]
    pub fn set<E>(
        &mut self,
        sample: usize,
        channels: usize,
        entries: &[E],
        fields: impl Fn(&E) -> [f32; FIELDS],
    ) {
        if self.sample == Some(sample) {
            return;
        }
        self.sample = Some(sample);
        self.fields.iter_mut().for_each(Vec::clear);
        let entries = &entries[sample * channels..(sample + 1) * channels];
        for entry in entries.iter().cycle().take(channels + BLOCK - 1) {
            for (all, value) in self.fields.iter_mut().zip(fields(entry)) {
                all.push(value);
            }
        }
    }

    /// The fields of `len` consecutive elements, a block at most, from a channel on.
    #[inline(always)]
    pub fn fields(&self, channel: usize, len: usize) -> [&[f32]; FIELDS] {
        std::array::from_fn(|field| &self.fields[field][channel..channel + len])
    }
}

/// A strip in blocks.
#[inline(always)]
pub(super) fn blocks(elements: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let end = elements.end;
    elements
        .step_by(BLOCK)
        .map(move |begin| begin..end.min(begin + BLOCK))
}

/// A whole tile of channels, from `begin` on, at each position of a chunk, where it lies in memory; behind the chunk's last
/// position, the first one again.
#[inline(always)]
pub(super) fn lines<T>(
    values: &[T],
    shape: Shape,
    (first, positions): (usize, usize),
    begin: usize,
) -> [&[T; TILE]; CHUNK] {
    std::array::from_fn(
        #[inline(always)]
        |k| {
            let at = (first + or_first(k, positions)) * shape.channels + begin;
            let (lines, _) = values[at..at + TILE].as_chunks::<TILE>();
            &lines[0]
        },
    )
}

/// The channels of a tile at one position, what is behind the last of them left as it is.
#[inline(always)]
pub(super) fn load<T: Element>(values: &[T], tile: &mut Tile) {
    if let Some(values) = values.first_chunk::<TILE>() {
        // Of a known size: vector loads.
        to_f32(values, tile);
    } else {
        to_f32(values, tile);
    }
}
