//! What every other implementation is measured against: the norms of the family, forward and
//! backward, as their definitions read.
//!
//! # Sources
//! * Batch-Channel Normalization: S. Qiao, H. Wang, C. Liu, W. Shen, A. Yuille, *Rethinking
//!   Normalization and Elimination Singularity in Neural Networks*,
//!   [arXiv:1911.09738](https://arxiv.org/abs/1911.09738), and the PyTorch module its authors
//!   published (`BCNorm` over `BatchNorm2d` or `EstBN`).
//! * Weight Standardization: the same authors, [arXiv:1903.10520](https://arxiv.org/abs/1903.10520).
//! * The others: `torch.nn`'s modules of these names.
//! * The backward formulas are those of Ioffe and Szegedy,
//!   [arXiv:1502.03167](https://arxiv.org/abs/1502.03167), applied to each part: the group part
//!   gives a gradient tensor, the channel part turns it into the input's.
//!
//! # What it computes
//! The input `x` has shape (N, C, L): N samples, C channels, L the product of the spatial
//! dimensions. A norm has a channel part, a group part, or both, the one after the other. With
//! `mean` and `var` of each channel over (N, L), or the running ones, and with the group (n, g)
//! being sample n's C/G channels from g·C/G on:
//!
//! ```text
//! x-hat = (x - mean) / sqrt(var + eps)          per channel
//! z     = bn_weight · x-hat + bn_bias           per channel
//! z-hat = (z - mean z) / sqrt(var z + eps)      per (sample, group), over C/G · L elements
//! u     = weight · z-hat + bias                 per group or per channel
//! y     = activation(u + residual)
//! ```
//!
//! | norm | channel part | group part |
//! | --- | --- | --- |
//! | BatchNorm, EstBN | with `weight` and `bias` in place of `bn_weight` and `bn_bias` | none: u = z |
//! | GroupNorm | none: z = x | affine per channel |
//! | LayerNorm | none | of one group, affine per channel |
//! | InstanceNorm | none; in evaluation with running statistics as BatchNorm's | of one channel each, affine per channel; none in evaluation with running statistics |
//! | BCNorm | eps 1e-5 | affine per group or per channel |
//! | Weight Standardization | none | of one group; the unbiased variance |
//!
//! # How far to trust it
//! It shares no code and no method with the library's stages: no row tables, no folds, no
//! coefficients, a loop over the tensor for each line above. All of it, the exponential of SiLU
//! included, runs in double-double arithmetic (about 32 digits) and is rounded to `f64` once, at
//! the end. So the results are good to about 1e-15 of their scale even where the mean is 1e7
//! standard deviations, or where a gradient is what remains of terms 1e5 times its size. An `f64`
//! alone would leave 1e-9 and 1e-11 there.
//!
//! It is single-threaded and needs memory for eight `f64` copies of the input.

mod double;

use bcnorm::{Activation, ChannelStats, Mode, NormDesc, NormKind, TensorDesc};
use double::Double;
use std::ops::Range;

/// The epsilon of BCNorm's channel part: PyTorch's default, a constant in the reference.
const CHANNEL_EPS: f64 = 1e-5;

/// Where the channel part takes its mean and variance from, and how it updates the running ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Stats {
    /// `BatchNorm2d`. In training the batch's statistics normalise, the gradient flows through
    /// them, and the running ones move towards them.
    Batch {
        /// The weight of the new value in the running one; `None` averages over all batches so
        /// far, with weight 1 / (batches tracked, this one included). With InstanceNorm `None` is
        /// 0, as in PyTorch.
        momentum: Option<f64>,
    },
    /// `EstBN`. In training the running statistics move first and then normalise; no gradient
    /// flows through them. InstanceNorm takes it for a momentum of 0.
    Estimate {
        /// The weight of the new value in the running one, 0 at the start of a training.
        moving_speed: f64,
    },
}

impl From<ChannelStats> for Stats {
    fn from(stats: ChannelStats) -> Self {
        match stats {
            ChannelStats::Batch { momentum } => Stats::Batch {
                momentum: momentum.map(f64::from),
            },
            ChannelStats::Estimate { moving_speed } => Stats::Estimate {
                moving_speed: f64::from(moving_speed),
            },
            other => unimplemented!("the statistics {other:?}"),
        }
    }
}

