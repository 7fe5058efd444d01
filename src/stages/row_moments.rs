//! Mirror of `shaders/row_moments.wgsl`.

use super::element::Element;
use super::moments::merge_moments;
use super::parallel::for_ranges;
use super::span::part_span;
use super::tile::{CHUNK, TILE, TileMoments, or_first};
use crate::params::Params;
use crate::tables::Moments;
use std::num::NonZero;

/// Moments of every part of every row of x; `width` is the step's.
pub fn row_moments<T: Element>(
    threads: NonZero<usize>,
    params: &Params,
    width: u32,
    x: &[T],
    row_parts: &mut [Moments],
) {
    let first = params.first_item as usize;
    for_ranges(
        threads,
        0..params.items as usize,
        row_parts,
        |item| first + item,
        #[inline(always)]
        |range, parts: &mut [Moments]| {
            for (item, part) in range.zip(parts) {
                *part = moments_of(&x[part_span(params, width, first + item)]);
            }
        },
    );
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
    let offset = values.clone().sum::<f32>() / values.len() as f32;
    Moments {
        count: values.len() as u32,
        pivot,
        offset,
        m2: values.map(|d| (d - offset) * (d - offset)).sum(),
    }
}
