//! `shaders/column_moments.wgsl` in tiles of channels.

use super::column::{Run, Shape, lines, load, reduce};
use super::tile::{CHUNK, TILE, TileMoments, or_first};
use crate::params::ColumnParams;
use crate::stages::{Call, Element};
use crate::tables::Moments;
use std::num::NonZero;

/// Runs the step.
pub(crate) fn column_moments<T: Element>(
    threads: NonZero<usize>,
    params: &ColumnParams,
    call: &mut Call<'_>,
) {
    let row_parts = call.table_mut::<Moments>("row_parts");
    let (width, x) = (call.width, call.tensor::<T>("x"));
    let shape = Shape::new(params, width);
    reduce(
        threads,
        params,
        width,
        row_parts,
        #[inline(always)]
        |run, moments| {
            moments_of(shape, run, x, moments);
        },
    );
}

#[inline(always)]
fn moments_of<T: Element>(shape: Shape, run: &Run, x: &[T], moments: &mut [Moments]) {
    let mut tiles = vec![TileMoments::default(); run.num_tiles()];
    for (first, positions) in run.chunks() {
        for (tile, all) in tiles.iter_mut().enumerate() {
            let begin = run.channels.start + tile * TILE;
            let end = run.channels.end.min(begin + TILE);
            if end - begin == TILE {
                let lines = lines(x, shape, (first, positions), begin);
                all.merge(&TileMoments::of_chunk(
                    positions,
                    #[inline(always)]
                    |k, c| lines[k][c].to_f32(),
                ));
                continue;
            }
            // Behind the chunk's last position, the first one again.
            let mut words = [[0.0; TILE]; CHUNK];
            for (k, word) in words.iter_mut().enumerate() {
                let position = first + or_first(k, positions);
                load(&x[position * shape.channels..][begin..end], word);
            }
            all.merge(&TileMoments::of_chunk(
                positions,
                #[inline(always)]
                |k, c| words[k][c],
            ));
        }
    }
    for (moments, tile) in moments.chunks_mut(TILE).zip(&tiles) {
        for (c, moments) in moments.iter_mut().enumerate() {
            *moments = tile.lane(c);
        }
    }
}