/// One call of a norm. Tensors are in row-major order, channels first.
///
/// Parameters and running statistics that the norm has no use for are ignored.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// Which norm.
    pub kind: NormKind,
    /// N, the number of samples; with Weight Standardization, of filters. May be 0.
    pub num_samples: usize,
    /// C, the number of channels; with Weight Standardization 1.
    pub num_channels: usize,
    /// L, the product of the spatial dimensions (1 if there are none). May be 0.
    pub row_len: usize,
    /// G, the number of groups, a divisor of C. Only GroupNorm and BCNorm look at it.
    pub num_groups: usize,
    /// The epsilon: of the group part, where there is one, else of the channel part. With BCNorm
    /// the channel part's is always 1e-5.
    pub eps: f64,
    /// The kind of channel statistics, and how running ones move.
    pub stats: Stats,
    /// Training (true) or evaluation (false), where the running statistics are used as they are.
    pub training: bool,
    /// BCNorm: weight and bias per channel rather than per group.
    pub per_channel_affine: bool,
    /// Whether BatchNorm, InstanceNorm or BCNorm has running statistics; without them the input's
    /// own normalise in evaluation, too. Those of [`Stats::Estimate`] are always there.
    pub track_running_stats: bool,
    /// The input, (N, C, L).
    pub x: &'a [f32],
    /// What is added to the normalised input, (N, C, L); `None` adds nothing.
    pub residual: Option<&'a [f32]>,
    /// What is applied last.
    pub activation: Activation,
    /// The gradient of the loss with respect to `y`, (N, C, L); `None` skips the backward pass.
    pub grad_y: Option<&'a [f32]>,
    /// BCNorm: the channel part's weight, (C); `None` is 1.
    pub bn_weight: Option<&'a [f32]>,
    /// BCNorm: the channel part's bias, (C); `None` is 0.
    pub bn_bias: Option<&'a [f32]>,
    /// The weight, (C), or with BCNorm per group (G); `None` is 1.
    pub weight: Option<&'a [f32]>,
    /// The bias, as the weight; `None` is 0.
    pub bias: Option<&'a [f32]>,
    /// The channels' running mean before the call, (C), where the norm has one.
    pub running_mean: Option<&'a [f32]>,
    /// The channels' running variance before the call, (C), where the norm has one.
    pub running_var: Option<&'a [f32]>,
    /// How many training batches came before this call.
    pub num_batches_tracked: u64,
}

impl<'a> Input<'a> {
    /// A call of this norm on `x`, without residual, activation, gradient, parameters and running
    /// statistics, and with no batch tracked so far.
    pub fn new(norm: &NormDesc, tensor: &TensorDesc, mode: Mode, x: &'a [f32]) -> Self {
        Self {
            kind: norm.kind,
            num_samples: tensor.num_samples() as usize,
            num_channels: tensor.num_channels() as usize,
            row_len: tensor.row_len() as usize,
            num_groups: norm.num_groups,
            eps: f64::from(norm.eps),
            stats: norm.stats.into(),
            training: mode == Mode::Train,
            per_channel_affine: norm.per_channel_affine,
            track_running_stats: norm.track_running_stats,
            x,
            residual: None,
            activation: Activation::None,
            grad_y: None,
            bn_weight: None,
            bn_bias: None,
            weight: None,
            bias: None,
            running_mean: None,
            running_var: None,
            num_batches_tracked: 0,
        }
    }
}

/// What one call yields.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// The result, (N, C, L).
    pub y: Vec<f64>,
    /// What the activation is applied to, the normalised input + residual, (N, C, L).
    pub pre_activation: Vec<f64>,
    /// The channels' running mean after the call, (C), where the norm has one.
    pub running_mean: Option<Vec<f64>>,
    /// The channels' running variance after the call, (C), where the norm has one.
    pub running_var: Option<Vec<f64>>,
    /// One more than before where a training with [`Stats::Batch`] moved running statistics, but
    /// with InstanceNorm, which never counts; otherwise as before.
    pub num_batches_tracked: u64,
    /// The gradients, if [`Input::grad_y`] was given.
    pub gradients: Option<Gradients>,
}

