//! Mirror of `shaders/column_products.wgsl`.

use super::activation::Recompute;
use super::column::column_span;
use super::column_moments::CHUNK;
use super::element::Element;
use super::moments::merge_products;
use super::row_products::chunk_products;
use crate::params::ColumnParams;
use crate::tables::{Moments, Products};

/// Mean of dy, and its covariance with u = x - row mean, of every part of every row of tensors with
/// channels last; with `recompute`, dy is what comes out of the activation backward. `width` is the step's.
pub fn column_products<T: Element>(
    params: &ColumnParams,
    width: u32,
    x: &[T],
    grad_y: &[T],
    rows: &[Moments],
    recompute: Option<Recompute<T>>,
    product_parts: &mut [Products],
) {
    let parts = params.split.parts as usize;
    for item in params.dispatch.range() {
        let span = column_span(params, width, item);
        // The channels of the word.
        for k in 0..width as usize {
            let row = span.row + k;
            let mut products = Products::default();
            for first in span.positions.clone().step_by(CHUNK) {
                let chunk = first..span.positions.end.min(first + CHUNK);
                let pairs = chunk.map(|position| {
                    let i = span.element(position) + k;
                    let x = x[i].to_f32();
                    let mut grad = grad_y[i].to_f32();
                    if let Some(recompute) = &recompute {
                        grad = recompute.gradient(row, i, x, grad);
                    }
                    ((x - rows[row].pivot) - rows[row].offset, grad)
                });
                products = merge_products(products, chunk_products(pairs));
            }
            product_parts[row * parts + span.part] = products;
        }
    }
}
