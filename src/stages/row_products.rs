//! Mirror of `shaders/row_products.wgsl`.

use super::parallel::for_ranges;
use super::row_moments::tree_sum;
use super::span::part_span;
use crate::params::Params;
use crate::tables::{Moments, Products};
use std::num::NonZero;

/// Running sums kept side by side, as the kernel keeps the elements of a chunk's words apart.
const LANES: usize = 16;

/// Sums of dy - g, of (dy - g) u and of u of every part of every row; `width` is the step's.
pub fn row_products(
    threads: NonZero<usize>,
    params: &Params,
    width: u32,
    x: &[f32],
    grad_y: &[f32],
    rows: &[Moments],
    product_parts: &mut [Products],
) {
    let items = params.items as usize;
    for_ranges(
        threads,
        items,
        product_parts,
        |i| i,
        |range, parts| {
            for (item, part) in range.zip(parts) {
                let row = item / params.parts as usize;
                let pivot = grad_y[row * params.row_len as usize];
                let span = part_span(params, width, item);
                *part = products_of(&x[span.clone()], &grad_y[span], &rows[row], pivot);
            }
        },
    );
}

fn products_of(x: &[f32], grad_y: &[f32], row: &Moments, pivot: f32) -> Products {
    let [mut sums, mut products, mut x_sums] = [[0.0f32; LANES]; 3];
    let (x_chunks, x_rest) = x.as_chunks::<LANES>();
    let (grad_chunks, grad_rest) = grad_y.as_chunks::<LANES>();
    for (x, dy) in x_chunks.iter().zip(grad_chunks) {
        for i in 0..LANES {
            let v = dy[i] - pivot;
            sums[i] += v;
            let u = (x[i] - row.pivot) - row.offset;
            x_sums[i] += u;
            products[i] += v * u;
        }
    }
    for (i, (x, dy)) in x_rest.iter().zip(grad_rest).enumerate() {
        let v = dy - pivot;
        sums[i] += v;
        let u = (x - row.pivot) - row.offset;
        x_sums[i] += u;
        products[i] += v * u;
    }
    Products {
        pivot,
        sum: tree_sum(sums),
        product: tree_sum(products),
        x_sum: tree_sum(x_sums),
    }
}