/// The gradients of the loss, and the scales that errors of the parameters' gradients are
/// divided by. A tensor that was not given, or that the norm has no use for, has none.
///
/// A parameter's gradient is a sum that may cancel to nothing, so its size says little about the
/// error to expect of it. Its scale is the largest sum of *absolute* terms behind one entry of
/// the tensor. For the other tensors see [`scale`].
///
/// In these sums `g` is dy behind the activation: the gradient with respect to
/// [`Output::pre_activation`].
#[derive(Clone, Debug, PartialEq)]
pub struct Gradients {
    /// With respect to the input, (N, C, L).
    pub x: Vec<f64>,
    /// With respect to the residual, (N, C, L): `g`.
    pub residual: Option<Vec<f64>>,
    /// With respect to the channel part's weight, (C): the sums of dz · x-hat.
    pub bn_weight: Option<Vec<f64>>,
    /// With respect to the channel part's bias, (C): the sums of dz.
    pub bn_bias: Option<Vec<f64>>,
    /// With respect to the weight, in its shape: the sums of g · z-hat, or of g · x-hat where
    /// there is no group part.
    pub weight: Option<Vec<f64>>,
    /// With respect to the bias, in its shape: the sums of g.
    pub bias: Option<Vec<f64>>,
    /// The scale of `bn_weight`, 0 without it.
    pub bn_weight_scale: f64,
    /// The scale of `bn_bias`, 0 without it.
    pub bn_bias_scale: f64,
    /// The scale of `weight`, 0 without it.
    pub weight_scale: f64,
    /// The scale of `bias`, 0 without it.
    pub bias_scale: f64,
}

/// A norm, forward and, with [`Input::grad_y`], backward.
///
/// Cases that the formulas leave open:
/// * A group of one element has variance 0 and yields its bias, but a filter of one element (Weight
///   Standardization) has no unbiased variance, 0 / 0, and yields NaN.
/// * Where variance + eps is 0, the reciprocal standard deviation is taken to be 0: the output is
///   the bias, and the gradients of everything but the bias are 0.
/// * Without elements (N, C or L is 0) `y` is empty, the gradients are zeros and the state stays
///   as it is.
/// * One value per channel in training with [`Stats::Batch`], or one per instance in training with
///   InstanceNorm's running statistics, which PyTorch and this library's layers refuse, makes the
///   running variance NaN (its unbiased estimate is 0 / 0).
/// * ReLU takes everything up to 0 to 0, and its gradient there is 0. NaN stays and lets the
///   gradient pass. SiLU of -Inf is NaN, as in PyTorch.
/// * NaN and infinities go where the formulas take them; so do a negative or NaN epsilon, momentum
///   or speed.
///
/// # Panics
/// When GroupNorm's or BCNorm's G is 0 or does not divide C, when a slice does not have the length
/// that its field states, or when running statistics are missing where the norm has them.
pub fn normalize(input: &Input) -> Output {
    let parts = Parts::of(input);
    let shape = Shape::of(input, &parts);
    if shape.len() == 0 {
        return without_elements(input, &parts);
    }
    let mut running = parts.tracked.then(|| Running::before(input));

    // z, the output of the channel part.
    let mut z: Vec<Double> = input.x.iter().copied().map(Double::from).collect();
    let mut channels = Vec::new();
    if parts.channel != ChannelPart::None {
        channels = channel_statistics(input, &parts, &shape, running.as_mut());
        let affine = parts.channel_affine(input);
        for (c, channel) in channels.iter().enumerate() {
            let (weight, bias) = affine.at(c);
            for i in shape.channel(c) {
                z[i] = weight * channel.normalize(z[i]) + bias;
            }
        }
    }

    // u, the output of the group part.
    let mut groups = Vec::new();
    let mut u = z.clone();
    if parts.group {
        let affine = Affine::of(input.weight, input.bias);
        let moments = group_moments(&shape, &z);
        for (part, moments) in moments.iter().enumerate() {
            let variance = moments.sum_of_squares / parts.group_divisor(moments.count);
            let group = Normalizer::new(moments.mean, variance, input.eps);
            for i in shape.group(part) {
                let (weight, bias) = affine.at(shape.group_parameter(i));
                u[i] = weight * group.normalize(z[i]) + bias;
            }
            groups.push(group);
        }
        if let Some(running) = running.as_mut()
            && input.training
            && input.kind == NormKind::InstanceNorm
        {
            running.move_by_instances(input, &shape, &moments);
        }
    }

    // y; then u is the gradient with respect to what the activation is applied to.
    let mut pre_activation = vec![0.0; shape.len()];
    let mut y = vec![0.0; shape.len()];
    for i in 0..shape.len() {
        let residual = input
            .residual
            .map_or(Double::ZERO, |residual| residual[i].into());
        let t = u[i] + residual;
        pre_activation[i] = t.to_f64();
        let (activated, slope) = activate(input.activation, t);
        y[i] = activated.to_f64();
        if let Some(grad_y) = input.grad_y {
            u[i] = slope.gradient(grad_y[i].into());
        }
    }

    let counts = parts.channel == ChannelPart::Batch && input.training && parts.tracked;
    Output {
        y,
        pre_activation,
        gradients: input
            .grad_y
            .map(|_| backward(input, &parts, &shape, &channels, &groups, z, &u)),
        num_batches_tracked: input.num_batches_tracked.saturating_add(counts.into()),
        running_mean: running.as_ref().map(|running| rounded(&running.mean)),
        running_var: running.as_ref().map(|running| rounded(&running.var)),
    }
}

