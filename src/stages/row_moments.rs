//! Mirror of `shaders/row_moments.wgsl`.

use super::moments::merge_moments;
use super::parallel::for_ranges;
use super::span::part_span;
use crate::params::Params;
use crate::tables::Moments;
use std::num::NonZero;

/// Values of a chunk: CHUNK words of 4.
pub(super) const CHUNK: usize = 16;

/// Moments of every part of every row of x; `width` is the step's.
pub fn row_moments(
    threads: NonZero<usize>,
    params: &Params,
    width: u32,
    x: &[f32],
    row_parts: &mut [Moments],
) {
    let items = params.items as usize;
    for_ranges(
        threads,
        items,
        row_parts,
        |i| i,
        |range, parts| {
            for (item, part) in range.zip(parts) {
                *part = moments_of(&x[part_span(params, width, item)]);
            }
        },
    );
}

fn moments_of(values: &[f32]) -> Moments {
    let (chunks, rest) = values.as_chunks::<CHUNK>();
    let mut moments = Moments::default();
    for chunk in chunks {
        moments = merge_moments(moments, whole_chunk(chunk));
    }
    merge_moments(moments, loose_chunk(rest))
}

/// Exact local mean about the chunk's first value, then squared differences from it.
fn whole_chunk(values: &[f32; CHUNK]) -> Moments {
    let pivot = values[0];
    let differences = values.map(|x| x - pivot);
    let offset = tree_sum(differences) / CHUNK as f32;
    Moments {
        count: CHUNK as u32,
        pivot,
        offset,
        m2: tree_sum(differences.map(|d| (d - offset) * (d - offset))),
    }
}

fn loose_chunk(values: &[f32]) -> Moments {
    let Some(&pivot) = values.first() else {
        return Moments::default();
    };
    let offset = values.iter().map(|x| x - pivot).sum::<f32>() / values.len() as f32;
    let squares = values.iter().map(|x| {
        let e = (x - pivot) - offset;
        e * e
    });
    Moments {
        count: values.len() as u32,
        pivot,
        offset,
        m2: squares.sum(),
    }
}

/// The sum in the order of the kernel: words pairwise, then the elements of the sum word.
pub(super) fn tree_sum(v: [f32; CHUNK]) -> f32 {
    let word: [f32; 4] = std::array::from_fn(|i| (v[i] + v[4 + i]) + (v[8 + i] + v[12 + i]));
    (word[0] + word[1]) + (word[2] + word[3])
}
