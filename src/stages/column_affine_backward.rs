//! Mirror of `shaders/column_affine_backward.wgsl`.

use super::activation::Recompute;
use super::column::mapped_elements;
use super::element::Element;
use super::row_affine_backward::x_gradient;
use crate::params::ColumnParams;
use crate::tables::AffineBackward;

/// dx from dy and x, row by row, added to what is there where `accumulate`; with `recompute`, dy is what
/// comes out of the activation backward, and the residual's gradient. Tensors have their channels last;
/// `width` and `aligned` are the step's.
#[expect(
    clippy::too_many_arguments,
    reason = "one for each binding of the kernel"
)]
pub fn column_affine_backward<T: Element>(
    params: &ColumnParams,
    width: u32,
    aligned: bool,
    accumulate: bool,
    x: Option<&[T]>,
    grad_y: &[T],
    coefficients_backward: &[AffineBackward],
    recompute: Option<Recompute<T>>,
    grad_x: &mut [T],
    mut grad_residual: Option<&mut [T]>,
) {
    for (i, row) in mapped_elements(params, width, aligned) {
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
