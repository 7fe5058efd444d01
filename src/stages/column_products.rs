//! Mirror of `shaders/column_products.wgsl`.

use super::activation::{Recompute, activation_gradient};
use super::column::{CHUNK, Run, Shape, TILE, Tile, gather, load, reduce, tree_sum, unite};
use super::element::Element;
use crate::desc::Activation;
use crate::params::Params;
use crate::tables::{Moments, Products};
use std::num::NonZero;

/// Mean of dy, and its product with u = x - row mean, of every part of every row of tensors with
/// channels last; with `recompute`, dy is what the activation makes of it. `width` is the step's.
#[allow(clippy::too_many_arguments)] // The kernel's bindings.
pub fn column_products<T: Element>(
    threads: NonZero<usize>,
    params: &Params,
    width: u32,
    x: &[T],
    grad_y: &[T],
    rows: &[Moments],
    recompute: Option<Recompute<T>>,
    product_parts: &mut [Products],
) {
    let tensors = Tensors {
        shape: Shape::new(params, width),
        x,
        grad_y,
        rows,
        recompute,
    };
    reduce(threads, params, width, product_parts, |run, products| {
        tensors.products_of(run, products);
    });
}

struct Tensors<'a, T> {
    shape: Shape,
    x: &'a [T],
    grad_y: &'a [T],
    rows: &'a [Moments],
    recompute: Option<Recompute<'a, T>>,
}

/// Products of sets of one size, one set a channel.
#[derive(Clone, Copy, Default)]
struct TileProducts {
    pivot: Tile,
    offset: Tile,
    x_mean: Tile,
    product: Tile,
}

/// What is known of a tile's rows: their means, their maps forward.
struct TileRows {
    pivot: Tile,
    offset: Tile,
    affine: [Tile; 4],
}

impl TileRows {
    /// Takes dy back through the activation.
    fn recompute(&self, x: &Tile, residual: Option<Tile>, activation: Activation, grad: &mut Tile) {
        let [pivot, offset, scale, shift] = &self.affine;
        for c in 0..TILE {
            let mut t = ((x[c] - pivot[c]) - offset[c]) * scale[c] + shift[c];
            if let Some(residual) = &residual {
                t += residual[c];
            }
            grad[c] = activation_gradient(t, grad[c], activation);
        }
    }
}

impl<T: Element> Tensors<'_, T> {
    fn products_of(&self, run: &Run, products: &mut [Products]) {
        let num_tiles = run.channels.len().div_ceil(TILE);
        let mut tiles = vec![TileProducts::default(); num_tiles];
        let rows: Vec<TileRows> = (0..num_tiles).map(|tile| self.rows_of(run, tile)).collect();
        let mut count = 0;
        for (first, positions) in run.chunks() {
            for (tile, (all, rows)) in tiles.iter_mut().zip(&rows).enumerate() {
                let begin = run.channels.start + tile * TILE;
                let end = run.channels.end.min(begin + TILE);
                // Behind the chunk's last position, the first one again.
                let elements = |k: usize| {
                    let position = first + if k < positions { k } else { 0 };
                    let position = position * self.shape.channels;
                    position + begin..position + end
                };
                let x = std::array::from_fn(|k| load(&self.x[elements(k)]));
                let mut grad = std::array::from_fn(|k| load(&self.grad_y[elements(k)]));
                if let Some(recompute) = &self.recompute {
                    for (k, grad) in grad.iter_mut().enumerate() {
                        let residual = recompute.residual.map(|all| load(&all[elements(k)]));
                        rows.recompute(&x[k], residual, recompute.activation, grad);
                    }
                }
                let chunk = chunk(&x, &grad, rows, positions);
                *all = match count {
                    0 => chunk,
                    _ => merge(*all, count, &chunk, positions as u32),
                };
            }
            count += positions as u32;
        }
        for (products, tile) in products.chunks_mut(TILE).zip(&tiles) {
            for (c, products) in products.iter_mut().enumerate() {
                *products = Products {
                    count,
                    pivot: tile.pivot[c],
                    offset: tile.offset[c],
                    x_mean: tile.x_mean[c],
                    product: tile.product[c],
                };
            }
        }
    }

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

/// A chunk's dy are taken about the chunk's first one.
fn chunk(x: &[Tile; CHUNK], grad: &[Tile; CHUNK], rows: &TileRows, count: usize) -> TileProducts {
    let mut chunk = TileProducts::default();
    let n = count as f32;
    for c in 0..TILE {
        let pivot = grad[0][c];
        let v: [f32; CHUNK] =
            std::array::from_fn(|k| if k < count { grad[k][c] - pivot } else { 0.0 });
        let u: [f32; CHUNK] = std::array::from_fn(|k| {
            let u = (x[k][c] - rows.pivot[c]) - rows.offset[c];
            if k < count { u } else { 0.0 }
        });
        let offset = tree_sum(v) / n;
        let u_sum = tree_sum(u);
        chunk.pivot[c] = pivot;
        chunk.offset[c] = offset;
        chunk.x_mean[c] = u_sum / n;
        chunk.product[c] = tree_sum(std::array::from_fn(|k| v[k] * u[k])) - offset * u_sum;
    }
    chunk
}

fn merge(mut a: TileProducts, a_count: u32, b: &TileProducts, b_count: u32) -> TileProducts {
    let both = unite(
        (a_count, &mut a.pivot, &mut a.offset),
        (b_count, &b.pivot, &b.offset),
    );
    for c in 0..TILE {
        let x_delta = b.x_mean[c] - a.x_mean[c];
        a.x_mean[c] += x_delta * both.share;
        a.product[c] = (a.product[c] + b.product[c]) + (both.delta[c] * x_delta) * both.weight;
    }
    a
}
