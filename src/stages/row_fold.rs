//! Mirrors of `shaders/row_fold.wgsl` and `shaders/row_fold_backward.wgsl`.

use super::moments::{merge_all, merge_products};
use crate::params::Params;
use crate::tables::{Moments, Products};

/// Moments of every row from those of its parts.
pub fn row_fold(params: &Params, row_parts: &[Moments], rows: &mut [Moments]) {
    for (row, parts) in rows.iter_mut().zip(row_parts.chunks(params.parts as usize)) {
        *row = merge_all(parts.iter().copied());
    }
}

/// Products of every row from those of its parts.
pub fn row_fold_backward(params: &Params, product_parts: &[Products], products: &mut [Products]) {
    let parts = product_parts.chunks(params.parts as usize);
    for (row, parts) in products.iter_mut().zip(parts) {
        *row = parts
            .iter()
            .copied()
            .fold(Products::default(), merge_products);
    }
}
