//! Mirror of `shaders/channel_fold_backward.wgsl`.

use crate::params::ACCUMULATE;
use crate::params::{ChannelParams, SUMS};
use crate::tables::{Channel, GradientPair};

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
    params: &ChannelParams,
    gradient_parts: &[GradientPair],
    channels: Option<&[Channel]>,
    mut gradients: ParameterGradients,
    mut channel_gradients: Option<&mut [GradientPair]>,
) {
    let (columns, first_affine) = (
        params.table.columns as usize,
        params.table.channel_columns as usize,
    );
    let put = |gradient: &mut Option<&mut [f32]>, index: usize, value: f32| {
        if let Some(gradient) = gradient {
            gradient[index] = if params.norm.flags & ACCUMULATE != 0 {
                value + gradient[index]
            } else {
                value
            };
        }
    };
    for column in 0..columns {
        let (mut bias, mut weight) = (0.0, 0.0);
        for part in
            (0..params.table.entries as usize).map(|i| &gradient_parts[i * columns + column])
        {
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
                    Some(channels) if params.norm.flags & SUMS == 0 => channels[column].count,
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