/// The gradients; `z` is the output of the channel part and gives its memory to its gradient, `g` is
/// the gradient behind the activation.
fn backward(
    input: &Input,
    parts: &Parts,
    shape: &Shape,
    channels: &[Normalizer],
    groups: &[Normalizer],
    z: Vec<Double>,
    g: &[Double],
) -> Gradients {
    // The group part: dz = (h - mean h - z-hat · mean(h · z-hat)) / std, where h = weight · g. With
    // the unbiased variance the second mean is over one element less.
    let mut weight = vec![Sum::ZERO; shape.affine];
    let mut bias = vec![Sum::ZERO; shape.affine];
    let mut dz = z;
    if parts.group {
        let affine = Affine::of(input.weight, input.bias);
        for (part, group) in groups.iter().enumerate() {
            let elements = shape.group(part);
            let count = Double::from(elements.len() as f64);
            let (mut sum, mut product) = (Double::ZERO, Double::ZERO);
            for i in elements.clone() {
                let z_hat = group.normalize(dz[i]);
                let parameter = shape.group_parameter(i);
                weight[parameter].add(g[i] * z_hat);
                bias[parameter].add(g[i]);
                let h = affine.at(parameter).0 * g[i];
                sum += h;
                product += h * z_hat;
            }
            let (mean, mean_product) = (sum / count, product / parts.group_divisor(count));
            for i in elements {
                let z_hat = group.normalize(dz[i]);
                let h = affine.at(shape.group_parameter(i)).0 * g[i];
                dz[i] = group.inverse_std * (h - mean - z_hat * mean_product);
            }
        }
    } else {
        dz.copy_from_slice(g);
    }

    // The channel part, by the same formula with z for y; a constant mean and variance drop the
    // two middle terms.
    let mut bn_weight = vec![Sum::ZERO; shape.channels];
    let mut bn_bias = vec![Sum::ZERO; shape.channels];
    if parts.channel != ChannelPart::None {
        let affine = parts.channel_affine(input);
        let count = Double::from((shape.samples * shape.row_len) as f64);
        for (c, channel) in channels.iter().enumerate() {
            let x_hat = |i: usize| channel.normalize(Double::from(input.x[i]));
            for i in shape.channel(c) {
                bn_weight[c].add(dz[i] * x_hat(i));
                bn_bias[c].add(dz[i]);
            }
            let scale = affine.at(c).0 * channel.inverse_std;
            let (mean, mean_product) = (bn_bias[c].sum / count, bn_weight[c].sum / count);
            for i in shape.channel(c) {
                let mut centred = dz[i];
                if parts.channel == ChannelPart::Batch {
                    centred = centred - mean - x_hat(i) * mean_product;
                }
                dz[i] = scale * centred;
            }
        }
    }

    // Without a group part the channel part's affine is the norm's only one.
    if !parts.group {
        (weight, bias) = (bn_weight, bn_bias);
        (bn_weight, bn_bias) = (Vec::new(), Vec::new());
    }
    let both = parts.are_both();
    Gradients {
        x: rounded(&dz),
        residual: input.residual.map(|_| rounded(g)),
        bn_weight_scale: Sum::scale(both && input.bn_weight.is_some(), &bn_weight),
        bn_bias_scale: Sum::scale(both && input.bn_bias.is_some(), &bn_bias),
        weight_scale: Sum::scale(input.weight.is_some(), &weight),
        bias_scale: Sum::scale(input.bias.is_some(), &bias),
        bn_weight: Sum::values(both && input.bn_weight.is_some(), &bn_weight),
        bn_bias: Sum::values(both && input.bn_bias.is_some(), &bn_bias),
        weight: Sum::values(input.weight.is_some(), &weight),
        bias: Sum::values(input.bias.is_some(), &bias),
    }
}

