//! Mirror of `shaders/column_affine.wgsl`.

use super::activation::{activate, normalized};
use super::column::mapped_elements;
use super::element::Element;
use crate::desc::Activation;
use crate::params::ColumnParams;
use crate::tables::Affine;

/// y = activation(norm(x) + residual), norm(x) = ((x - pivot) - offset) * scale + shift row by row, for
/// tensors with channels last. Without x, it is in y. `width` and `aligned` are the step's.
#[expect(
    clippy::too_many_arguments,
    reason = "one for each binding of the kernel"
)]
pub fn column_affine<T: Element>(
    params: &ColumnParams,
    width: u32,
    aligned: bool,
    activation: Activation,
    x: Option<&[T]>,
    coefficients: &[Affine],
    residual: Option<&[T]>,
    y: &mut [T],
) {
    for (i, row) in mapped_elements(params, width, aligned) {
        let x = x.map_or(y[i], |x| x[i]);
        let mut t = normalized(x.to_f32(), &coefficients[row]);
        if let Some(residual) = residual {
            t += residual[i].to_f32();
        }
        y[i] = T::from_f32(activate(t, activation));
    }
}
