//! Mirror of `shaders/row_products.wgsl`.

use super::moments::merge_products;
use super::parallel::for_ranges;
use super::row_moments::{CHUNK, tree_sum};
use super::span::part_span;
use crate::params::Params;
use crate::tables::{Moments, Products};
use std::num::NonZero;

/// Mean of dy, and its product with u = x - row mean, of every part of every row; `width` is the
/// step's.
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
                let row = &rows[item / params.parts as usize];
                let span = part_span(params, width, item);
                *part = products_of(&x[span.clone()], &grad_y[span], row);
            }
        },
    );
}

fn products_of(x: &[f32], grad_y: &[f32], row: &Moments) -> Products {
    let (x_chunks, x_rest) = x.as_chunks::<CHUNK>();
    let (grad_chunks, grad_rest) = grad_y.as_chunks::<CHUNK>();
    let mut products = Products::default();
    for (x, grad_y) in x_chunks.iter().zip(grad_chunks) {
        products = merge_products(products, whole_chunk(x, grad_y, row));
    }
    merge_products(products, loose_chunk(x_rest, grad_rest, row))
}

fn whole_chunk(x: &[f32; CHUNK], grad_y: &[f32; CHUNK], row: &Moments) -> Products {
    let pivot = grad_y[0];
    let v = grad_y.map(|dy| dy - pivot);
    let u = x.map(|x| (x - row.pivot) - row.offset);
    let product = std::array::from_fn(|i| v[i] * u[i]);
    let sums = [tree_sum(v), tree_sum(u), tree_sum(product)];
    chunk_products(CHUNK, pivot, sums)
}

fn loose_chunk(x: &[f32], grad_y: &[f32], row: &Moments) -> Products {
    let Some(&pivot) = grad_y.first() else {
        return Products::default();
    };
    let mut sums = [0.0; 3];
    for (x, dy) in x.iter().zip(grad_y) {
        let (v, u) = (dy - pivot, (x - row.pivot) - row.offset);
        sums[0] += v;
        sums[1] += u;
        sums[2] += v * u;
    }
    chunk_products(x.len(), pivot, sums)
}

/// From the chunk's sums of v = dy - pivot, of u and of v u.
fn chunk_products(count: usize, pivot: f32, [sum, x_sum, product]: [f32; 3]) -> Products {
    let n = count as f32;
    let offset = sum / n;
    Products {
        count: count as u32,
        pivot,
        offset,
        x_mean: x_sum / n,
        product: product - offset * x_sum,
    }
}
