//! Mirror of `shaders/row_products.wgsl`.

use super::activation::Recompute;
use super::element::{Element, to_f32};
use super::moments::merge_products;
use super::parallel::for_ranges;
use super::row_moments::has_short_rows;
use super::span::part_span;
use super::tile::{CHUNK, TILE, TileProducts, or_first};
use crate::params::RowParams;
use crate::tables::{Moments, Products};
use std::num::NonZero;
use std::ops::Range;

/// Mean of dy, and its product with u = x - row mean, of every part of every row; with `recompute`, dy
/// is what comes out of the activation backward. `width` is the step's.
#[allow(clippy::too_many_arguments)] // The kernel's bindings.
pub fn row_products<T: Element>(
    threads: NonZero<usize>,
    params: &RowParams,
    width: u32,
    x: &[T],
    grad_y: &[T],
    rows: &[Moments],
    recompute: Option<Recompute<T>>,
    product_parts: &mut [Products],
) {
    let first = params.dispatch.first_item as usize;
    let tensors = Tensors {
        x,
        grad_y,
        recompute,
    };
    for_ranges(
        threads,
        0..params.dispatch.items as usize,
        product_parts,
        |item| first + item,
        #[inline(always)]
        |range, parts: &mut [Products]| {
            if has_short_rows(params) {
                let len = params.split.row_len as usize;
                let mut row = first + range.start;
                for parts in parts.chunks_mut(TILE) {
                    let end = row + parts.len();
                    tensors.products_of_rows(len, row, &rows[row..end], parts);
                    row = end;
                }
                return;
            }
            for (item, part) in range.zip(parts) {
                let row = (first + item) / params.split.parts as usize;
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
    /// The values in lines of [`TILE`], as in row_moments.
    #[inline(always)]
    fn products_of(&self, span: Range<usize>, row: usize, moments: &Moments) -> Products {
        let (x_lines, x_rest) = self.x[span.clone()].as_chunks::<TILE>();
        let (grad_lines, grad_rest) = self.grad_y[span.clone()].as_chunks::<TILE>();
        let mut lanes = TileProducts::default();
        let mut first = span.start;
        let (x_chunks, x_lines) = x_lines.as_chunks::<CHUNK>();
        let (grad_chunks, grad_lines) = grad_lines.as_chunks::<CHUNK>();
        for (x, grad_y) in x_chunks.iter().zip(grad_chunks) {
            lanes.merge(&self.chunk(x, grad_y, row, first, moments));
            first += CHUNK * TILE;
        }
        if !x_lines.is_empty() {
            lanes.merge(&self.chunk(x_lines, grad_lines, row, first, moments));
            first += x_lines.len() * TILE;
        }
        let (mut x, mut grad_y) = ([0.0; TILE], [0.0; TILE]);
        let (x, grad_y) = (&mut x[..x_rest.len()], &mut grad_y[..x_rest.len()]);
        to_f32(x_rest, x);
        to_f32(grad_rest, grad_y);
        if let Some(recompute) = &self.recompute {
            recompute.backward(row, first, x, grad_y);
        }
        merge_products(lanes.all(), loose_chunk(x, grad_y, moments))
    }

    /// At most [`TILE`] rows of `len` values, from `row` on, a lane for each.
    #[inline(always)]
    fn products_of_rows(
        &self,
        len: usize,
        row: usize,
        moments: &[Moments],
        products: &mut [Products],
    ) {
        let mut lanes = TileProducts::default();
        let rest = len % CHUNK;
        for first in (0..len - rest).step_by(CHUNK) {
            lanes.merge(&self.chunk_of_rows(len, row, moments, first, CHUNK));
        }
        if rest > 0 {
            lanes.merge(&self.chunk_of_rows(len, row, moments, len - rest, rest));
        }
        for (c, products) in products.iter_mut().enumerate() {
            *products = lanes.lane(c);
        }
    }

    /// Of each row `count` values, from its value `first` on.
    #[inline(always)]
    fn chunk_of_rows(
        &self,
        len: usize,
        row: usize,
        moments: &[Moments],
        first: usize,
        count: usize,
    ) -> TileProducts {
        let (mut u, mut v) = ([[0.0; TILE]; CHUNK], [[0.0; TILE]; CHUNK]);
        for (c, moments) in moments.iter().enumerate() {
            let begin = (row + c) * len + first;
            let (mut x, mut grad_y) = ([0.0; CHUNK], [0.0; CHUNK]);
            to_f32(&self.x[begin..begin + count], &mut x);
            to_f32(&self.grad_y[begin..begin + count], &mut grad_y);
            if let Some(recompute) = &self.recompute {
                recompute.backward(row + c, begin, &x[..count], &mut grad_y[..count]);
            }
            for k in 0..count {
                u[k][c] = (x[k] - moments.pivot) - moments.offset;
                v[k][c] = grad_y[k];
            }
        }
        TileProducts::of_chunk(
            count,
            #[inline(always)]
            |k, c| u[k][c],
            #[inline(always)]
            |k, c| v[or_first(k, count)][c],
        )
    }

    /// At most [`CHUNK`] lines, the elements from `first` on.
    #[inline(always)]
    fn chunk(
        &self,
        x: &[[T; TILE]],
        grad_y: &[[T; TILE]],
        row: usize,
        first: usize,
        moments: &Moments,
    ) -> TileProducts {
        let Some(recompute) = &self.recompute else {
            return products_of_lines(x, grad_y, moments);
        };
        let (mut x_chunk, mut grad_chunk) = ([[0.0; TILE]; CHUNK], [[0.0; TILE]; CHUNK]);
        let (x_lines, grad_lines) = (&mut x_chunk[..x.len()], &mut grad_chunk[..x.len()]);
        let (x_values, grad) = (x_lines.as_flattened_mut(), grad_lines.as_flattened_mut());
        to_f32(x.as_flattened(), x_values);
        to_f32(grad_y.as_flattened(), grad);
        recompute.backward(row, first, x_values, grad);
        products_of_lines(x_lines, grad_lines, moments)
    }
}

#[inline(always)]
fn products_of_lines<T: Element>(
    x: &[[T; TILE]],
    grad_y: &[[T; TILE]],
    row: &Moments,
) -> TileProducts {
    let count = x.len();
    TileProducts::of_chunk(
        count,
        #[inline(always)]
        |k, c| (x[or_first(k, count)][c].to_f32() - row.pivot) - row.offset,
        #[inline(always)]
        |k, c| grad_y[or_first(k, count)][c].to_f32(),
    )
}

#[inline(always)]
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
    let [sum, x_sum, product] = sums;
    let n = x.len() as f32;
    let offset = sum / n;
    Products {
        count: x.len() as u32,
        pivot,
        offset,
        x_mean: x_sum / n,
        covariance: (product - offset * x_sum) / n,
    }
}
