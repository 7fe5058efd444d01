//! Mirrors of `shaders/batch_count.wgsl`, `shaders/channel_fold.wgsl` and
//! `shaders/channel_fold_backward.wgsl`.

use super::moments::merge_all;
use super::precise::{product_rest, reciprocal_std, reciprocal_std_rest};
use crate::params::{ACCUMULATE, CUMULATIVE, ESTIMATE, NO_CHANNEL_PART, PER_CHANNEL};
use crate::params::{Params, SUMS, TRAINING};
use crate::tables::{Channel, GradientPair, Moments};

/// Counts the batch, before channels read the count (where the momentum is cumulative).
pub fn batch_count(num_batches_tracked: &mut [u32]) {
    num_batches_tracked[0] = num_batches_tracked[0].saturating_add(1);
}

/// `running_mean` and `running_var`, (C) each.
#[derive(Debug)]
pub struct RunningStatistics<'a> {
    /// `running_mean`.
    pub mean: &'a mut [f32],
    /// `running_var`.
    pub var: &'a mut [f32],
}

/// Mean (pivot and offset) and variance in force, whether it is infinite because the running one was, and how many
/// values the gradient flows to.
type InForce = (f32, f32, f32, bool, u32);

/// Statistics in force of every channel; in training the running ones, if there are any, are updated and the
/// batch is counted (unless `batch_count` did).
#[expect(
    clippy::too_many_arguments,
    reason = "one for each binding of the kernel"
)]
pub fn channel_fold(
    params: &Params,
    channel_parts: &[Moments],
    bn_weight: Option<&[f32]>,
    bn_bias: Option<&[f32]>,
    weight: Option<&[f32]>,
    mut num_batches_tracked: Option<&mut [u32]>,
    mut running: Option<RunningStatistics>,
    channels: &mut [Channel],
) {
    if let Some(count) = &mut num_batches_tracked
        && params.flags & CUMULATIVE == 0
    {
        batch_count(count);
    }
    let batches = num_batches_tracked.map(|count| count[0]);
    for (c, channel) in channels.iter_mut().enumerate() {
        let batch = merged(params, channel_parts, c);
        let group_weight = match weight {
            Some(weight) if params.flags & PER_CHANNEL != 0 => weight[c],
            _ => 1.0,
        };
        if params.flags & NO_CHANNEL_PART != 0 {
            // z = 1 (x - 0) + 0.
            *channel = Channel {
                rstd: 1.0,
                scale: 1.0,
                weight: group_weight,
                ..Channel::default()
            };
            continue;
        }
        let state = running
            .as_mut()
            .map(|running| (&mut running.mean[c], &mut running.var[c]));
        let (pivot, offset, variance, known, count) =
            if params.flags & TRAINING != 0 && params.flags & ESTIMATE == 0 {
                batch_statistics(params, batch, batches, state)
            } else {
                // The planner binds them then.
                let Some((mean, var)) = state else { return };
                if params.flags & TRAINING == 0 || batch.count == 0 {
                    (*mean, 0.0, *var, *var > 3.4e38, 0)
                } else {
                    estimated_statistics(params, batch, mean, var)
                }
            };
        let v = variance + params.channel_eps;
        let rstd = if known { 0.0 } else { reciprocal_std(v) };
        let w = bn_weight.map_or(1.0, |weight| weight[c]);
        let scale = w * rstd;
        *channel = Channel {
            mean_pivot: pivot,
            mean_offset: offset,
            rstd,
            scale,
            scale_low: product_rest(w, rstd, scale) + w * reciprocal_std_rest(v, rstd),
            bias: bn_bias.map_or(0.0, |bias| bias[c]),
            weight: group_weight,
            count,
        };
    }
}

fn merged(params: &Params, channel_parts: &[Moments], c: usize) -> Moments {
    let columns = params.columns as usize;
    let entries = (0..params.entries as usize).map(|i| channel_parts[i * columns + c]);
    merge_all(entries)
}

