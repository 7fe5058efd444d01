//! Mirrors of `shaders/group_fold.wgsl`, `shaders/group_fold_backward.wgsl` and
//! `shaders/row_coefficients_backward.wgsl`.

use super::moments::merge_moments;
use super::reciprocal_std;
use crate::params::Params;
use crate::tables::{Affine, AffineBackward, Channel, GradientPair, Group, Moments, Products};

/// Mean of x over the row, less the channel's mean in force.
fn x_above(row: &Moments, channel: &Channel) -> f32 {
    (row.pivot - channel.mean_pivot) + (row.offset - channel.mean_offset)
}

/// Mean of z over the row, less the group's mean.
fn above_group_mean(row: &Moments, channel: &Channel, group: &Group) -> f32 {
    let shift = channel.scale * x_above(row, channel);
    (channel.bias - group.mean_pivot) + (shift - group.mean_offset)
}

/// Statistics of every (sample, group), and the affine map of every row.
pub fn group_fold(
    params: &Params,
    rows: &[Moments],
    channels: &[Channel],
    weight: &[f32],
    bias: &[f32],
    groups: &mut [Group],
    coefficients: &mut [Affine],
) {
    let size = (params.num_channels / params.num_groups) as usize;
    let tables = rows.chunks(size).zip(coefficients.chunks_mut(size));
    for (item, (group, (rows, coefficients))) in groups.iter_mut().zip(tables).enumerate() {
        let g = item % params.num_groups as usize;
        let channels = &channels[g * size..][..size];
        let moments = rows.iter().zip(channels).map(|(row, channel)| Moments {
            count: row.count,
            pivot: channel.bias,
            offset: channel.scale * x_above(row, channel),
            m2: channel.scale * channel.scale * row.m2,
        });
        let moments = moments.fold(Moments::default(), merge_moments);
        *group = Group {
            mean_pivot: moments.pivot,
            mean_offset: moments.offset,
            rstd: reciprocal_std(moments.m2 / moments.count as f32 + params.eps),
            weight: weight[g],
        };
        let scale = group.weight * group.rstd;
        for ((row, channel), out) in rows.iter().zip(channels).zip(coefficients) {
            *out = Affine {
                pivot: row.pivot,
                offset: row.offset,
                scale: scale * channel.scale,
                shift: scale * above_group_mean(row, channel, group) + bias[g],
            };
        }
    }
}

/// Terms of all parameter gradients, per sample: (C) pairs of the rows, then (G) of the groups.
pub fn group_fold_backward(
    params: &Params,
    rows: &[Moments],
    products: &[Products],
    channels: &[Channel],
    groups: &[Group],
    gradient_terms: &mut [GradientPair],
) {
    let size = (params.num_channels / params.num_groups) as usize;
    let len = params.row_len as f32;
    let group_len = size as f32 * len;
    for (item, group) in groups.iter().enumerate() {
        let g = item % params.num_groups as usize;
        let sample = item / params.num_groups as usize;
        let terms = &mut gradient_terms[sample * params.columns as usize..];
        let channels = &channels[g * size..][..size];
        let products = &products[item * size..][..size];
        let rows = &rows[item * size..][..size];

        let mean = products.iter().map(|entry| Moments {
            count: params.row_len,
            pivot: entry.pivot,
            offset: entry.sum / len,
            m2: 0.0,
        });
        let mean = mean.fold(Moments::default(), merge_moments);
        let grad_above =
            |entry: &Products| (entry.pivot - mean.pivot) + (entry.sum / len - mean.offset);

        let entries = || rows.iter().zip(channels).zip(products);
        let h: f32 = entries()
            .map(|((row, channel), entry)| {
                let above = above_group_mean(row, channel, group);
                channel.scale * entry.product + above * (len * grad_above(entry))
            })
            .sum();
        let h = group.rstd * h;
        terms[params.num_channels as usize + g] = GradientPair {
            bias: group_len * mean.pivot + group_len * mean.offset,
            weight: h,
        };
        let k = group.weight * h / group_len;
        for (((row, channel), entry), term) in entries().zip(&mut terms[g * size..]) {
            let above = above_group_mean(row, channel, group);
            let t1 = group.rstd
                * len
                * (group.weight * grad_above(entry) - k * group.rstd * above);
            let t2 = group.rstd
                * (group.weight * entry.product - k * group.rstd * channel.scale * row.m2);
            *term = GradientPair {
                bias: t1,
                weight: channel.rstd * (t2 + x_above(row, channel) * t1),
            };
        }
    }
}

/// The map of every row from (dy, x) to dx.
pub fn row_coefficients_backward(
    params: &Params,
    rows: &[Moments],
    products: &[Products],
    channels: &[Channel],
    groups: &[Group],
    gradient_terms: &[GradientPair],
    channel_gradients: &[GradientPair],
    coefficients_backward: &mut [AffineBackward],
) {
    let num_channels = params.num_channels as usize;
    let size = num_channels / params.num_groups as usize;
    let len = params.row_len as f32;
    for (item, out) in coefficients_backward.iter_mut().enumerate() {
        let (sample, c) = (item / num_channels, item % num_channels);
        let g = c / size;
        let (row, entry) = (&rows[item], &products[item]);
        let (channel, means) = (&channels[c], &channel_gradients[c]);
        let group = &groups[sample * params.num_groups as usize + g];
        let terms = &gradient_terms[sample * params.columns as usize..];
        let t1 = terms[c].bias;
        let h = terms[num_channels + g].weight;
        let k = group.weight * h / (size as f32 * len);
        *out = AffineBackward {
            x_pivot: row.pivot,
            x_offset: row.offset,
            x_scale: -channel.scale
                * (group.rstd * group.rstd * k * channel.scale + means.weight * channel.rstd),
            grad_pivot: entry.pivot,
            grad_offset: entry.sum / len,
            grad_scale: channel.scale * group.rstd * group.weight,
            shift: channel.scale
                * ((t1 / len - means.bias) - means.weight * channel.rstd * x_above(row, channel)),
            _pad: 0.0,
        };
    }
}