/// What normalises each channel; moves the running statistics.
fn channel_statistics(
    input: &Input,
    parts: &Parts,
    shape: &Shape,
    mut running: Option<&mut Running>,
) -> Vec<Normalizer> {
    let eps = if parts.group { CHANNEL_EPS } else { input.eps };
    let count = Double::from((shape.samples * shape.row_len) as f64);
    let one = Double::from(1.0);
    let mut normalizer = |c: usize| {
        let values = || shape.channel(c).map(|i| Double::from(input.x[i]));
        if parts.channel == ChannelPart::Batch {
            let batch = Moments::of(values);
            if let Some(running) = running.as_mut()
                && input.training
            {
                let speed = match input.stats {
                    Stats::Batch {
                        momentum: Some(momentum),
                    } => Double::from(momentum),
                    _ => {
                        let tracked = input.num_batches_tracked.saturating_add(1);
                        one / Double::from(tracked as f64)
                    }
                };
                let unbiased = batch.sum_of_squares / (count - one);
                running.move_to(c, batch.mean, unbiased, speed);
            }
            return Normalizer::new(batch.mean, batch.sum_of_squares / count, eps);
        }
        let running = running.as_mut().expect("the shape was checked for them");
        if let (ChannelPart::Estimate, Stats::Estimate { moving_speed }) =
            (parts.channel, input.stats)
        {
            let second_moment = sum_of_squares(values(), running.mean[c]) / count;
            running.move_to(c, mean(values), second_moment, Double::from(moving_speed));
        }
        Normalizer::new(running.mean[c], running.var[c], eps)
    };
    (0..shape.channels).map(&mut normalizer).collect()
}

/// The moments of each (sample, group).
fn group_moments(shape: &Shape, z: &[Double]) -> Vec<Moments> {
    (0..shape.samples * shape.groups)
        .map(|part| Moments::of(|| z[shape.group(part)].iter().copied()))
        .collect()
}

/// The result of a call without elements.
fn without_elements(input: &Input, parts: &Parts) -> Output {
    let running = parts.tracked.then(|| Running::before(input));
    let zeros = |given: Option<&[f32]>| given.map(|given| vec![0.0; given.len()]);
    let both = parts.are_both();
    Output {
        y: Vec::new(),
        pre_activation: Vec::new(),
        running_mean: running.as_ref().map(|running| rounded(&running.mean)),
        running_var: running.as_ref().map(|running| rounded(&running.var)),
        num_batches_tracked: input.num_batches_tracked,
        gradients: input.grad_y.map(|_| Gradients {
            x: Vec::new(),
            residual: zeros(input.residual),
            bn_weight: zeros(input.bn_weight.filter(|_| both)),
            bn_bias: zeros(input.bn_bias.filter(|_| both)),
            weight: zeros(input.weight),
            bias: zeros(input.bias),
            bn_weight_scale: 0.0,
            bn_bias_scale: 0.0,
            weight_scale: 0.0,
            bias_scale: 0.0,
        }),
    }
}

/// What the channel part normalises by.
#[derive(Clone, Copy, Debug, PartialEq)]
enum ChannelPart {
    /// There is none.
    None,
    /// The batch's statistics.
    Batch,
    /// The running statistics, moved first.
    Estimate,
    /// The running statistics as they are.
    Running,
}

/// What a norm consists of in this call.
struct Parts {
    kind: NormKind,
    channel: ChannelPart,
    group: bool,
    /// Whether there are running statistics.
    tracked: bool,
}

impl Parts {
    fn of(input: &Input) -> Self {
        let estimate = matches!(input.stats, Stats::Estimate { .. });
        let (training, track) = (input.training, input.track_running_stats);
        let (channel, group, tracked) = match input.kind {
            NormKind::GroupNorm | NormKind::LayerNorm | NormKind::WeightStandardization => {
                (ChannelPart::None, true, false)
            }
            NormKind::InstanceNorm if track && !training => (ChannelPart::Running, false, true),
            NormKind::InstanceNorm => (ChannelPart::None, true, track),
            NormKind::BatchNorm | NormKind::EstBn | NormKind::BcNorm => {
                let channel = match (estimate, training) {
                    (true, true) => ChannelPart::Estimate,
                    (false, true) => ChannelPart::Batch,
                    (false, false) if !track => ChannelPart::Batch,
                    (_, false) => ChannelPart::Running,
                };
                (channel, input.kind == NormKind::BcNorm, track || estimate)
            }
            other => unimplemented!("the norm {}", other.name()),
        };
        Self {
            kind: input.kind,
            channel,
            group,
            tracked,
        }
    }