/// A batch of no values leaves the running statistics as they are.
fn batch_statistics(
    params: &Params,
    batch: Moments,
    batches: Option<u32>,
    running: Option<(&mut f32, &mut f32)>,
) -> InForce {
    if let (Some((mean, var)), 1..) = (running, batch.count) {
        let momentum = match batches {
            Some(count) if params.flags & CUMULATIVE != 0 => 1.0 / count as f32,
            _ => params.momentum,
        };
        let unbiased = batch.variance * (batch.count as f32 / (batch.count - 1) as f32);
        *mean = (1.0 - momentum) * *mean + (momentum * batch.pivot + momentum * batch.offset);
        *var = (1.0 - momentum) * *var + momentum * unbiased;
    }
    let (pivot, offset) = (batch.pivot, batch.offset);
    (pivot, offset, batch.variance, false, batch.count)
}

fn estimated_statistics(params: &Params, batch: Moments, mean: &mut f32, var: &mut f32) -> InForce {
    let speed = params.momentum;
    let delta = (batch.pivot - *mean) + batch.offset;
    let second_moment = speed * batch.variance + (speed * delta) * delta;
    let known = *var > 3.4e38;
    let variance = (1.0 - speed) * *var + second_moment;
    let (pivot, offset) = if speed > 0.5 {
        (batch.pivot, batch.offset - (1.0 - speed) * delta)
    } else {
        (*mean, speed * delta)
    };
    *mean = pivot + offset;
    *var = variance;
    (pivot, offset, variance, known, 0)
}

/// Gradients of the parameters, those that are wanted.
#[derive(Debug, Default)]
pub struct ParameterGradients<'a> {
    /// Of the channel part's weight, (C).
    pub bn_weight: Option<&'a mut [f32]>,
    /// Of the channel part's bias, (C).
    pub bn_bias: Option<&'a mut [f32]>,
    /// Of the group part's weight, (G) or (C).
    pub weight: Option<&'a mut [f32]>,
    /// Of the group part's bias, (G) or (C).
    pub bias: Option<&'a mut [f32]>,
}

/// Parameter gradients, and what the channel part subtracts from the gradient of its output: means, or
/// sums for an exchange with other devices.
pub fn channel_fold_backward(
    params: &Params,
    gradient_parts: &[GradientPair],
    channels: Option<&[Channel]>,
    mut gradients: ParameterGradients,
    mut channel_gradients: Option<&mut [GradientPair]>,
) {
    let (columns, first_affine) = (params.columns as usize, params.channel_columns as usize);
    let put = |gradient: &mut Option<&mut [f32]>, index: usize, value: f32| {
        if let Some(gradient) = gradient {
            gradient[index] = if params.flags & ACCUMULATE != 0 {
                value + gradient[index]
            } else {
                value
            };
        }
    };
    for column in 0..columns {
        let (mut bias, mut weight) = (0.0, 0.0);
        for part in (0..params.entries as usize).map(|i| &gradient_parts[i * columns + column]) {
            bias += f64::from(part.bias);
            weight += f64::from(part.weight);
        }
        let pair = GradientPair {
            bias: bias as f32,
            weight: weight as f32,
        };
        if column < first_affine {
            if let Some(channel_gradients) = &mut channel_gradients {
                let count = match channels {
                    Some(channels) if params.flags & SUMS == 0 => channels[column].count,
                    _ => 1,
                };
                let count = (count as f32).max(1.0);
                channel_gradients[column] = GradientPair {
                    bias: pair.bias / count,
                    weight: pair.weight / count,
                };
            }
            put(&mut gradients.bn_bias, column, pair.bias);
            put(&mut gradients.bn_weight, column, pair.weight);
        } else {
            put(&mut gradients.bias, column - first_affine, pair.bias);
            put(&mut gradients.weight, column - first_affine, pair.weight);
        }
    }
}
