//! The norms by burn's own tensor operations, for every other backend: the same results to the rounding of f32.

use crate::normalize::Parameters;
use bcnorm::desc::CHANNEL_EPS;
use bcnorm::{ChannelStats, Mode, NormDesc, NormKind};
use burn::tensor::Tensor;
use burn::tensor::module::{batch_norm, batch_norm_train};

/// norm(x), and the running statistics after it where there are any. The arguments were checked against the norm.
pub(crate) fn norm<const D: usize>(
    norm: &NormDesc,
    mode: Mode,
    x: Tensor<D>,
    parameters: Parameters,
    running: Option<[Tensor<1>; 2]>,
) -> (Tensor<D>, Option<[Tensor<1>; 2]>) {
    let Parameters {
        weight,
        bias,
        bn_weight,
        bn_bias,
    } = parameters;
    match norm.kind {
        NormKind::BatchNorm | NormKind::EstBn => {
            let eps = f64::from(norm.eps);
            channels(norm.stats, mode, x, [weight, bias], running, eps)
        }
        NormKind::BcNorm => {
            let eps = f64::from(CHANNEL_EPS);
            let (z, running) = channels(norm.stats, mode, x, [bn_weight, bn_bias], running, eps);
            (groups(norm, z, [weight, bias]), running)
        }
        _ => (groups(norm, x, [weight, bias]), running),
    }
}

/// Normalizes each channel over the batch and space.
fn channels<const D: usize>(
    stats: ChannelStats,
    mode: Mode,
    x: Tensor<D>,
    [weight, bias]: [Option<Tensor<1>>; 2],
    running: Option<[Tensor<1>; 2]>,
    eps: f64,
) -> (Tensor<D>, Option<[Tensor<1>; 2]>) {
    let device = x.device();
    let num_channels = x.dims()[1];
    let weight = weight.unwrap_or_else(|| Tensor::ones([num_channels], &device));
    let bias = bias.unwrap_or_else(|| Tensor::zeros([num_channels], &device));
    let count = x.shape().num_elements() / num_channels;
    let moved = |[mean, var]: [Tensor<1>; 2], to: [Tensor<1>; 2], speed: f64| {
        let [to_mean, to_var] = to.map(Tensor::detach);
        [
            mean * (1.0 - speed) + to_mean * speed,
            var * (1.0 - speed) + to_var * speed,
        ]
    };
    match (mode, stats, running) {
        (Mode::Train, ChannelStats::Batch { momentum }, running) => {
            let result = batch_norm_train(x, weight, bias, eps);
            let running = running.map(|running| {
                let unbiased = result.variance * (count as f64 / (count as f64 - 1.0));
                let speed = momentum.map_or(1.0, f64::from);
                moved(running, [result.mean, unbiased], speed)
            });
            (result.output, running)
        }
        (Mode::Train, ChannelStats::Estimate { moving_speed }, Some(running)) => {
            let flat = x.clone().detach().swap_dims(0, 1);
            let flat = flat.reshape([num_channels, count]);
            let about = running[0].clone().reshape([num_channels, 1]);
            let batch_mean = flat.clone().mean_dim(1).reshape([num_channels]);
            let second_moment = (flat - about).square().mean_dim(1);
            let second_moment = second_moment.reshape([num_channels]);
            let running = moved(
                running,
                [batch_mean, second_moment],
                f64::from(moving_speed),
            );
            let [mean, var] = running.clone();
            (batch_norm(x, weight, bias, mean, var, eps), Some(running))
        }
        (_, _, Some([mean, var])) => {
            let y = batch_norm(x, weight, bias, mean.clone(), var.clone(), eps);
            (y, Some([mean, var]))
        }
        (_, _, None) => {
            let y = batch_norm_train(x, weight, bias, eps).output;
            (y, None)
        }
    }
}

/// Normalizes each group of channels of each sample over its channels and space.
fn groups<const D: usize>(
    norm: &NormDesc,
    x: Tensor<D>,
    [weight, bias]: [Option<Tensor<1>>; 2],
) -> Tensor<D> {
    let dims = x.dims();
    let filters = norm.kind == NormKind::WeightStandardization;
    let (samples, num_groups) = (dims[0], norm.num_groups);
    let len = dims[1..].iter().product::<usize>() / num_groups;
    let x = x.reshape([samples, num_groups, len]);
    let centered = x.clone() - x.mean_dim(2);
    let divisor = match filters {
        true => len - 1,
        false => len,
    };
    let variance = centered.clone().square().mean_dim(2) * (len as f64 / divisor as f64);
    let normalized = centered / (variance + f64::from(norm.eps)).sqrt();
    // (G) or (C) values.
    let mut shape = [1; D];
    shape[1] = dims[1];
    match norm.kind == NormKind::BcNorm && !norm.per_channel_affine {
        true => affine(normalized, [weight, bias], [1, num_groups, 1]).reshape(dims),
        false => affine(normalized.reshape(dims), [weight, bias], shape),
    }
}

fn affine<const D: usize>(
    x: Tensor<D>,
    [weight, bias]: [Option<Tensor<1>>; 2],
    shape: [usize; D],
) -> Tensor<D> {
    let x = match weight {
        Some(weight) => x * weight.reshape(shape),
        None => x,
    };
    match bias {
        Some(bias) => x + bias.reshape(shape),
        None => x,
    }
}