    /// Whether the one part follows the other.
    fn are_both(&self) -> bool {
        self.group && self.channel != ChannelPart::None
    }

    /// The channel part's weight and bias: where it is the only part, they are the norm's.
    fn channel_affine<'a>(&self, input: &Input<'a>) -> Affine<'a> {
        if self.group {
            Affine::of(input.bn_weight, input.bn_bias)
        } else {
            Affine::of(input.weight, input.bias)
        }
    }

    /// What a group's sum of squares is divided by: the count, and one less for the unbiased
    /// variance.
    fn group_divisor(&self, count: Double) -> Double {
        match self.kind {
            NormKind::WeightStandardization => count - Double::from(1.0),
            _ => count,
        }
    }
}

/// The weight and the bias of a part.
struct Affine<'a> {
    weight: Option<&'a [f32]>,
    bias: Option<&'a [f32]>,
}

impl<'a> Affine<'a> {
    fn of(weight: Option<&'a [f32]>, bias: Option<&'a [f32]>) -> Self {
        Self { weight, bias }
    }

    /// One weight and one bias, 1 and 0 without any.
    fn at(&self, index: usize) -> (Double, Double) {
        let value = |values: Option<&[f32]>, otherwise: f64| {
            values.map_or(Double::from(otherwise), |values| values[index].into())
        };
        (value(self.weight, 1.0), value(self.bias, 0.0))
    }
}

/// The running statistics.
struct Running {
    mean: Vec<Double>,
    var: Vec<Double>,
}

impl Running {
    /// As they are before the call.
    fn before(input: &Input) -> Self {
        let widened = |values: Option<&[f32]>| {
            let values = values.unwrap_or_default().iter();
            values.copied().map(Double::from).collect()
        };
        Self {
            mean: widened(input.running_mean),
            var: widened(input.running_var),
        }
    }

    /// Moves those of channel `c`.
    fn move_to(&mut self, c: usize, mean: Double, var: Double, speed: Double) {
        let moved = |old: Double, new: Double| (Double::from(1.0) - speed) * old + speed * new;
        self.mean[c] = moved(self.mean[c], mean);
        self.var[c] = moved(self.var[c], var);
    }

    /// InstanceNorm: towards the means, over the samples, of the instances' means and unbiased
    /// variances.
    fn move_by_instances(&mut self, input: &Input, shape: &Shape, instances: &[Moments]) {
        let speed = match input.stats {
            Stats::Batch {
                momentum: Some(momentum),
            } => Double::from(momentum),
            _ => Double::ZERO,
        };
        for c in 0..shape.channels {
            let of_channel = || instances.iter().skip(c).step_by(shape.channels);
            let unbiased =
                |instance: &Moments| instance.sum_of_squares / (instance.count - Double::from(1.0));
            let new_mean = mean(|| of_channel().map(|instance| instance.mean));
            let new_var = mean(|| of_channel().map(unbiased));
            self.move_to(c, new_mean, new_var, speed);
        }
    }
}

/// What elements are normalised by.
struct Normalizer {
    mean: Double,
    inverse_std: Double,
}

impl Normalizer {
    /// The standard deviation is sqrt(variance + eps). Where that is 0, its reciprocal is taken to
    /// be 0.
    fn new(mean: Double, variance: Double, eps: f64) -> Self {
        let std = (variance + Double::from(eps)).sqrt();
        let inverse_std = if std == Double::ZERO {
            Double::ZERO
        } else {
            Double::from(1.0) / std
        };
        Self { mean, inverse_std }
    }

    fn normalize(&self, value: Double) -> Double {
        (value - self.mean) * self.inverse_std
    }
}

/// The moments of some elements.
struct Moments {
    count: Double,
    mean: Double,
    /// Of the deviations from the mean.
    sum_of_squares: Double,
}

impl Moments {
    /// Of at least one element.
    fn of<I: Iterator<Item = Double>>(values: impl Fn() -> I) -> Self {
        let mean = mean(&values);
        Self {
            count: Double::from(values().count() as f64),
            mean,
            sum_of_squares: sum_of_squares(values(), mean),
        }
    }
}

