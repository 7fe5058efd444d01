//! `shaders/column_products.wgsl` in tiles of channels.

use super::column::{Lines, Run, Shape, reduce};
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
    /// x less its row's mean.
    #[inline(always)]
    fn above_mean(&self, x: &[Tile; CHUNK], k: usize, c: usize) -> f32 {
        (x[k][c] - self.pivot[c]) - self.offset[c]
    }

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
        let (mut x, mut grad_y, mut residual) = (Lines::new(run), Lines::new(run), Lines::new(run));
        for chunk in run.chunks() {
            x.read(self.x, self.shape, run, chunk);
            grad_y.read(self.grad_y, self.shape, run, chunk);
            let (_, positions) = chunk;
            if let Some(recompute) = &self.recompute {
                if let Some(values) = recompute.residual {
                    residual.read(values, self.shape, run, chunk);
                }
                let lines = x.tiles().zip(grad_y.tiles()).zip(residual.tiles());
                for (rows, ((x, grad_y), residual)) in rows.iter().zip(lines) {
                    for k in 0..positions {
                        rows.recompute(&x[k], &residual[k], recompute.activation, &mut grad_y[k]);
                    }
                }
            }
            let lines = x.tiles().zip(grad_y.tiles());
            for ((all, rows), (x, grad_y)) in tiles.iter_mut().zip(&rows).zip(lines) {
                all.merge(&if positions == CHUNK {
                    TileProducts::of_chunk(
                        CHUNK,
                        #[inline(always)]
                        |k, c| rows.above_mean(x, k, c),
                        #[inline(always)]
                        |k, c| grad_y[k][c],
                    )
                } else {
                    TileProducts::of_chunk(
                        positions,
                        #[inline(always)]
                        |k, c| rows.above_mean(x, k, c),
                        #[inline(always)]
                        |k, c| grad_y[or_first(k, positions)][c],
                    )
                });
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
