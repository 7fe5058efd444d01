//! `shaders/group_fold.wgsl`: the mirror's groups, on threads; the means of many side by side, since each merge waits for the
//! one before it, and those of neighbours do not.

use super::parallel::{Rows, for_ranges};
use super::tile::{TILE, TileMoments};
use crate::params::GroupParams;
use crate::stages::Call;
use crate::stages::channel_table::ChannelTable;
use crate::stages::group_fold::GroupFold;
use crate::stages::precise::RowMean;
use crate::tables::{Affine, Group, Moments};
use std::num::NonZero;

/// Runs the step.
pub(crate) fn group_fold(threads: NonZero<usize>, params: &GroupParams, call: &mut Call<'_>) {
    let groups = call.table_mut::<Group>("groups");
    let coefficients = call.table_mut::<Affine>("coefficients");
    let inputs = GroupFold {
        params,
        rows: call.table("rows"),
        channels: ChannelTable::of(call, params.norm.flags, params.shape.num_channels),
        weight: call.optional_table("weight"),
        bias: call.optional_table("bias"),
    };
    let len = (params.shape.num_channels / params.shape.num_groups) as usize;
    let values = coefficients;
    for_ranges(
        threads,
        0..groups.len(),
        (groups, Rows { values, len }),
        |item| item,
        #[inline(always)]
        |range, (groups, coefficients): (&mut [Group], Rows<Affine>)| {
            let mut means = Vec::with_capacity(TILE * len);
            let tiles = groups.chunks_mut(TILE);
            let tiles = tiles.zip(coefficients.values.chunks_mut(TILE * len));
            for (first, (groups, coefficients)) in range.step_by(TILE).zip(tiles) {
                means.clear();
                for item in first..first + groups.len() {
                    means.extend((0..len).map(|i| inputs.row(item, len, i)));
                }
                let side_by_side = side_by_side(&inputs.rows[first * len..], &means, len);
                let outputs = groups.iter_mut().zip(coefficients.chunks_mut(len));
                for (c, (group, coefficients)) in outputs.enumerate() {
                    let (item, means) = (first + c, &means[c * len..][..len]);
                    let mean = match &side_by_side {
                        Some(means) => means[c],
                        None => inputs.mean(item, means),
                    };
                    *group = inputs.fold(item, mean, means, coefficients);
                }
            }
        },
    );
}

/// The means of [`TILE`] groups of `len` rows each, where there are as many and all rows have as many values.
#[inline(always)]
fn side_by_side(rows: &[Moments], means: &[RowMean], len: usize) -> Option<[Moments; TILE]> {
    let rows = &rows[..means.len()];
    let count = rows.first()?.count;
    if means.len() < TILE * len || count == 0 || rows.iter().any(|row| row.count != count) {
        return None;
    }
    let mut all = TileMoments::default();
    for i in 0..len {
        all.merge(&TileMoments::of_means(
            count,
            std::array::from_fn(|c| means[c * len + i].pivot),
            std::array::from_fn(|c| means[c * len + i].offset),
        ));
    }
    Some(std::array::from_fn(|c| all.lane(c)))
}
