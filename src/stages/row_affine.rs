//! Mirrors of `shaders/row_affine.wgsl` and `shaders/row_affine_backward.wgsl`.

use super::parallel::for_ranges;
use crate::params::Params;
use crate::tables::{Affine, AffineBackward};
use std::num::NonZero;

/// y = ((x - pivot) - offset) * scale + shift, row by row. (A mirror need not split rows: each
/// element is computed alone.)
pub fn row_affine(
    threads: NonZero<usize>,
    params: &Params,
    x: &[f32],
    coefficients: &[Affine],
    y: &mut [f32],
) {
    let len = params.row_len as usize;
    for_ranges(
        threads,
        coefficients.len(),
        y,
        |row| row * len,
        |range, y| {
            let x = x[range.start * len..].chunks(len);
            for ((a, x), y) in coefficients[range].iter().zip(x).zip(y.chunks_mut(len)) {
                for (y, x) in y.iter_mut().zip(x) {
                    *y = ((x - a.pivot) - a.offset) * a.scale + a.shift;
                }
            }
        },
    );
}

/// dx from dy and x, row by row; added to what is there where `accumulate`.
pub fn row_affine_backward(
    threads: NonZero<usize>,
    params: &Params,
    accumulate: bool,
    x: &[f32],
    grad_y: &[f32],
    coefficients_backward: &[AffineBackward],
    grad_x: &mut [f32],
) {
    let len = params.row_len as usize;
    let rows = coefficients_backward.len();
    for_ranges(
        threads,
        rows,
        grad_x,
        |row| row * len,
        |range, grad_x| {
            let x = x[range.start * len..].chunks(len);
            let grad_y = grad_y[range.start * len..].chunks(len);
            let rows = coefficients_backward[range].iter().zip(x.zip(grad_y));
            for ((a, (x, grad_y)), grad_x) in rows.zip(grad_x.chunks_mut(len)) {
                for ((out, x), dy) in grad_x.iter_mut().zip(x).zip(grad_y) {
                    let (v, u) = (dy - a.grad_pivot, x - a.x_pivot);
                    let value = (v * a.grad_scale + u * a.x_scale) + a.shift;
                    *out = if accumulate { *out + value } else { value };
                }
            }
        },
    );
}
