//! Mirrors of `shaders/row_fold.wgsl` and `shaders/row_fold_backward.wgsl`.

use super::moments::merge_moments;
use crate::params::Params;
use crate::tables::{Moments, Products};

/// Moments of every row from those of its parts.
pub fn row_fold(params: &Params, row_parts: &[Moments], rows: &mut [Moments]) {
    for (row, parts) in rows.iter_mut().zip(row_parts.chunks(params.parts as usize)) {
        *row = parts
            .iter()
            .copied()
            .fold(Moments::default(), merge_moments);
    }
}

/// Sums of every row from those of its parts, which share one pivot.
pub fn row_fold_backward(params: &Params, product_parts: &[Products], products: &mut [Products]) {
    let parts = product_parts.chunks(params.parts as usize);
    for (row, parts) in products.iter_mut().zip(parts) {
        *row = Products {
            pivot: parts[0].pivot,
            sum: parts.iter().map(|part| part.sum).sum(),
            product: parts.iter().map(|part| part.product).sum(),
            x_sum: parts.iter().map(|part| part.x_sum).sum(),
        };
    }
}
