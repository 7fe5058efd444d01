//! Mirror of `shaders/column_moments.wgsl`.

use super::column::column_span;
use super::element::Element;
use super::moments::merge_moments;
use super::row_moments::chunk_moments;
use crate::params::ColumnParams;
use crate::tables::Moments;

/// Positions of a chunk.
pub(super) const CHUNK: usize = 8;

/// Moments of every part of every row of x, which has its channels last; `width` is the step's.
pub fn column_moments<T: Element>(
    params: &ColumnParams,
    width: u32,
    x: &[T],
    row_parts: &mut [Moments],
) {
    let parts = params.split.parts as usize;
    for item in params.dispatch.range() {
        let span = column_span(params, width, item);
        // The channels of the word.
        for k in 0..width as usize {
            let mut moments = Moments::default();
            for first in span.positions.clone().step_by(CHUNK) {
                let chunk = first..span.positions.end.min(first + CHUNK);
                let values = chunk.map(|position| x[span.element(position) + k].to_f32());
                moments = merge_moments(moments, chunk_moments(values));
            }
            row_parts[(span.row + k) * parts + span.part] = moments;
        }
    }
}
