//! Mirror of `shaders/row_fold_backward.wgsl`.

use super::moments::merge_products;
use crate::params::PartParams;
use crate::tables::Products;

/// Products of every row from those of its parts.
pub fn row_fold_backward(
    params: &PartParams,
    product_parts: &[Products],
    products: &mut [Products],
) {
    let parts = product_parts.chunks(params.parts.parts as usize);
    for (row, parts) in products.iter_mut().zip(parts) {
        let mut merged = parts
            .iter()
            .copied()
            .fold(Products::default(), merge_products);
        // A second look, as row_fold takes: what is left of both means, and the covariance about them.
        let (mut left, mut x_left, mut covariance) = (0.0, 0.0, 0.0);
        for entry in parts {
            let count = f64::from(entry.count);
            let delta = (entry.pivot - merged.pivot) + (entry.offset - merged.offset);
            let (delta, x_delta) = (f64::from(delta), f64::from(entry.x_mean - merged.x_mean));
            left += count * delta;
            x_left += count * x_delta;
            covariance += count * (f64::from(entry.covariance) + delta * x_delta);
        }
        let count = f64::from(merged.count.max(1));
        merged.offset += (left / count) as f32;
        merged.x_mean += (x_left / count) as f32;
        merged.covariance = (covariance / count) as f32;
        *row = merged;
    }
}