/// The mean of at least one element.
fn mean<I: Iterator<Item = Double>>(values: impl Fn() -> I) -> Double {
    // Counting from the first element makes the mean of equal elements that element, to the bit,
    // and their variance 0. From an infinity one cannot count.
    let first = values().next().filter(|first| first.is_finite());
    let origin = first.unwrap_or(Double::ZERO);
    let (mut sum, mut count) = (Double::ZERO, 0usize);
    values().for_each(|value| {
        sum += value - origin;
        count += 1;
    });
    origin + sum / Double::from(count as f64)
}

/// The sum of the squared distances from `centre`.
fn sum_of_squares(values: impl Iterator<Item = Double>, centre: Double) -> Double {
    values.fold(Double::ZERO, |sum, value| {
        let distance = value - centre;
        sum + distance * distance
    })
}

/// The slope of an activation. No mere factor, as 0 · NaN is not the 0 that ReLU makes of any
/// gradient.
enum Slope {
    /// The gradient is 0.
    Zero,
    /// The gradient stays.
    One,
    /// The gradient is multiplied.
    Factor(Double),
}

impl Slope {
    /// The gradient before the activation, given the one behind it.
    fn gradient(&self, grad_y: Double) -> Double {
        match *self {
            Slope::Zero => Double::ZERO,
            Slope::One => grad_y,
            Slope::Factor(factor) => factor * grad_y,
        }
    }
}

/// An activation's value and slope.
fn activate(activation: Activation, t: Double) -> (Double, Slope) {
    match activation {
        Activation::None => (t, Slope::One),
        Activation::Relu if t.to_f64() <= 0.0 => (Double::ZERO, Slope::Zero),
        Activation::Relu => (t, Slope::One),
        Activation::Silu => {
            // 1 - sigmoid(t) is sigmoid(-t), which cancels nothing.
            let sigmoid = sigmoid(t);
            let slope = sigmoid * (Double::from(1.0) + t * self::sigmoid(-t));
            (t * sigmoid, Slope::Factor(slope))
        }
        other => unimplemented!("the activation {other:?}"),
    }
}

/// 1 / (1 + exp(-t)), by the exponential that cannot overflow.
fn sigmoid(t: Double) -> Double {
    let one = Double::from(1.0);
    if t.to_f64() < 0.0 {
        let small = t.exp();
        small / (one + small)
    } else {
        one / (one + (-t).exp())
    }
}

/// Each value as an `f64`.
fn rounded(values: &[Double]) -> Vec<f64> {
    values.iter().map(|value| value.to_f64()).collect()
}

/// A sum beside the sum of its terms' magnitudes.
#[derive(Clone, Copy)]
struct Sum {
    sum: Double,
    magnitude: f64,
}

impl Sum {
    const ZERO: Self = Self {
        sum: Double::ZERO,
        magnitude: 0.0,
    };

    fn add(&mut self, term: Double) {
        self.sum += term;
        self.magnitude += term.to_f64().abs();
    }

    /// The sums, where they are asked for.
    fn values(wanted: bool, sums: &[Self]) -> Option<Vec<f64>> {
        wanted.then(|| sums.iter().map(|sum| sum.sum.to_f64()).collect())
    }

    /// Their scale, 0 where they are not asked for.
    fn scale(wanted: bool, sums: &[Self]) -> f64 {
        let sums = sums.iter().filter(|_| wanted);
        let magnitudes: Vec<f64> = sums.map(|sum| sum.magnitude).collect();
        scale(&magnitudes)
    }
}

/// The extents of a call and the elements of its parts.
struct Shape {
    samples: usize,
    channels: usize,
    row_len: usize,
    /// Of the group part, each of as many channels.
    groups: usize,
    /// Values of the weight and of the bias.
    affine: usize,
}

