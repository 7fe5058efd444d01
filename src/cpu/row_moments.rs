//! `shaders/row_moments.wgsl` in tiles: a lane for each sixteenth value of a long row, or for each short row.

use super::parallel::for_ranges;
use super::tile::{CHUNK, TILE, Tile, TileMoments, or_first};
use crate::params::RowParams;
use crate::stages::element::to_f32;
use crate::stages::row_moments::chunk_moments;
use crate::stages::span::part_span;
use crate::stages::{Call, Element, merge_moments};
use crate::tables::Moments;
use std::num::NonZero;

/// Runs the step.
pub(crate) fn row_moments<T: Element>(
    threads: NonZero<usize>,
    params: &RowParams,
    call: &mut Call<'_>,
) {
    let row_parts = call.table_mut::<Moments>("row_parts");
    let (width, x) = (call.width, call.tensor::<T>("x"));
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
        let lines = lines_of_rows(len, rows, first, CHUNK);
        lanes.merge(&TileMoments::of_chunk(
            CHUNK,
            #[inline(always)]
            |k, c| lines[k][c],
        ));
    }
    if rest > 0 {
        let lines = lines_of_rows(len, rows, len - rest, rest);
        lanes.merge(&TileMoments::of_chunk(
            rest,
            #[inline(always)]
            |k, c| lines[or_first(k, rest)][c],
        ));
    }
    for (c, moments) in moments.iter_mut().enumerate() {
        *moments = lanes.lane(c);
    }
}

/// Of each of at most [`TILE`] rows `count` values from its value `first` on: value k of row c in lane c of line k. What is
/// not there is 0.
#[inline(always)]
pub(super) fn lines_of_rows<T: Element>(
    len: usize,
    rows: &[T],
    first: usize,
    count: usize,
) -> [Tile; CHUNK] {
    let mut lines = [[0.0; TILE]; CHUNK];
    if count == CHUNK && rows.len() == TILE * len {
        // In the order of memory, then every second value to the front, three times over: vectors do that.
        let (mut by_row, mut halves) = ([0.0; TILE * CHUNK], [0.0; TILE * CHUNK]);
        for (c, line) in by_row.as_chunks_mut::<CHUNK>().0.iter_mut().enumerate() {
            to_f32(&rows[c * len + first..][..CHUNK], line);
        }
        unzip(&by_row, &mut halves);
        unzip(&halves, &mut by_row);
        unzip(&by_row, &mut halves);
        lines.as_flattened_mut().copy_from_slice(&halves);
        return lines;
    }
    for (c, row) in rows.chunks(len).enumerate() {
        for (line, value) in lines.iter_mut().zip(&row[first..first + count]) {
            line[c] = value.to_f32();
        }
    }
    lines
}

/// Values of even places, then those of odd ones.
#[inline(always)]
fn unzip(values: &[f32; TILE * CHUNK], out: &mut [f32; TILE * CHUNK]) {
    let half = values.len() / 2;
    for i in 0..half {
        out[i] = values[2 * i];
        out[half + i] = values[2 * i + 1];
    }
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
    merge_moments(lanes.all(), chunk_moments(rest.iter().map(|x| x.to_f32())))
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
