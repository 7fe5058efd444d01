//! Mirrors of `shaders/batch_count.wgsl`, `shaders/channel_fold.wgsl` and
//! `shaders/channel_fold_backward.wgsl`.

use super::moments::merge_moments;
use super::precise::{product_rest, reciprocal_std, reciprocal_std_rest};
use crate::params::{ACCUMULATE, CUMULATIVE, ESTIMATE, Params, TRAINING};
use crate::tables::{Channel, GradientPair, Moments};

/// Counts the batch.
pub fn batch_count(num_batches_tracked: &mut [u32]) {
    num_batches_tracked[0] = num_batches_tracked[0].saturating_add(1);
}

/// `bn.running_mean` and `bn.running_var`, (C) each.
#[derive(Debug)]
pub struct RunningStatistics<'a> {
    /// `bn.running_mean`.
    pub mean: &'a mut [f32],
    /// `bn.running_var`.
    pub var: &'a mut [f32],
}

/// Statistics in force of every channel; in training the running ones are updated.
pub fn channel_fold(
    params: &Params,
    channel_parts: &[Moments],
    bn_weight: &[f32],
    bn_bias: &[f32],
    num_batches_tracked: u32,
    running: RunningStatistics,
    channels: &mut [Channel],
) {
    let columns = params.columns as usize;
    for (c, channel) in channels.iter_mut().enumerate() {
        let entries = (0..params.entries as usize).map(|i| channel_parts[i * columns + c]);
        let mut batch = entries.clone().fold(Moments::default(), merge_moments);
        // A second look from the mean just found: what is left of it, and the spread about it.
        let (mut left, mut spread) = (0.0, 0.0);
        for part in entries {
            let delta = (part.pivot - batch.pivot) + (part.offset - batch.offset);
            let count = part.count as f32;
            left += count * delta;
            spread += part.m2 + count * (delta * delta);
        }
        batch.offset += left / (batch.count as f32).max(1.0);
        batch.m2 = spread;
        let (mean, var) = (&mut running.mean[c], &mut running.var[c]);
        let (pivot, offset, variance) = if params.flags & TRAINING == 0 {
            (*mean, 0.0, *var)
        } else if params.flags & ESTIMATE != 0 {
            estimated_statistics(params, batch, mean, var)
        } else {
            batch_statistics(params, batch, num_batches_tracked, mean, var)
        };
        let v = variance + params.channel_eps;
        let rstd = reciprocal_std(v);
        let weight = bn_weight[c];
        let scale = weight * rstd;
        *channel = Channel {
            mean_pivot: pivot,
            mean_offset: offset,
            rstd,
            scale,
            scale_low: product_rest(weight, rstd, scale) + weight * reciprocal_std_rest(v, rstd),
            bias: bn_bias[c],
            _pad: [0.0; 2],
        };
    }
}

fn batch_statistics(
    params: &Params,
    batch: Moments,
    num_batches_tracked: u32,
    mean: &mut f32,
    var: &mut f32,
) -> (f32, f32, f32) {
    let momentum = if params.flags & CUMULATIVE != 0 {
        1.0 / num_batches_tracked as f32
    } else {
        params.momentum
    };
    let unbiased = batch.m2 / (batch.count - 1) as f32;
    *mean = (1.0 - momentum) * *mean + (momentum * batch.pivot + momentum * batch.offset);
    *var = (1.0 - momentum) * *var + momentum * unbiased;
    (batch.pivot, batch.offset, batch.m2 / batch.count as f32)
}

fn estimated_statistics(
    params: &Params,
    batch: Moments,
    mean: &mut f32,
    var: &mut f32,
) -> (f32, f32, f32) {
    let speed = params.momentum;
    let delta = (batch.pivot - *mean) + batch.offset;
    let second_moment = batch.m2 / batch.count as f32 + delta * delta;
    let variance = (1.0 - speed) * *var + speed * second_moment;
    let (pivot, offset) = if speed > 0.5 {
        (batch.pivot, batch.offset - (1.0 - speed) * delta)
    } else {
        (*mean, speed * delta)
    };
    *mean = pivot + offset;
    *var = variance;
    (pivot, offset, variance)
}

/// Gradients of the parameters.
#[derive(Debug)]
pub struct ParameterGradients<'a> {
    /// Of `bn.weight`, (C).
    pub bn_weight: &'a mut [f32],
    /// Of `bn.bias`, (C).
    pub bn_bias: &'a mut [f32],
    /// Of `weight`, (G).
    pub weight: &'a mut [f32],
    /// Of `bias`, (G).
    pub bias: &'a mut [f32],
}

/// Parameter gradients, and what the channel part subtracts from the gradient of its output.
pub fn channel_fold_backward(
    params: &Params,
    gradient_parts: &[GradientPair],
    gradients: ParameterGradients,
    channel_gradients: &mut [GradientPair],
) {
    let (columns, channels) = (params.columns as usize, params.num_channels as usize);
    let count = (params.num_samples as f32 * params.row_len as f32).max(1.0);
    let flows = params.flags & TRAINING != 0 && params.flags & ESTIMATE == 0;
    let put = |gradient: &mut f32, value: f32| {
        *gradient = if params.flags & ACCUMULATE != 0 {
            *gradient + value
        } else {
            value
        };
    };
    for column in 0..columns {
        let mut pair = GradientPair::default();
        for i in 0..params.entries as usize {
            pair.bias += gradient_parts[i * columns + column].bias;
            pair.weight += gradient_parts[i * columns + column].weight;
        }
        if column < channels {
            channel_gradients[column] = if flows {
                GradientPair {
                    bias: pair.bias / count,
                    weight: pair.weight / count,
                }
            } else {
                GradientPair::default()
            };
            put(&mut gradients.bn_bias[column], pair.bias);
            put(&mut gradients.bn_weight[column], pair.weight);
        } else {
            put(&mut gradients.bias[column - channels], pair.bias);
            put(&mut gradients.weight[column - channels], pair.weight);
        }
    }
}
