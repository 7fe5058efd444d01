//! `shaders/column_moments.wgsl` in tiles of channels.

use super::column::{Lines, Run, Shape, reduce};
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
    let mut lines = Lines::new(run);
    for chunk in run.chunks() {
        lines.read(x, shape, run, chunk);
        let (_, positions) = chunk;
        for (all, lines) in tiles.iter_mut().zip(lines.tiles()) {
            all.merge(&if positions == CHUNK {
                TileMoments::of_chunk(
                    CHUNK,
                    #[inline(always)]
                    |k, c| lines[k][c],
                )
            } else {
                TileMoments::of_chunk(
                    positions,
                    #[inline(always)]
                    |k, c| lines[or_first(k, positions)][c],
                )
            });
        }
    }
    for (moments, tile) in moments.chunks_mut(TILE).zip(&tiles) {
        for (c, moments) in moments.iter_mut().enumerate() {
            *moments = tile.lane(c);
        }
    }
}
