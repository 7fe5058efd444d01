//! Mirrors of `shaders/group_fold.wgsl`, `shaders/group_fold_backward.wgsl` and
//! `shaders/row_coefficients_backward.wgsl`.

use super::moments::merge_moments;
use super::precise::{above_group_mean, reciprocal_std, row_shift, x_above_mean};
use crate::params::Params;
use crate::tables::{Affine, AffineBackward, Channel, GradientPair, Group, Moments, Products};

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
            offset: row_shift(row, channel).0,
            m2: 0.0,
        });
        let moments = moments.fold(Moments::default(), merge_moments);
        *group = Group {
            mean_pivot: moments.pivot,
            mean_offset: moments.offset,
            ..Group::default()
        };
        // Two more looks from the mean just found: what is left of it, then the spread about it.
        let (mut left, mut spread) = (0.0, 0.0);
        let first = above_group_mean(&rows[0], &channels[0], group);
        for (row, channel) in rows.iter().zip(channels) {
            left += row.count as f32 * (above_group_mean(row, channel, group) - first);
        }
        let count = moments.count as f32;
        group.mean_rest = first + left / count;
        for (row, channel) in rows.iter().zip(channels) {
            let above = above_group_mean(row, channel, group);
            spread += channel.scale * channel.scale * row.m2 + row.count as f32 * (above * above);
        }
        group.rstd = reciprocal_std(spread / count + params.eps);
        group.weight = weight[g];
        let scale = group.weight * group.rstd;
        for ((row, channel), out) in rows.iter().zip(channels).zip(coefficients) {
            let above = above_group_mean(row, channel, group);
            *out = Affine {
                pivot: row.pivot,
                offset: row.offset,
                scale: scale * channel.scale,
                shift: scale * above + bias[g],
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
            offset: entry.offset,
            m2: 0.0,
        });
        let mean = mean.fold(Moments::default(), merge_moments);
        let grad_above =
            |entry: &Products| (entry.pivot - mean.pivot) + (entry.offset - mean.offset);
        let above = |row: &Moments, channel: &Channel| above_group_mean(row, channel, group);
        let entries = || rows.iter().zip(channels).zip(products);

        // Project z less its mean out of dy, twice.
        let (mut product, mut spread) = (0.0, 0.0);
        for ((row, channel), entry) in entries() {
            let above = above(row, channel);
            product += channel.scale * entry.product + (len * grad_above(entry)) * above;
            spread += channel.scale * channel.scale * row.m2 + len * (above * above);
        }
        let c = ratio(product, spread);
        let (mut left, mut product_left) = (0.0, 0.0);
        for ((row, channel), entry) in entries() {
            let above = above(row, channel);
            let rest = grad_above(entry) - c * above;
            let inner = entry.product - c * (channel.scale * row.m2);
            left += len * rest;
            product_left += channel.scale * inner + (len * rest) * above;
        }
        let shift = left / group_len;
        let c_left = ratio(product_left, spread);

        terms[params.num_channels as usize + g] = GradientPair {
            bias: group_len * mean.pivot + group_len * mean.offset,
            weight: group.rstd * product,
        };
        let variance = spread / group_len;
        let kept = (c + c_left) * ratio(params.eps, variance + params.eps);
        let scale = group.rstd * group.weight;
        for (((row, channel), entry), term) in entries().zip(&mut terms[g * size..]) {
            let above = above(row, channel);
            let m2 = channel.scale * row.m2;
            let rest = (grad_above(entry) - c * above) - (shift + c_left * above);
            let inner = (entry.product - c * m2) - c_left * m2;
            let t1 = scale * len * (rest + kept * above);
            let t2 = scale * (inner + kept * m2);
            *term = GradientPair {
                bias: t1,
                weight: channel.rstd * (t2 + x_above_mean(row, channel) * t1),
            };
        }
    }
}

/// a / b; 0 where b is 0.
fn ratio(a: f32, b: f32) -> f32 {
    if b == 0.0 { 0.0 } else { a / b }
}

/// The map of every row from (dy, x) to dx.
#[expect(
    clippy::too_many_arguments,
    reason = "one for each binding of the kernel"
)]
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
        let x_scale = -channel.scale
            * (group.rstd * group.rstd * k * channel.scale + means.weight * channel.rstd);
        let grad_scale = channel.scale * group.rstd * group.weight;
        let shift = channel.scale
            * ((t1 / len - means.bias) - means.weight * channel.rstd * x_above_mean(row, channel));
        *out = AffineBackward {
            x_pivot: row.pivot,
            x_scale,
            grad_pivot: entry.pivot,
            grad_scale,
            shift: shift - (grad_scale * entry.offset + x_scale * row.offset),
        };
    }
}
