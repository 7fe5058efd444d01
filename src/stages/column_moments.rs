//! Mirror of `shaders/column_moments.wgsl`.

use super::column::{CHUNK, Run, Shape, TILE, Tile, load, reduce, tree_sum, unite};
use super::element::Element;
use crate::params::Params;
use crate::tables::Moments;
use std::num::NonZero;

/// Moments of every part of every row of x, which has its channels last; `width` is the step's.
pub fn column_moments<T: Element>(
    threads: NonZero<usize>,
    params: &Params,
    width: u32,
    x: &[T],
    row_parts: &mut [Moments],
) {
    let shape = Shape::new(params, width);
    reduce(threads, params, width, row_parts, |run, moments| {
        moments_of(shape, run, x, moments);
    });
}

/// Moments of sets of one size, one set a channel.
#[derive(Clone, Copy, Default)]
struct TileMoments {
    pivot: Tile,
    offset: Tile,
    m2: Tile,
}

fn moments_of<T: Element>(shape: Shape, run: &Run, x: &[T], moments: &mut [Moments]) {
    let mut tiles = vec![TileMoments::default(); run.channels.len().div_ceil(TILE)];
    let mut count = 0;
    for (first, positions) in run.chunks() {
        for (tile, all) in tiles.iter_mut().enumerate() {
            let begin = run.channels.start + tile * TILE;
            let end = run.channels.end.min(begin + TILE);
            // Behind the chunk's last position, the first one again.
            let words = std::array::from_fn(|k| {
                let position = first + if k < positions { k } else { 0 };
                load(&x[position * shape.channels..][begin..end])
            });
            let chunk = chunk(&words, positions);
            *all = match count {
                0 => chunk,
                _ => merge(*all, count, &chunk, positions as u32),
            };
        }
        count += positions as u32;
    }
    for (moments, tile) in moments.chunks_mut(TILE).zip(&tiles) {
        for (c, moments) in moments.iter_mut().enumerate() {
            *moments = Moments {
                count,
                pivot: tile.pivot[c],
                offset: tile.offset[c],
                m2: tile.m2[c],
            };
        }
    }
}

/// Exact local mean about the chunk's first value, then squared differences from it.
fn chunk(words: &[Tile; CHUNK], count: usize) -> TileMoments {
    let mut chunk = TileMoments::default();
    let n = count as f32;
    for (c, &pivot) in words[0].iter().enumerate() {
        let differences: [f32; CHUNK] = std::array::from_fn(|k| words[k][c] - pivot);
        let offset = tree_sum(differences) / n;
        let squares = std::array::from_fn(|k| {
            let e = differences[k] - offset;
            if k < count { e * e } else { 0.0 }
        });
        chunk.pivot[c] = pivot;
        chunk.offset[c] = offset;
        chunk.m2[c] = tree_sum(squares);
    }
    chunk
}

fn merge(mut a: TileMoments, a_count: u32, b: &TileMoments, b_count: u32) -> TileMoments {
    let both = unite(
        (a_count, &mut a.pivot, &mut a.offset),
        (b_count, &b.pivot, &b.offset),
    );
    for c in 0..TILE {
        a.m2[c] = (a.m2[c] + b.m2[c]) + (both.delta[c] * both.delta[c]) * both.weight;
    }
    a
}
