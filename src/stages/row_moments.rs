//! Mirror of `shaders/row_moments.wgsl`.

use super::element::Element;
use super::moments::merge_moments;
use super::parallel::for_ranges;
use super::span::part_span;
use super::tile::{CHUNK, TILE, TileMoments, or_first};
use crate::params::RowParams;
use crate::tables::Moments;
use std::num::NonZero;

/// Moments of every part of every row of x; `width` is the step's.
pub fn row_moments<T: Element>(
    threads: NonZero<usize>,
    params: &RowParams,
    width: u32,
    x: &[T],
    row_parts: &mut [Moments],
) {
    let first = params.dispatch.first_item as usize;
    for_ranges(
        threads,
        0..params.dispatch.items as usize,
        row_parts,
        |item| first + item,
        #[inline(always)]
        |range, parts: &mut [Moments]| {
            if has_short_rows(params) {
                let len = params.split.row_len as usize;
                let x = &x[(first + range.start) * len..(first + range.end) * len];
                for (rows, parts) in x.chunks(TILE * len).zip(parts.chunks_mut(TILE)) {
                    moments_of_rows(len, rows, parts);
                }
                return;
            }
            for (item, part) in range.zip(parts) {
                *part = moments_of(&x[part_span(params, width, first + item)]);
            }
        },
    );
}

/// Whether each row has a lane of its own: the lanes of a single row have nothing to do then but to be
/// merged.
pub(super) fn has_short_rows(params: &RowParams) -> bool {
    params.split.parts == 1 && params.split.row_len <= 256
}

/// At most [`TILE`] rows of `len` values, a lane for each.
#[inline(always)]
fn moments_of_rows<T: Element>(len: usize, rows: &[T], moments: &mut [Moments]) {
    let mut lanes = TileMoments::default();
    let rest = len % CHUNK;
    for first in (0..len - rest).step_by(CHUNK) {
        lanes.merge(&chunk_of_rows(len, rows, first, CHUNK));
    }
    if rest > 0 {
        lanes.merge(&chunk_of_rows(len, rows, len - rest, rest));
    }
    for (c, moments) in moments.iter_mut().enumerate() {
        *moments = lanes.lane(c);
    }
}

/// Of each row `count` values, from its value `first` on.
#[inline(always)]
fn chunk_of_rows<T: Element>(len: usize, rows: &[T], first: usize, count: usize) -> TileMoments {
    let mut chunk = [[0.0; TILE]; CHUNK];
    for (c, row) in rows.chunks(len).enumerate() {
        let row = &row[first..first + count];
        for k in 0..count {
            chunk[k][c] = row[k].to_f32();
        }
    }
    TileMoments::of_chunk(
        count,
        #[inline(always)]
        |k, c| chunk[or_first(k, count)][c],
    )
}

/// The values in lines of [`TILE`]: lanes go down the columns.
#[inline(always)]
fn moments_of<T: Element>(values: &[T]) -> Moments {
    let (lines, rest) = values.as_chunks::<TILE>();
    let (chunks, last_lines) = lines.as_chunks::<CHUNK>();
    let mut lanes = TileMoments::default();
    for chunk in chunks {
        lanes.merge(&moments_of_lines(chunk));
    }
    if !last_lines.is_empty() {
        lanes.merge(&moments_of_lines(last_lines));
    }
    merge_moments(lanes.all(), loose_chunk(rest))
}

/// At most [`CHUNK`] lines.
#[inline(always)]
fn moments_of_lines<T: Element>(lines: &[[T; TILE]]) -> TileMoments {
    let count = lines.len();
    TileMoments::of_chunk(
        count,
        #[inline(always)]
        |k, c| lines[or_first(k, count)][c].to_f32(),
    )
}

/// Exact local mean about the chunk's first value, then squared differences from it.
#[inline(always)]
fn loose_chunk<T: Element>(values: &[T]) -> Moments {
    let Some(&pivot) = values.first() else {
        return Moments::default();
    };
    let pivot = pivot.to_f32();
    let values = values.iter().map(|x| x.to_f32() - pivot);
    let count = values.len() as f32;
    let offset = values.clone().sum::<f32>() / count;
    Moments {
        count: values.len() as u32,
        pivot,
        offset,
        variance: values
            .map(|d| 0.25 * d - 0.25 * offset)
            .map(|e| e * e)
            .sum::<f32>()
            * (16.0 / count),
    }
}
