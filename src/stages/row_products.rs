//! Mirror of `shaders/row_products.wgsl`.

use super::activation::Recompute;
use super::element::Element;
use super::moments::merge_products;
use super::row_moments::CHUNK;
use super::span::part_span;
use crate::params::RowParams;
use crate::tables::{Moments, Products};

/// Mean of dy, and its covariance with u = x - row mean, of every part of every row; with `recompute`, dy
/// is what comes out of the activation backward. `width` is the step's.
pub fn row_products<T: Element>(
    params: &RowParams,
    width: u32,
    x: &[T],
    grad_y: &[T],
    rows: &[Moments],
    recompute: Option<Recompute<T>>,
    product_parts: &mut [Products],
) {
    let parts = params.split.parts as usize;
    let range = params.dispatch.range();
    for (item, part) in range.clone().zip(&mut product_parts[range]) {
        let row = item / parts;
        let span = part_span(params, width, item);
        let mut products = Products::default();
        for first in span.clone().step_by(CHUNK) {
            let chunk = first..span.end.min(first + CHUNK);
            let pairs = chunk.map(|i| {
                let x = x[i].to_f32();
                let mut grad = grad_y[i].to_f32();
                if let Some(recompute) = &recompute {
                    grad = recompute.gradient(row, i, x, grad);
                }
                ((x - rows[row].pivot) - rows[row].offset, grad)
            });
            products = merge_products(products, chunk_products(pairs));
        }
        *part = products;
    }
}

/// From pairs of u and dy: sums of dy less the chunk's first one, of u, and of their products.
#[inline(always)]
pub(crate) fn chunk_products(pairs: impl ExactSizeIterator<Item = (f32, f32)> + Clone) -> Products {
    let count = pairs.len();
    let Some((_, pivot)) = pairs.clone().next() else {
        return Products::default();
    };
    let (mut sum, mut x_sum, mut product) = (0.0, 0.0, 0.0);
    for (u, grad) in pairs {
        let v = grad - pivot;
        sum += v;
        x_sum += u;
        product += v * u;
    }
    let n = count as f32;
    let offset = sum / n;
    Products {
        count: count as u32,
        pivot,
        offset,
        x_mean: x_sum / n,
        covariance: (product - offset * x_sum) / n,
    }
}
