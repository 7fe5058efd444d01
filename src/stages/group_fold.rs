//! Mirror of `shaders/group_fold.wgsl`.

use super::moments::merge_moments;
use super::precise::row_mean;
use super::precise::{above_group_mean, degrees_of_freedom, reciprocal_std};
use crate::params::{GroupParams, PER_CHANNEL};
use crate::tables::{Affine, Channel, Group, Moments};

/// Statistics of every (sample, group), and the affine map of every row.
pub fn group_fold(
    params: &GroupParams,
    rows: &[Moments],
    channels: &[Channel],
    weight: Option<&[f32]>,
    bias: Option<&[f32]>,
    groups: &mut [Group],
    coefficients: &mut [Affine],
) {
    let size = (params.shape.num_channels / params.shape.num_groups) as usize;
    let inputs = GroupFold {
        params,
        rows,
        channels,
        weight,
        bias,
    };
    let items = groups.iter_mut().zip(coefficients.chunks_mut(size));
    for (item, (group, coefficients)) in items.enumerate() {
        *group = inputs.fold(item, coefficients);
    }
}

/// What the kernel reads.
pub(crate) struct GroupFold<'a> {
    pub params: &'a GroupParams,
    pub rows: &'a [Moments],
    pub channels: &'a [Channel],
    pub weight: Option<&'a [f32]>,
    pub bias: Option<&'a [f32]>,
}

impl GroupFold<'_> {
    /// Statistics of a (sample, group), and the maps of its rows.
    pub fn fold(&self, item: usize, coefficients: &mut [Affine]) -> Group {
        let (params, size) = (self.params, coefficients.len());
        let per_channel = params.norm.flags & PER_CHANNEL != 0;
        let g = item % params.shape.num_groups as usize;
        let rows = &self.rows[item * size..][..size];
        let channels = &self.channels[g * size..][..size];
        let moments = rows.iter().zip(channels).map(|(row, channel)| {
            let mean = row_mean(&params.norm, row, channel);
            Moments {
                count: row.count,
                pivot: mean.pivot,
                offset: mean.offset,
                variance: 0.0,
            }
        });
        let moments = moments.fold(Moments::default(), merge_moments);
        let mut group = Group {
            mean_pivot: moments.pivot,
            mean_offset: moments.offset,
            ..Group::default()
        };
        // Two more looks from the mean just found: what is left of it, then the spread about it.
        let (mut left, mut spread) = (0.0, 0.0);
        let first = above_group_mean(&params.norm, &rows[0], &channels[0], &group);
        for (row, channel) in rows.iter().zip(channels) {
            let above = above_group_mean(&params.norm, row, channel, &group) - first;
            left += f64::from(row.count) * f64::from(above);
        }
        group.mean_rest = first + (left / f64::from(moments.count)) as f32;
        let count = f64::from(moments.count);
        for (row, channel) in rows.iter().zip(channels) {
            let above = f64::from(above_group_mean(&params.norm, row, channel, &group));
            let scale = f64::from(channel.scale);
            let within = scale * scale * f64::from(row.variance);
            spread += f64::from(row.count) / count * (within + above * above);
        }
        let count = moments.count as f32;
        let variance = spread as f32 * (count / degrees_of_freedom(&params.norm, count));
        group.rstd = reciprocal_std(variance + params.norm.eps);
        group.weight = match self.weight {
            Some(weight) if !per_channel => weight[g],
            _ => 1.0,
        };
        let entries = rows.iter().zip(channels).zip(coefficients);
        for (i, ((row, channel), out)) in entries.enumerate() {
            let above = above_group_mean(&params.norm, row, channel, &group);
            // One of the two weights is 1.
            let scale = (group.weight * channel.weight) * group.rstd;
            let affine = if per_channel { g * size + i } else { g };
            *out = Affine {
                pivot: row.pivot,
                offset: row.offset,
                scale: scale * channel.scale,
                shift: scale * above + self.bias.map_or(0.0, |bias| bias[affine]),
            };
        }
        group
    }
}
