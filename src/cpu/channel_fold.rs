//! `shaders/channel_fold.wgsl` for many channels side by side: each merge waits for the one before it, those of neighbours do
//! not.

use super::tile::{TILE, TileMoments};
use super::vector::vectorized;
use crate::params::ChannelParams;
use crate::stages::channel_fold::{ChannelFold, counted, merged};
use crate::stages::{Call, RunningStatistics};
use crate::tables::{Channel, Moments};
use std::num::NonZero;

/// Runs the step.
pub(crate) fn channel_fold(_: NonZero<usize>, params: &ChannelParams, call: &mut Call<'_>) {
    let count = call.optional_table_mut("num_batches_tracked");
    let mean = call.optional_table_mut("running_mean");
    let var = call.optional_table_mut("running_var");
    let channels = call.table_mut::<Channel>("channels");
    let parts = call.optional_table("channel_parts");
    let parts = parts.unwrap_or_default();
    let mut running = mean
        .zip(var)
        .map(|(mean, var)| RunningStatistics { mean, var });
    let inputs = ChannelFold {
        params,
        bn_weight: call.optional_table("bn_weight"),
        bn_bias: call.optional_table("bn_bias"),
        weight: call.optional_table("weight"),
        batches: counted(params, count),
    };
    for (tile, channels) in channels.chunks_mut(TILE).enumerate() {
        let first = tile * TILE;
        let side_by_side = vectorized(
            #[inline(always)]
            || merged_tile(params, parts, first),
        );
        for (lane, channel) in channels.iter_mut().enumerate() {
            let c = first + lane;
            let batch = match &side_by_side {
                Some(moments) => moments[lane],
                None => merged(params, parts, c),
            };
            *channel = inputs.fold(c, batch, &mut running);
        }
    }
}

/// Moments of [`TILE`] channels from `first` on, where there are as many, and all of one size.
#[inline(always)]
fn merged_tile(params: &ChannelParams, parts: &[Moments], first: usize) -> Option<[Moments; TILE]> {
    let columns = params.table.columns as usize;
    if first + TILE > columns {
        return None;
    }
    let tile = |i: usize| parts[i * columns + first..].first_chunk::<TILE>();
    let tiles = || (0..params.table.entries as usize).filter_map(tile);
    let even = |tile: &[Moments; TILE]| tile.iter().all(|entry| entry.count == tile[0].count);
    if !tiles().all(even) {
        return None;
    }
    let mut all = TileMoments::default();
    for tile in tiles().filter(|tile| tile[0].count != 0) {
        all.merge(&TileMoments::of(tile));
    }
    let mut merged: [Moments; TILE] = std::array::from_fn(|c| all.lane(c));
    // The second look: see `merge_all`.
    let (mut left, mut spread) = ([0.0; TILE], [0.0; TILE]);
    for tile in tiles() {
        for c in 0..TILE {
            let (part, all) = (&tile[c], &merged[c]);
            let delta = f64::from((part.pivot - all.pivot) + (part.offset - all.offset));
            let count = f64::from(part.count);
            left[c] += count * delta;
            spread[c] += count * (f64::from(part.variance) + delta * delta);
        }
    }
    let count = f64::from(merged[0].count.max(1));
    for c in 0..TILE {
        merged[c].offset += (left[c] / count) as f32;
        merged[c].variance = (spread[c] / count) as f32;
    }
    Some(merged)
}
