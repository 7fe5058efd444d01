//! `shaders/column_products.wgsl` in tiles of channels.

use super::column::{Run, Shape, lines, load, reduce};
use super::tile::{CHUNK, TILE, Tile, TileProducts, gather, or_first};
use crate::desc::Activation;
use crate::params::ColumnParams;
use crate::stages::activation::activation_gradient;
use crate::stages::{Call, Element, Recompute};
use crate::tables::{Moments, Products};
use std::num::NonZero;

/// Runs the step.
pub(crate) fn column_products<T: Element>(
    threads: NonZero<usize>,
    params: &ColumnParams,
    call: &mut Call<'_>,
) {
    let product_parts = call.table_mut::<Products>("product_parts");
    let width = call.width;
    let tensors = Tensors {
        shape: Shape::new(params, width),
        x: call.tensor::<T>("x"),
        grad_y: call.tensor("grad_y"),
        rows: call.table("rows"),
        recompute: call.recompute(),
    };
    reduce(
        threads,
        params,
        width,
        product_parts,
        #[inline(always)]
        |run, products| {
            tensors.products_of(run, products);
        },
    );
}

struct Tensors<'a, T> {
    shape: Shape,
    x: &'a [T],
    grad_y: &'a [T],
    rows: &'a [Moments],
    recompute: Option<Recompute<'a, T>>,
}

/// What is known of a tile's rows: their means, their maps forward.
struct TileRows {
    pivot: Tile,
    offset: Tile,
    affine: [Tile; 4],
}

impl TileRows {
    /// Takes dy back through the activation.
    #[inline(always)]
    fn recompute(&self, x: &Tile, residual: &Tile, activation: Activation, grad: &mut Tile) {
        let [pivot, offset, scale, shift] = &self.affine;
        for c in 0..TILE {
            let t = ((x[c] - pivot[c]) - offset[c]) * scale[c] + shift[c];
            let t = t + residual[c];
            grad[c] = activation_gradient(t, grad[c], activation);
        }
    }
}

impl<T: Element> Tensors<'_, T> {
    #[inline(always)]
    fn products_of(&self, run: &Run, products: &mut [Products]) {
        let num_tiles = run.num_tiles();
        let mut tiles = vec![TileProducts::default(); num_tiles];
        let rows: Vec<TileRows> = (0..num_tiles).map(|tile| self.rows_of(run, tile)).collect();
        for (first, positions) in run.chunks() {
            for (tile, (all, rows)) in tiles.iter_mut().zip(&rows).enumerate() {
                let begin = run.channels.start + tile * TILE;
                let end = run.channels.end.min(begin + TILE);
                if end - begin == TILE && self.recompute.is_none() {
                    let x = lines(self.x, self.shape, (first, positions), begin);
                    let grad = lines(self.grad_y, self.shape, (first, positions), begin);
                    all.merge(&TileProducts::of_chunk(
                        positions,
                        #[inline(always)]
                        |k, c| (x[k][c].to_f32() - rows.pivot[c]) - rows.offset[c],
                        #[inline(always)]
                        |k, c| grad[k][c].to_f32(),
                    ));
                    continue;
                }
                // Behind the chunk's last position, the first one again.
                let (mut x, mut grad) = ([[0.0; TILE]; CHUNK], [[0.0; TILE]; CHUNK]);
                for (k, (x, grad)) in x.iter_mut().zip(&mut grad).enumerate() {
                    let position = (first + or_first(k, positions)) * self.shape.channels;
                    let elements = position + begin..position + end;
                    load(&self.x[elements.clone()], x);
                    load(&self.grad_y[elements.clone()], grad);
                    if let Some(recompute) = &self.recompute {
                        let mut residual = [0.0; TILE];
                        if let Some(all) = recompute.residual {
                            load(&all[elements], &mut residual);
                        }
                        rows.recompute(x, &residual, recompute.activation, grad);
                    }
                }
                all.merge(&TileProducts::of_chunk(
                    positions,
                    #[inline(always)]
                    |k, c| (x[k][c] - rows.pivot[c]) - rows.offset[c],
                    #[inline(always)]
                    |k, c| grad[k][c],
                ));
            }
        }
        for (products, tile) in products.chunks_mut(TILE).zip(&tiles) {
            for (c, products) in products.iter_mut().enumerate() {
                *products = tile.lane(c);
            }
        }
    }

    #[inline(always)]
    fn rows_of(&self, run: &Run, tile: usize) -> TileRows {
        let rows = run.rows(self.shape);
        let rows = rows.start + tile * TILE..rows.end.min(rows.start + (tile + 1) * TILE);
        let moments = &self.rows[rows.clone()];
        let affine = self.recompute.as_ref().map(|recompute| {
            let entries = &recompute.coefficients[rows];
            [
                gather(entries, |a| a.pivot),
                gather(entries, |a| a.offset),
                gather(entries, |a| a.scale),
                gather(entries, |a| a.shift),
            ]
        });
        TileRows {
            pivot: gather(moments, |row| row.pivot),
            offset: gather(moments, |row| row.offset),
            affine: affine.unwrap_or_default(),
        }
    }
}