impl Shape {
    /// Checks what [`normalize`] documents.
    fn of(input: &Input, parts: &Parts) -> Self {
        let (samples, channels) = (input.num_samples, input.num_channels);
        let row_len = input.row_len;
        let groups = match input.kind {
            NormKind::GroupNorm | NormKind::BcNorm => input.num_groups,
            NormKind::InstanceNorm => channels.max(1),
            _ => 1,
        };
        assert!(
            groups > 0 && channels.is_multiple_of(groups),
            "num_groups is {groups}: it must be at least 1 and divide num_channels, {channels}"
        );
        let affine = match input.kind {
            NormKind::BcNorm if !input.per_channel_affine => groups,
            _ => channels,
        };
        let elements = if samples == 0 || channels == 0 || row_len == 0 {
            Some(0)
        } else {
            let rows = samples.checked_mul(channels);
            rows.and_then(|rows| rows.checked_mul(row_len))
        };
        let check = |name: &str, values: Option<&[f32]>, expected: Option<usize>| {
            let Some(len) = values.map(<[f32]>::len) else {
                return;
            };
            assert!(
                Some(len) == expected,
                "{name} has {len} elements: it needs {expected:?} for {samples} samples of \
                 {channels} channels of {row_len} elements in {groups} groups"
            );
        };
        check("x", Some(input.x), elements);
        check("residual", input.residual, elements);
        check("grad_y", input.grad_y, elements);
        if parts.are_both() {
            check("bn_weight", input.bn_weight, Some(channels));
            check("bn_bias", input.bn_bias, Some(channels));
        }
        check("weight", input.weight, Some(affine));
        check("bias", input.bias, Some(affine));
        if parts.tracked {
            for (name, values) in [
                ("running_mean", input.running_mean),
                ("running_var", input.running_var),
            ] {
                let given = values.is_some();
                assert!(given, "{name} is missing: the norm has running statistics");
                check(name, values, Some(channels));
            }
        }
        Self {
            samples,
            channels,
            row_len,
            groups,
            affine,
        }
    }

    /// The number of elements.
    fn len(&self) -> usize {
        if self.channels == 0 || self.row_len == 0 {
            return 0;
        }
        self.samples * self.channels * self.row_len
    }

    /// Where channel `c` lies: in every sample.
    fn channel(&self, c: usize) -> impl Iterator<Item = usize> + use<> {
        let (channels, row_len) = (self.channels, self.row_len);
        (0..self.samples).flat_map(move |n| {
            let start = (n * channels + c) * row_len;
            start..start + row_len
        })
    }

    /// Where group `part` modulo G of sample `part` / G lies: its channels are neighbours.
    fn group(&self, part: usize) -> Range<usize> {
        let len = self.channels / self.groups * self.row_len;
        part * len..(part + 1) * len
    }

    /// Which weight and bias of the group part element `i` has.
    fn group_parameter(&self, i: usize) -> usize {
        let c = i / self.row_len % self.channels;
        c / (self.channels / self.affine)
    }
}

/// The scale of an output, of its input's gradient or of a running statistic: the largest
/// magnitude among the finite values, 0 if there is none.
///
/// The scale of a parameter's gradient is in [`Gradients`].
pub fn scale(values: &[f64]) -> f64 {
    let finite = values.iter().filter(|value| value.is_finite());
    finite.fold(0.0, |largest, value| largest.max(value.abs()))
}

/// The error of one value: |got - expected| / scale, never NaN.
///
/// * Where either is NaN or infinite, the error is 0 if both are NaN or both the same infinity,
///   and infinite otherwise.
/// * A scale of 0 says that all that was expected is 0: the error is 0 for equal values and
///   infinite for others. For an absolute error pass a scale of 1.
/// * A negative, infinite or NaN scale is a mistake: the error is infinite whatever the values.
pub fn element_error(got: f64, expected: f64, scale: f64) -> f64 {
    if !scale.is_finite() || scale < 0.0 {
        return f64::INFINITY;
    }
    if got == expected || (got.is_nan() && expected.is_nan()) {
        return 0.0;
    }
    if !got.is_finite() || !expected.is_finite() || scale == 0.0 {
        return f64::INFINITY;
    }
    (got - expected).abs() / scale
}

/// The error of a tensor: the largest [`element_error`], infinite if the lengths differ.
///
/// `got` may be of any type that widens to `f64`: `f32`, `f64` and the 16-bit floats of the
/// `half` crate do.
pub fn error<T: Copy + Into<f64>>(got: &[T], expected: &[f64], scale: f64) -> f64 {
    if got.len() != expected.len() {
        return f64::INFINITY;
    }
    let pairs = got.iter().zip(expected);
    // No element error is NaN, so max hides none.
    pairs.fold(0.0, |largest, (&got, &expected)| {
        largest.max(element_error(got.into(), expected, scale))
    })
}
