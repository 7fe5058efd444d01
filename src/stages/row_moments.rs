//! Mirror of `shaders/row_moments.wgsl`.

use super::element::Element;
use super::moments::merge_moments;
use super::parallel::for_ranges;
use super::span::part_span;
use crate::params::Params;
use crate::tables::Moments;
use std::num::NonZero;

/// Values of a chunk: CHUNK words of 4.
pub(super) const CHUNK: usize = 16;

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
        |range, parts| {
            for (item, part) in range.zip(parts) {
                *part = moments_of(&x[part_span(params, width, first + item)]);
            }
        },
    );
}

fn moments_of<T: Element>(values: &[T]) -> Moments {
    let (chunks, rest) = values.as_chunks::<CHUNK>();
    let mut moments = Moments::default();
    for chunk in chunks {
        moments = merge_moments(moments, whole_chunk(chunk.map(T::to_f32)));
    }
    merge_moments(moments, loose_chunk(rest))
}

/// Exact local mean about the chunk's first value, then squared differences from it.
fn whole_chunk(values: [f32; CHUNK]) -> Moments {
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

/// The sum in the order of the kernel: words pairwise, then the elements of the sum word.
pub(super) fn tree_sum(v: [f32; CHUNK]) -> f32 {
    let word: [f32; 4] = std::array::from_fn(|i| (v[i] + v[4 + i]) + (v[8 + i] + v[12 + i]));
    (word[0] + word[1]) + (word[2] + word[3])
}
