//! Mirrors of `shaders/element_products.wgsl` and `shaders/element_terms.wgsl`.

use super::element::Element;
use super::elements::{Shape, above_mean, gradient_above, gradient_of, group_gradient_of, row_of};
use super::group_fold::ratio;
use super::parallel::for_ranges;
use super::precise::{above_group_mean, degrees_of_freedom, x_above_mean};
use crate::params::Params;
use crate::tables::{Channel, GradientPair, Group, GroupGradient};
use std::num::NonZero;

/// What every (sample, group) makes of dy; with `affine_terms`, its terms of the gradients of weight and
/// bias. `width` is the step's.
#[allow(clippy::too_many_arguments)] // The kernel's bindings.
pub fn element_products<T: Element>(
    threads: NonZero<usize>,
    params: &Params,
    width: u32,
    x: &[T],
    grad_y: &[T],
    channels: &[Channel],
    groups: &[Group],
    affine_terms: Option<&mut [GradientPair]>,
    group_gradients: &mut [GroupGradient],
) {
    let shape = Shape::of_groups(params, width);
    let size = shape.num_channels() / shape.num_groups;
    for_ranges(
        threads,
        0..(params.num_samples * params.num_groups) as usize,
        (affine_terms, group_gradients),
        |item| item,
        |range, (mut terms, gradients): (Option<&mut [GradientPair]>, &mut [GroupGradient])| {
            for ((index, item), gradient) in range.enumerate().zip(gradients) {
                let begin = item * shape.group_len;
                let x = &x[begin..][..shape.group_len];
                let grad_y = &grad_y[begin..][..shape.group_len];
                let channels = &channels[item % shape.num_groups * size..][..size];
                let term;
                (*gradient, term) = project(params, x, grad_y, channels, &groups[item]);
                if let Some(terms) = &mut terms {
                    terms[index] = term;
                }
            }
        },
    );
}

fn project<T: Element>(
    params: &Params,
    x: &[T],
    grad_y: &[T],
    channels: &[Channel],
    group: &Group,
) -> (GroupGradient, GradientPair) {
    let channel_len = x.len() / channels.len();
    let count = x.len() as f32;
    // Every element's z less its mean, and its dy.
    let elements = || {
        x.iter().zip(grad_y).enumerate().map(|(i, (&x, dy))| {
            let channel = &channels[i / channel_len];
            let above = above_group_mean(params, &row_of(x), channel, group);
            (above, gradient_of(params, dy.to_f32(), channel))
        })
    };
    let origin = gradient_of(params, grad_y[0].to_f32(), &channels[0]);
    let (mut pivots, mut offsets) = (0.0, 0.0);
    // z's multiple in dy, about the same element: z less its mean has none in that.
    let (mut product, mut spread) = (0.0, 0.0);
    for (above, gradient) in elements() {
        let (high, low) = (gradient.0 - origin.0, gradient.1 - origin.1);
        pivots += f64::from(high);
        offsets += f64::from(low);
        product += f64::from((high + low) * above);
        spread += f64::from(above) * f64::from(above);
    }
    let (pivot, offset) = (
        origin.0 + (pivots / f64::from(count)) as f32,
        origin.1 + (offsets / f64::from(count)) as f32,
    );
    let c = ratio(product, spread);
    let (mut left, mut product_left) = (0.0, 0.0);
    for (above, gradient) in elements() {
        let rest = gradient_above(gradient, pivot, offset) - c * above;
        left += f64::from(rest);
        product_left += f64::from(rest * above);
    }
    let left = left as f32;
    let c_left = ratio(product_left, spread);
    let variance = (spread / f64::from(degrees_of_freedom(params, count))) as f32;
    let kept = (c + c_left) * ratio(params.eps.into(), (variance + params.eps).into());
    let gradient = GroupGradient {
        mean_pivot: group.mean_pivot,
        mean_offset: group.mean_offset,
        mean_rest: group.mean_rest,
        rstd: group.rstd,
        grad_pivot: pivot,
        grad_offset: offset,
        shift: left / count,
        projection: c,
        rest: c_left - kept,
        scale: group.rstd * group.weight,
        ..GroupGradient::default()
    };
    let term = GradientPair {
        // The mean of dy has its remainder in the shift, unless that has a NaN of x: none of it is dy's.
        bias: (count * pivot + count * offset) + if left.is_nan() { 0.0 } else { left },
        weight: group.rstd * (product + product_left) as f32,
    };
    (gradient, term)
}

/// Terms of the gradients per channel, summed over parts of the samples: of the channel part's, and of
/// those of weight and bias where these are per channel.
#[allow(clippy::too_many_arguments)] // The kernel's bindings.
pub fn element_terms<T: Element>(
    threads: NonZero<usize>,
    params: &Params,
    x: &[T],
    grad_y: &[T],
    channels: &[Channel],
    group_gradients: &[GroupGradient],
    mut channel_terms: Option<&mut [GradientPair]>,
    mut affine_terms: Option<&mut [GradientPair]>,
) {
    let shape = Shape::of_columns(params);
    let (samples, parts) = (params.row_len as usize, params.parts as usize);
    let (part_len, num_channels) = (params.words_per_part as usize, shape.num_channels());
    // Of a part of the samples, by element: the channel part's and the affine's.
    let mut sums = vec![[[0.0; 2]; 2]; shape.sample_len];
    for part in 0..parts {
        let samples = (part * part_len).min(samples)..((part + 1) * part_len).min(samples);
        for_ranges(
            threads,
            0..shape.sample_len,
            &mut sums[..],
            |element| element,
            |elements, sums: &mut [[[f64; 2]; 2]]| {
                sums.fill([[0.0; 2]; 2]);
                for sample in samples.clone() {
                    for (element, [channel_sum, affine_sum]) in elements.clone().zip(&mut *sums) {
                        let i = sample * shape.sample_len + element;
                        let (x, dy) = (x[i], grad_y[i].to_f32());
                        let channel = &channels[shape.channel(element)];
                        let group = sample * shape.num_groups + element / shape.group_len;
                        let group = &group_gradients[group];
                        let above = above_mean(params, x, channel, group);
                        let gradient = gradient_of(params, dy, channel);
                        let dz = group_gradient_of(gradient, above, group);
                        channel_sum[0] += f64::from(dz);
                        channel_sum[1] += f64::from(dz * x_above_mean(&row_of(x), channel));
                        affine_sum[0] += f64::from(dy);
                        affine_sum[1] += f64::from(dy * (group.rstd * above));
                    }
                }
            },
        );
        for (element, [channel_sum, affine_sum]) in sums.iter().enumerate() {
            let c = shape.channel(element);
            let within = element - c * (shape.sample_len / num_channels);
            let index = (within * parts + part) * num_channels + c;
            if let Some(terms) = &mut channel_terms {
                terms[index] = GradientPair {
                    bias: channel_sum[0] as f32,
                    weight: channels[c].rstd * channel_sum[1] as f32,
                };
            }
            if let Some(terms) = &mut affine_terms {
                terms[index] = GradientPair {
                    bias: affine_sum[0] as f32,
                    weight: affine_sum[1] as f32,
                };
            }
        }
    }
}
