//! Mirror of `shaders/row_affine.wgsl`.

use super::activation::{activate, normalized};
use super::element::Element;
use super::span::row_words;
use crate::desc::Activation;
use crate::params::RowParams;
use crate::tables::Affine;

/// y = activation(norm(x) + residual), norm(x) = ((x - pivot) - offset) * scale + shift row by row.
/// Without x, it is in y. `width` is the step's: it says which elements are a window's.
pub fn row_affine<T: Element>(
    params: &RowParams,
    width: u32,
    activation: Activation,
    x: Option<&[T]>,
    coefficients: &[Affine],
    residual: Option<&[T]>,
    y: &mut [T],
) {
    let row_len = params.split.row_len as usize;
    for item in params.dispatch.range() {
        for i in row_words(params, width, y.len(), item) {
            let x = x.map_or(y[i], |x| x[i]);
            // The item's row; behind its end, in its last word, the next one.
            let mut t = normalized(x.to_f32(), &coefficients[i / row_len]);
            if let Some(residual) = residual {
                t += residual[i].to_f32();
            }
            y[i] = T::from_f32(activate(t, activation));
        }
    }
}
