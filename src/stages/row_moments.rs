//! Mirror of `shaders/row_moments.wgsl`.

use super::element::Element;
use super::moments::merge_moments;
use super::span::part_span;
use crate::params::RowParams;
use crate::tables::Moments;

/// Elements of a chunk: four words of four.
pub(super) const CHUNK: usize = 16;

/// Moments of every part of every row of x; `width` is the step's.
pub fn row_moments<T: Element>(params: &RowParams, width: u32, x: &[T], row_parts: &mut [Moments]) {
    let range = params.dispatch.range();
    for (item, part) in range.clone().zip(&mut row_parts[range]) {
        let mut moments = Moments::default();
        for chunk in x[part_span(params, width, item)].chunks(CHUNK) {
            let values = chunk.iter().map(|x| x.to_f32());
            moments = merge_moments(moments, chunk_moments(values));
        }
        *part = moments;
    }
}

/// Exact local mean about the chunk's first value, then squared differences from it. They are divided by 4 before they are
/// squared, so that they fit wherever the mean of 16 of them does.
#[inline(always)]
pub(crate) fn chunk_moments(values: impl ExactSizeIterator<Item = f32> + Clone) -> Moments {
    let Some(pivot) = values.clone().next() else {
        return Moments::default();
    };
    let count = values.len() as f32;
    let differences = values.clone().map(|x| x - pivot);
    let offset = differences.clone().sum::<f32>() / count;
    let quarters = differences.map(|d| 0.25 * d - 0.25 * offset);
    let squares = quarters.map(|e| e * e).sum::<f32>();
    Moments {
        count: values.len() as u32,
        pivot,
        offset,
        variance: squares * (16.0 / count),
    }
}
