//! `shaders/row_products.wgsl` in tiles, as `row_moments`.

use super::activation::backward_all;
use super::parallel::for_ranges;
use super::row_moments::{has_short_rows, lines_of_rows};
use super::tile::{CHUNK, TILE, Tile, TileProducts, gather, or_first};
use crate::params::RowParams;
use crate::stages::element::to_f32;
use crate::stages::row_products::chunk_products;
use crate::stages::span::part_span;
use crate::stages::{Call, Element, Recompute, merge_products};
use crate::tables::{Moments, Products};
use std::num::NonZero;
use std::ops::Range;

/// Runs the step.
pub(crate) fn row_products<T: Element>(
    threads: NonZero<usize>,
    params: &RowParams,
    call: &mut Call<'_>,
) {
    let product_parts = call.table_mut::<Products>("product_parts");
    let width = call.width;
    let rows = call.table::<Moments>("rows");
    let first = params.dispatch.first_item as usize;
    let tensors = Tensors {
        x: call.tensor::<T>("x"),
        grad_y: call.tensor("grad_y"),
        recompute: call.recompute(),
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
            backward_all(recompute, row, first, x, grad_y);
        }
        let us = x.iter().map(|x| (x - moments.pivot) - moments.offset);
        let rest = chunk_products(us.zip(grad_y.iter().copied()));
        merge_products(lanes.all(), rest)
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
        let pivot = gather(moments, |row| row.pivot);
        let offset = gather(moments, |row| row.offset);
        let mut lanes = TileProducts::default();
        let rest = len % CHUNK;
        for first in (0..len - rest).step_by(CHUNK) {
            let (x, grad_y) = self.lines_of_rows(len, row, moments.len(), first, CHUNK);
            lanes.merge(&TileProducts::of_chunk(
                CHUNK,
                #[inline(always)]
                |k, c| (x[k][c] - pivot[c]) - offset[c],
                #[inline(always)]
                |k, c| grad_y[k][c],
            ));
        }
        if rest > 0 {
            let (x, grad_y) = self.lines_of_rows(len, row, moments.len(), len - rest, rest);
            lanes.merge(&TileProducts::of_chunk(
                rest,
                #[inline(always)]
                |k, c| (x[k][c] - pivot[c]) - offset[c],
                #[inline(always)]
                |k, c| grad_y[or_first(k, rest)][c],
            ));
        }
        for (c, products) in products.iter_mut().enumerate() {
            *products = lanes.lane(c);
        }
    }

    /// x and dy of `rows` rows from `row` on: of each row `count` values, from its value `first` on.
    #[inline(always)]
    fn lines_of_rows(
        &self,
        len: usize,
        row: usize,
        rows: usize,
        first: usize,
        count: usize,
    ) -> ([Tile; CHUNK], [Tile; CHUNK]) {
        let elements = row * len..(row + rows) * len;
        let x = lines_of_rows(len, &self.x[elements.clone()], first, count);
        let mut grad_y = lines_of_rows(len, &self.grad_y[elements], first, count);
        if let Some(recompute) = &self.recompute {
            for c in 0..rows {
                let element = (row + c) * len + first;
                let (x, mut grad) = (x.map(|line| line[c]), grad_y.map(|line| line[c]));
                backward_all(recompute, row + c, element, &x[..count], &mut grad[..count]);
                for (line, grad) in grad_y.iter_mut().zip(grad) {
                    line[c] = grad;
                }
            }
        }
        (x, grad_y)
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
        backward_all(recompute, row, first, x_values, grad);
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
