//! Mirror of `shaders/channel_fold.wgsl`.

use super::batch_count::batch_count;
use super::moments::merge_all;
use super::precise::{product_rest, reciprocal_std, reciprocal_std_rest};
use crate::params::{CUMULATIVE, ESTIMATE, PER_CHANNEL};
use crate::params::{ChannelParams, TRAINING};
use crate::tables::{Channel, Moments};

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
    params: &ChannelParams,
    channel_parts: &[Moments],
    bn_weight: Option<&[f32]>,
    bn_bias: Option<&[f32]>,
    weight: Option<&[f32]>,
    num_batches_tracked: Option<&mut [u32]>,
    mut running: Option<RunningStatistics>,
    channels: &mut [Channel],
) {
    let batches = counted(params, num_batches_tracked);
    let inputs = ChannelFold {
        params,
        bn_weight,
        bn_bias,
        weight,
        batches,
    };
    for (c, channel) in channels.iter_mut().enumerate() {
        let batch = merged(params, channel_parts, c);
        *channel = inputs.fold(c, batch, &mut running);
    }
}

/// Counts the batch, unless `batch_count` did, and says how many there were.
pub(crate) fn counted(
    params: &ChannelParams,
    num_batches_tracked: Option<&mut [u32]>,
) -> Option<u32> {
    let count = num_batches_tracked?;
    if params.norm.flags & CUMULATIVE == 0 {
        batch_count(count);
    }
    Some(count[0])
}

/// What the kernel reads, but for the moments.
pub(crate) struct ChannelFold<'a> {
    pub params: &'a ChannelParams,
    pub bn_weight: Option<&'a [f32]>,
    pub bn_bias: Option<&'a [f32]>,
    pub weight: Option<&'a [f32]>,
    /// How many batches there were.
    pub batches: Option<u32>,
}

impl ChannelFold<'_> {
    /// Statistics in force of a channel from the batch's moments.
    pub fn fold(
        &self,
        c: usize,
        batch: Moments,
        running: &mut Option<RunningStatistics>,
    ) -> Channel {
        let params = self.params;
        let group_weight = match self.weight {
            Some(weight) if params.norm.flags & PER_CHANNEL != 0 => weight[c],
            _ => 1.0,
        };
        let state = running
            .as_mut()
            .map(|running| (&mut running.mean[c], &mut running.var[c]));
        let in_force = params.norm.flags & TRAINING != 0 && params.norm.flags & ESTIMATE == 0;
        let (pivot, offset, variance, known, count) = match state {
            // The planner binds the running statistics where the batch's are not in force.
            Some((mean, var)) if !in_force => {
                if params.norm.flags & TRAINING == 0 || batch.count == 0 {
                    (*mean, 0.0, *var, *var > 3.4e38, 0)
                } else {
                    estimated_statistics(params, batch, mean, var)
                }
            }
            state => batch_statistics(params, batch, self.batches, state),
        };
        let v = variance + params.norm.channel_eps;
        let rstd = if known { 0.0 } else { reciprocal_std(v) };
        let w = self.bn_weight.map_or(1.0, |weight| weight[c]);
        let scale = w * rstd;
        Channel {
            mean_pivot: pivot,
            mean_offset: offset,
            rstd,
            scale,
            scale_low: product_rest(w, rstd, scale) + w * reciprocal_std_rest(v, rstd),
            bias: self.bn_bias.map_or(0.0, |bias| bias[c]),
            weight: group_weight,
            count,
        }
    }
}

/// Moments of a channel.
pub(crate) fn merged(params: &ChannelParams, channel_parts: &[Moments], c: usize) -> Moments {
    let columns = params.table.columns as usize;
    let entries = (0..params.table.entries as usize).map(|i| channel_parts[i * columns + c]);
    merge_all(entries)
}

/// A batch of no values leaves the running statistics as they are.
fn batch_statistics(
    params: &ChannelParams,
    batch: Moments,
    batches: Option<u32>,
    running: Option<(&mut f32, &mut f32)>,
) -> InForce {
    if let (Some((mean, var)), 1..) = (running, batch.count) {
        let momentum = match batches {
            Some(count) if params.norm.flags & CUMULATIVE != 0 => 1.0 / count as f32,
            _ => params.norm.momentum,
        };
        let unbiased = batch.variance * (batch.count as f32 / (batch.count - 1) as f32);
        *mean = (1.0 - momentum) * *mean + (momentum * batch.pivot + momentum * batch.offset);
        *var = (1.0 - momentum) * *var + momentum * unbiased;
    }
    let (pivot, offset) = (batch.pivot, batch.offset);
    (pivot, offset, batch.variance, false, batch.count)
}

fn estimated_statistics(
    params: &ChannelParams,
    batch: Moments,
    mean: &mut f32,
    var: &mut f32,
) -> InForce {
    let speed = params.norm.momentum;
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
