//! Mirror of `shaders/group_fold.wgsl`.

use super::channel_table::ChannelTable;
use super::moments::merge_moments;
use super::precise::{RowMean, degrees_of_freedom, reciprocal_std, row_mean};
use crate::params::{GroupParams, PER_CHANNEL};
use crate::tables::{Affine, Channel, Group, Moments};

/// Statistics of every (sample, group), and the affine map of every row.
pub fn group_fold(
    params: &GroupParams,
    rows: &[Moments],
    channels: Option<&[Channel]>,
    weight: Option<&[f32]>,
    bias: Option<&[f32]>,
    groups: &mut [Group],
    coefficients: &mut [Affine],
) {
    let size = (params.shape.num_channels / params.shape.num_groups) as usize;
    let inputs = GroupFold {
        params,
        rows,
        channels: ChannelTable::new(
            params.norm.flags,
            params.shape.num_channels,
            channels,
            weight,
        ),
        weight,
        bias,
    };
    let items = groups.iter_mut().zip(coefficients.chunks_mut(size));
    for (item, (group, coefficients)) in items.enumerate() {
        let means: Vec<RowMean> = (0..size).map(|i| inputs.row(item, size, i)).collect();
        *group = inputs.fold(item, inputs.mean(item, &means), &means, coefficients);
    }
}

/// What the kernel reads.
pub(crate) struct GroupFold<'a> {
    pub params: &'a GroupParams,
    pub rows: &'a [Moments],
    pub channels: ChannelTable<'a>,
    pub weight: Option<&'a [f32]>,
    pub bias: Option<&'a [f32]>,
}

impl GroupFold<'_> {
    /// The mean of z over row i of a (sample, group) of `size` rows.
    #[inline(always)]
    pub fn row(&self, item: usize, size: usize, i: usize) -> RowMean {
        let g = item % self.params.shape.num_groups as usize;
        let row = &self.rows[item * size + i];
        let channel = &self.channels.entries[g * size + i];
        row_mean(self.channels.has_channel_part, row, channel)
    }

    /// The mean of z over a (sample, group), from those of its rows: moments without a spread.
    pub fn mean(&self, item: usize, means: &[RowMean]) -> Moments {
        let rows = &self.rows[item * means.len()..];
        let rows = rows.iter().zip(means).map(|(row, mean)| Moments {
            count: row.count,
            pivot: mean.pivot,
            offset: mean.offset,
            variance: 0.0,
        });
        rows.fold(Moments::default(), merge_moments)
    }

    /// Statistics of a (sample, group), from the mean of z over it and over its rows; and the maps of its rows.
    pub fn fold(
        &self,
        item: usize,
        moments: Moments,
        means: &[RowMean],
        coefficients: &mut [Affine],
    ) -> Group {
        let (params, size) = (self.params, coefficients.len());
        let per_channel = params.norm.flags & PER_CHANNEL != 0;
        let g = item % params.shape.num_groups as usize;
        let rows = &self.rows[item * size..][..size];
        let channels = &self.channels.entries[g * size..][..size];
        let mut group = Group {
            mean_pivot: moments.pivot,
            mean_offset: moments.offset,
            ..Group::default()
        };
        // Two more looks from the mean just found: what is left of it, then the spread about it.
        let (mut left, mut spread) = (0.0, 0.0);
        let first = means[0].above(&group);
        for (row, mean) in rows.iter().zip(means) {
            let above = mean.above(&group) - first;
            left += f64::from(row.count) * f64::from(above);
        }
        group.mean_rest = first + (left / f64::from(moments.count)) as f32;
        let count = f64::from(moments.count);
        for ((row, channel), mean) in rows.iter().zip(channels).zip(means) {
            let above = f64::from(mean.above(&group));
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
        let entries = rows.iter().zip(channels).zip(means).zip(coefficients);
        for (i, (((row, channel), mean), out)) in entries.enumerate() {
            let above = mean.above(&group);
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
