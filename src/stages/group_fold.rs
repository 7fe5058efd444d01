//! Mirrors of `shaders/group_fold.wgsl`, `shaders/group_fold_backward.wgsl` and
//! `shaders/row_coefficients_backward.wgsl`.

use super::moments::merge_moments;
use super::precise::{
    above_group_mean, channel_of_row, degrees_of_freedom, product_rest, reciprocal_std,
};
use super::precise::{row_mean, x_above_mean};
use crate::params::{PER_CHANNEL, Params};
use crate::tables::{Affine, AffineBackward, Channel, GradientPair, Group, Moments};
use crate::tables::{Products, RowGradient};

/// Statistics of every (sample, group), and the affine map of every row.
pub fn group_fold(
    params: &Params,
    rows: &[Moments],
    channels: &[Channel],
    weight: Option<&[f32]>,
    bias: Option<&[f32]>,
    groups: &mut [Group],
    coefficients: &mut [Affine],
) {
    let size = (params.num_channels / params.num_groups) as usize;
    let per_channel = params.flags & PER_CHANNEL != 0;
    let tables = rows.chunks(size).zip(coefficients.chunks_mut(size));
    for (item, (group, (rows, coefficients))) in groups.iter_mut().zip(tables).enumerate() {
        let g = item % params.num_groups as usize;
        let channels = &channels[g * size..][..size];
        let moments = rows.iter().zip(channels).map(|(row, channel)| {
            let mean = row_mean(params, row, channel);
            Moments {
                count: row.count,
                pivot: mean.pivot,
                offset: mean.offset,
                variance: 0.0,
            }
        });
        let moments = moments.fold(Moments::default(), merge_moments);
        *group = Group {
            mean_pivot: moments.pivot,
            mean_offset: moments.offset,
            ..Group::default()
        };
        // Two more looks from the mean just found: what is left of it, then the spread about it.
        let (mut left, mut spread) = (0.0, 0.0);
        let first = above_group_mean(params, &rows[0], &channels[0], group);
        for (row, channel) in rows.iter().zip(channels) {
            let above = above_group_mean(params, row, channel, group) - first;
            left += f64::from(row.count) * f64::from(above);
        }
        group.mean_rest = first + (left / f64::from(moments.count)) as f32;
        let count = f64::from(moments.count);
        for (row, channel) in rows.iter().zip(channels) {
            let above = f64::from(above_group_mean(params, row, channel, group));
            let scale = f64::from(channel.scale);
            let within = scale * scale * f64::from(row.variance);
            spread += f64::from(row.count) / count * (within + above * above);
        }
        let count = moments.count as f32;
        let variance = spread as f32 * (count / degrees_of_freedom(params, count));
        group.rstd = reciprocal_std(variance + params.eps);
        group.weight = match weight {
            Some(weight) if !per_channel => weight[g],
            _ => 1.0,
        };
        let entries = rows.iter().zip(channels).zip(coefficients);
        for (i, ((row, channel), out)) in entries.enumerate() {
            let above = above_group_mean(params, row, channel, group);
            // One of the two weights is 1.
            let scale = (group.weight * channel.weight) * group.rstd;
            let affine = if per_channel { g * size + i } else { g };
            *out = Affine {
                pivot: row.pivot,
                offset: row.offset,
                scale: scale * channel.scale,
                shift: scale * above + bias.map_or(0.0, |bias| bias[affine]),
            };
        }
    }
}

/// The same of w dy, where the group part's weight w is per channel.
fn weighted(params: &Params, entry: &Products, channel: &Channel) -> Products {
    if params.flags & PER_CHANNEL == 0 {
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
pub fn group_fold_backward(
    params: &Params,
    rows: &[Moments],
    products: &[Products],
    channels: &[Channel],
    groups: &[Group],
    mut gradient_terms: Option<&mut [GradientPair]>,
    row_gradients: &mut [RowGradient],
) {
    let size = (params.num_channels / params.num_groups) as usize;
    let len = params.row_len as f32;
    let group_len = size as f32 * len;
    let (columns, first_affine) = (params.columns as usize, params.channel_columns as usize);
    let per_channel = params.flags & PER_CHANNEL != 0;
    for (item, group) in groups.iter().enumerate() {
        let g = item % params.num_groups as usize;
        let sample = item / params.num_groups as usize;
        let first_channel = g * size;
        let channels = &channels[first_channel..][..size];
        let products = &products[item * size..][..size];
        let rows = &rows[item * size..][..size];
        let row_gradients = &mut row_gradients[item * size..][..size];
        let entries = || {
            let rows = rows.iter().zip(channels).zip(products);
            rows.map(|((row, channel), entry)| {
                let above = above_group_mean(params, row, channel, group);
                (row, channel, weighted(params, entry, channel), above)
            })
        };

        let mean = entries().map(|(_, _, entry, _)| Moments {
            count: params.row_len,
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

        let mut terms = gradient_terms
            .as_mut()
            .map(|terms| &mut terms[sample * columns..][..columns]);
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
        let unbiased = group_len / degrees_of_freedom(params, group_len);
        let variance = spread as f32 * unbiased;
        let kept = (c + c_left) * ratio(params.eps.into(), (variance + params.eps).into());
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
                    weight: group.rstd * (len * (channel.scale * plain.covariance) + above * sum),
                };
            }
        }
    }
}

/// a / b; 0 where b is 0.
pub(super) fn ratio(a: f64, b: f64) -> f32 {
    if b == 0.0 { 0.0 } else { (a / b) as f32 }
}

/// The map of every row from (dy, x) to dx.
pub fn row_coefficients_backward(
    params: &Params,
    rows: &[Moments],
    products: &[Products],
    channels: &[Channel],
    row_gradients: &[RowGradient],
    channel_gradients: Option<&[GradientPair]>,
    coefficients_backward: &mut [AffineBackward],
) {
    for (item, out) in coefficients_backward.iter_mut().enumerate() {
        let c = channel_of_row(params, item);
        let (row, entry) = (&rows[item], &products[item]);
        let (channel, gradient) = (&channels[c], &row_gradients[item]);
        // Neither a group part (it has no groups then) nor a gradient through the statistics: dx is
        // scale dy, and a NaN in dy stays where it is.
        if params.num_groups == 0 && channel_gradients.is_none() {
            *out = AffineBackward {
                x_pivot: row.pivot,
                grad_scale: channel.scale,
                ..AffineBackward::default()
            };
            continue;
        }
        let scale = channel.scale * gradient.scale;
        let grad_scale = scale * gradient.weight;
        let unit = AffineBackward::x_unit(grad_scale);
        let (mut x_scale, mut above) = (scale / unit * gradient.x_scale, gradient.mean);
        if let Some(means) = channel_gradients.map(|means| &means[c]) {
            x_scale -= channel.scale / unit * (means.weight * channel.rstd);
            above = (above - means.bias) - means.weight * channel.rstd * x_above_mean(row, channel);
        }
        *out = AffineBackward {
            x_pivot: row.pivot,
            x_scale,
            grad_pivot: entry.pivot,
            grad_scale,
            shift: channel.scale * above
                - (grad_scale * entry.offset + x_scale * (row.offset * unit)),
        };
    }
}
