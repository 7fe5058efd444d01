//! Mirror of `shaders/group_fold_backward.wgsl`.

use super::channel_table::ChannelTable;
use super::moments::merge_moments;
use super::precise::ratio;
use super::precise::x_above_mean;
use super::precise::{above_group_mean, degrees_of_freedom, product_rest};
use crate::params::{Norm, PER_CHANNEL, TermParams};
use crate::tables::{Channel, GradientPair, Group, Moments};
use crate::tables::{Products, RowGradient};

/// The same of w dy, where the group part's weight w is per channel.
fn weighted(norm: &Norm, entry: &Products, channel: &Channel) -> Products {
    if norm.flags & PER_CHANNEL == 0 {
        return *entry;
    }
    let w = channel.weight;
    let pivot = w * entry.pivot;
    Products {
        pivot,
        offset: product_rest(w, entry.pivot, pivot) + w * entry.offset,
        covariance: w * entry.covariance,
        ..*entry
    }
}

/// What the group part makes of dy, row by row, and terms of all parameter gradients, per sample: those
/// of the channel part's columns, then those of weight and bias.
#[expect(
    clippy::too_many_arguments,
    reason = "one for each binding of the kernel"
)]
pub fn group_fold_backward(
    params: &TermParams,
    rows: &[Moments],
    products: &[Products],
    channels: Option<&[Channel]>,
    weight: Option<&[f32]>,
    groups: &[Group],
    mut gradient_terms: Option<&mut [GradientPair]>,
    row_gradients: &mut [RowGradient],
) {
    let inputs = GroupFoldBackward {
        params,
        rows,
        products,
        channels: ChannelTable::new(
            params.norm.flags,
            params.shape.num_channels,
            channels,
            weight,
        ),
        groups,
    };
    let (columns, row_count) = (
        params.table.columns as usize,
        params.shape.num_channels as usize,
    );
    for (sample, row_gradients) in row_gradients.chunks_mut(row_count).enumerate() {
        let terms = gradient_terms.as_mut();
        let terms = terms.map(|terms| &mut terms[sample * columns..][..columns]);
        inputs.fold_sample(sample, terms, row_gradients);
    }
}

/// What the kernel reads.
pub(crate) struct GroupFoldBackward<'a> {
    pub params: &'a TermParams,
    pub rows: &'a [Moments],
    pub products: &'a [Products],
    pub channels: ChannelTable<'a>,
    pub groups: &'a [Group],
}

impl GroupFoldBackward<'_> {
    /// The groups of a sample; what is given of the outputs is the sample's.
    pub fn fold_sample(
        &self,
        sample: usize,
        mut terms: Option<&mut [GradientPair]>,
        row_gradients: &mut [RowGradient],
    ) {
        let params = self.params;
        let size = (params.shape.num_channels / params.shape.num_groups) as usize;
        let len = params.shape.row_len as f32;
        let group_len = size as f32 * len;
        let (columns, first_affine) = (
            params.table.columns as usize,
            params.table.channel_columns as usize,
        );
        let per_channel = params.norm.flags & PER_CHANNEL != 0;
        let has_channel_part = self.channels.has_channel_part;
        for g in 0..params.shape.num_groups as usize {
            let item = sample * params.shape.num_groups as usize + g;
            let group = &self.groups[item];
            let first_channel = g * size;
            let channels = &self.channels.entries[first_channel..][..size];
            let products = &self.products[item * size..][..size];
            let rows = &self.rows[item * size..][..size];
            let row_gradients = &mut row_gradients[g * size..][..size];
            let entries = || {
                let rows = rows.iter().zip(channels).zip(products);
                rows.map(|((row, channel), entry)| {
                    let above = above_group_mean(has_channel_part, row, channel, group);
                    (row, channel, weighted(&params.norm, entry, channel), above)
                })
            };

            let mean = entries().map(|(_, _, entry, _)| Moments {
                count: params.shape.row_len,
                pivot: entry.pivot,
                offset: entry.offset,
                variance: 0.0,
            });
            let mean = mean.fold(Moments::default(), merge_moments);
            let grad_above =
                |entry: &Products| (entry.pivot - mean.pivot) + (entry.offset - mean.offset);

            // Project z less its mean out of dy, twice.
            let (mut product, mut spread) = (0.0, 0.0);
            let share = 1.0 / size as f64;
            for (row, channel, entry, above) in entries() {
                let (scale, grad_above) = (f64::from(channel.scale), f64::from(grad_above(&entry)));
                let above = f64::from(above);
                product += share * (scale * f64::from(entry.covariance) + grad_above * above);
                spread += share * (scale * scale * f64::from(row.variance) + above * above);
            }
            let c = ratio(product, spread);
            let (mut left, mut product_left) = (0.0, 0.0);
            for (row, channel, entry, above) in entries() {
                let rest = f64::from(grad_above(&entry) - c * above);
                let inner = entry.covariance - c * (channel.scale * row.variance);
                let inner = f64::from(channel.scale) * f64::from(inner);
                left += share * rest;
                product_left += share * (inner + rest * f64::from(above));
            }
            let shift = left as f32;
            let c_left = ratio(product_left, spread);

            let h = group.rstd * product as f32;
            if let Some(terms) = &mut terms
                && first_affine != columns
                && !per_channel
            {
                terms[first_affine + g] = GradientPair {
                    bias: group_len * mean.pivot + group_len * mean.offset,
                    weight: group_len * h,
                };
            }
            let unbiased = group_len / degrees_of_freedom(&params.norm, group_len);
            let variance = spread as f32 * unbiased;
            let kept =
                (c + c_left) * ratio(params.norm.eps.into(), (variance + params.norm.eps).into());
            let scale = group.rstd * group.weight;
            let x_scale = (group.rstd * h) * unbiased;
            for (i, (row, channel, entry, above)) in entries().enumerate() {
                let rest = (grad_above(&entry) - c * above) - (shift + c_left * above);
                let dz_mean = scale * (rest + kept * above);
                row_gradients[i] = RowGradient {
                    scale,
                    weight: channel.weight,
                    x_scale: -(x_scale * channel.scale),
                    mean: dz_mean,
                };
                let Some(terms) = &mut terms else { continue };
                if first_affine != 0 {
                    let spread = channel.scale * row.variance;
                    let inner = (entry.covariance - c * spread) - c_left * spread;
                    let inner_mean = scale * (inner + kept * spread);
                    let above_mean = x_above_mean(row, channel) * dz_mean;
                    terms[first_channel + i] = GradientPair {
                        bias: len * dz_mean,
                        weight: len * (channel.rstd * (inner_mean + above_mean)),
                    };
                }
                if first_affine != columns && per_channel {
                    // Of dy itself.
                    let plain = &products[i];
                    let sum = len * plain.pivot + len * plain.offset;
                    terms[first_affine + first_channel + i] = GradientPair {
                        bias: sum,
                        weight: group.rstd
                            * (len * (channel.scale * plain.covariance) + above * sum),
                    };
                }
            }
        }
    }
}
