//! Mirror of `shaders/row_affine_backward.wgsl`.

use super::activation::Recompute;
use super::element::Element;
use super::span::row_words;
use crate::params::RowParams;
use crate::tables::AffineBackward;

/// dx from dy and x, row by row, added to what is there where `accumulate`; with `recompute`, dy is what
/// comes out of the activation backward, and the residual's gradient. Without x, dx does not depend on it. `width` as
/// with [`row_affine`](super::row_affine()).
#[expect(
    clippy::too_many_arguments,
    reason = "one for each binding of the kernel"
)]
pub fn row_affine_backward<T: Element>(
    params: &RowParams,
    width: u32,
    accumulate: bool,
    x: Option<&[T]>,
    grad_y: &[T],
    coefficients_backward: &[AffineBackward],
    recompute: Option<Recompute<T>>,
    grad_x: &mut [T],
    mut grad_residual: Option<&mut [T]>,
) {
    let row_len = params.split.row_len as usize;
    for item in params.dispatch.range() {
        for i in row_words(params, width, grad_x.len(), item) {
            let row = i / row_len;
            let x = x.map(|x| x[i].to_f32());
            let mut grad = grad_y[i].to_f32();
            if let (Some(recompute), Some(x)) = (&recompute, x) {
                grad = recompute.gradient(row, i, x, grad);
            }
            let mut dx = x_gradient(x, grad, &coefficients_backward[row]);
            if accumulate {
                dx += grad_x[i].to_f32();
            }
            grad_x[i] = T::from_f32(dx);
            if let Some(grad_residual) = &mut grad_residual {
                grad_residual[i] = T::from_f32(grad);
            }
        }
    }
}

/// dx of one element.
pub(super) fn x_gradient(x: Option<f32>, grad: f32, a: &AffineBackward) -> f32 {
    let mut dx = (grad - a.grad_pivot) * a.grad_scale;
    if let Some(x) = x {
        dx += ((x - a.x_pivot) * AffineBackward::x_unit(a.grad_scale)) * a.x_scale;
    }
    dx + a.shift
}
