//! Mirror of `shaders/row_products.wgsl`.

use super::activation::Recompute;
use super::element::Element;
use super::moments::merge_products;
use super::parallel::for_ranges;
use super::row_moments::{CHUNK, tree_sum};
use super::span::part_span;
use crate::params::Params;
use crate::tables::{Moments, Products};
use std::num::NonZero;
use std::ops::Range;

/// Mean of dy, and its product with u = x - row mean, of every part of every row; with `recompute`, dy
/// is what comes out of the activation backward. `width` is the step's.
#[allow(clippy::too_many_arguments)] // The kernel's bindings.
pub fn row_products<T: Element>(
    threads: NonZero<usize>,
    params: &Params,
    width: u32,
    x: &[T],
    grad_y: &[T],
    rows: &[Moments],
    recompute: Option<Recompute<T>>,
    product_parts: &mut [Products],
) {
    let first = params.first_item as usize;
    let tensors = Tensors {
        x,
        grad_y,
        recompute,
    };
    for_ranges(
        threads,
        0..params.items as usize,
        product_parts,
        |item| first + item,
        |range, parts| {
            for (item, part) in range.zip(parts) {
                let row = (first + item) / params.parts as usize;
                let span = part_span(params, width, first + item);
                *part = tensors.products_of(span, row, &rows[row]);
            }
        },
    );
}

struct Tensors<'a, T> {
    x: &'a [T],
    grad_y: &'a [T],
    recompute: Option<Recompute<'a, T>>,
}

impl<T: Element> Tensors<'_, T> {
    fn products_of(&self, span: Range<usize>, row: usize, moments: &Moments) -> Products {
        let (x_chunks, x_rest) = self.x[span.clone()].as_chunks::<CHUNK>();
        let (grad_chunks, grad_rest) = self.grad_y[span.clone()].as_chunks::<CHUNK>();
        let mut products = Products::default();
        let mut first = span.start;
        for (x, grad_y) in x_chunks.iter().zip(grad_chunks) {
            let x = x.map(T::to_f32);
            let mut grad_y = grad_y.map(T::to_f32);
            if let Some(recompute) = &self.recompute {
                recompute.backward(row, first, &x, &mut grad_y);
            }
            products = merge_products(products, whole_chunk(&x, &grad_y, moments));
            first += CHUNK;
        }
        let (mut x, mut grad_y) = ([0.0; CHUNK], [0.0; CHUNK]);
        let count = x_rest.len();
        for (i, (value, dy)) in x_rest.iter().zip(grad_rest).enumerate() {
            (x[i], grad_y[i]) = (value.to_f32(), dy.to_f32());
        }
        if let Some(recompute) = &self.recompute {
            recompute.backward(row, first, &x[..count], &mut grad_y[..count]);
        }
        merge_products(
            products,
            loose_chunk(&x[..count], &grad_y[..count], moments),
        )
    }
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
