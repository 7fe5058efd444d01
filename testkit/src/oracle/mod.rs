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
//! coefficients, a loop over the tensor for each line above. [`normalize`] runs all of it, the
//! exponential of SiLU included, in double-double arithmetic (about 32 digits, [`Double`]) and rounds
//! to `f64` once, at the end. So the results are good to about 1e-15 of their scale even where the
//! mean is 1e7 standard deviations, or where a gradient is what remains of terms 1e5 times its size.
//!
//! [`normalize_in`] runs the same formulas in any [`Number`]. An `f64` is nine times as fast and
//! leaves 1e-9 and 1e-11 in the two cases above, but 1e-14 where the data are tame: enough for the
//! benchmark, which compares tensors of up to 256 MiB before it times them.
//!
//! Channels, groups and rows are spread over all cores. Each sum is one loop in the order of the
//! elements, so the number of cores changes no bit. It needs memory for up to eight `f64` copies of
//! the input.

mod double;
mod error;
mod extents;
mod number;

pub use double::Double;
pub use error::{element_error, error, scale};
pub use number::Number;

use bcnorm::{Activation, ChannelStats, Mode, NormDesc, NormKind, TensorDesc};
use extents::Extents;

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
    normalize_in::<Double>(input)
}

/// [`normalize`], calculated in this type of number.
///
/// # Panics
/// As [`normalize`].
pub fn normalize_in<T: Number>(input: &Input) -> Output {
    let parts = Parts::of(input);
    let extents = Extents::of(input, &parts);
    if extents.len() == 0 {
        return without_elements(input, &parts);
    }
    let mut running = parts.tracked.then(|| Running::<T>::before(input));

    // z, the output of the channel part.
    let mut z = extents.map(extents.len(), |i| T::from(input.x[i]));
    let mut channels = Vec::new();
    if parts.channel != ChannelSource::None {
        channels = channel_statistics(input, &parts, &extents, running.as_mut());
        let affine = parts.channel_affine(input);
        extents.for_each_row(&mut z, |row, z| {
            let c = row % extents.channels;
            let (channel, (weight, bias)) = (&channels[c], affine.at::<T>(c));
            for z in z {
                *z = weight * channel.normalize(*z) + bias;
            }
        });
    }

    // u, the output of the group part.
    let mut groups = Vec::new();
    let mut u = z.clone();
    if parts.group {
        let moments = extents.map(extents.num_groups(), |group| {
            Moments::of(|| z[extents.group(group)].iter().copied())
        });
        groups.extend(moments.iter().map(|moments| {
            let variance = moments.sum_of_squares / parts.group_divisor(moments.count);
            Normalizer::new(moments.mean, variance, input.eps)
        }));
        let affine = Affine::of(input.weight, input.bias);
        extents.for_each_row(&mut u, |row, u| {
            let group = &groups[extents.group_of_row(row)];
            let (weight, bias) = affine.at::<T>(extents.parameter_of_row(row));
            for u in u {
                *u = weight * group.normalize(*u) + bias;
            }
        });
        if let Some(running) = running.as_mut()
            && input.training
            && input.kind == NormKind::InstanceNorm
        {
            running.move_by_instances(input, &extents, &moments);
        }
    }

    // t, what the activation is applied to; and y.
    let mut t = u;
    if let Some(residual) = input.residual {
        extents.for_each_row(&mut t, |row, t| {
            for (t, &residual) in t.iter_mut().zip(&residual[extents.row(row)]) {
                *t += T::from(residual);
            }
        });
    }
    let y = extents.map(t.len(), |i| activate(input.activation, t[i]).to_f64());
    let pre_activation = extents.map(t.len(), |i| t[i].to_f64());

    let counts = parts.channel == ChannelSource::Batch && input.training && parts.tracked;
    Output {
        y,
        pre_activation,
        gradients: input.grad_y.map(|grad_y| {
            // g, the gradient behind the activation.
            let mut g = t;
            extents.for_each_row(&mut g, |row, g| {
                for (g, &grad_y) in g.iter_mut().zip(&grad_y[extents.row(row)]) {
                    *g = Slope::of(input.activation, *g).gradient(T::from(grad_y));
                }
            });
            backward(input, &parts, &extents, &channels, &groups, z, &g)
        }),
        num_batches_tracked: input.num_batches_tracked.saturating_add(counts.into()),
        running_mean: running.as_ref().map(|running| rounded(&running.mean)),
        running_var: running.as_ref().map(|running| rounded(&running.var)),
    }
}

/// The gradients; `z` is the output of the channel part and gives its memory to its gradient, `g` is
/// the gradient behind the activation.
fn backward<T: Number>(
    input: &Input,
    parts: &Parts,
    extents: &Extents,
    channels: &[Normalizer<T>],
    groups: &[Normalizer<T>],
    z: Vec<T>,
    g: &[T],
) -> Gradients {
    // The group part: dz = (h - mean h - z-hat · mean(h · z-hat)) / std, where h = weight · g. With
    // the unbiased variance the second mean is over one element less.
    let mut sums = Vec::new();
    let mut dz = z;
    if parts.group {
        sums = extents.map(extents.affine, |parameter| {
            let mut sums = AffineSums::ZERO;
            for row in extents.rows_of_parameter(parameter) {
                let group = &groups[extents.group_of_row(row)];
                for i in extents.row(row) {
                    sums.add(g[i], group.normalize(dz[i]));
                }
            }
            sums
        });
        let affine = Affine::of(input.weight, input.bias);
        extents.for_each_group(&mut dz, |part, dz| {
            let group = &groups[part];
            let count = T::from(dz.len() as f64);
            let weight_of = |row| affine.at::<T>(extents.parameter_of_row(row)).0;
            let rows = || extents.rows_of_group(part);
            let (mut sum, mut product) = (T::ZERO, T::ZERO);
            for (row, z) in rows().zip(dz.chunks(extents.row_len)) {
                let weight = weight_of(row);
                for (&z, &g) in z.iter().zip(&g[extents.row(row)]) {
                    let h = weight * g;
                    sum += h;
                    product += h * group.normalize(z);
                }
            }
            let (mean, mean_product) = (sum / count, product / parts.group_divisor(count));
            for (row, z) in rows().zip(dz.chunks_mut(extents.row_len)) {
                let weight = weight_of(row);
                for (z, &g) in z.iter_mut().zip(&g[extents.row(row)]) {
                    let h = weight * g;
                    *z = group.inverse_std * (h - mean - group.normalize(*z) * mean_product);
                }
            }
        });
    } else {
        dz.copy_from_slice(g);
    }

    // The channel part, by the same formula with z for y; a constant mean and variance drop the
    // two middle terms.
    let mut bn_sums = Vec::new();
    if parts.channel != ChannelSource::None {
        bn_sums = extents.map(extents.channels, |c| {
            let mut sums = AffineSums::ZERO;
            for i in extents.rows_of_channel(c).flat_map(|row| extents.row(row)) {
                sums.add(dz[i], channels[c].normalize(T::from(input.x[i])));
            }
            sums
        });
        let affine = parts.channel_affine(input);
        let count = T::from((extents.samples * extents.row_len) as f64);
        extents.for_each_row(&mut dz, |row, dz| {
            let c = row % extents.channels;
            let channel = &channels[c];
            let scale = affine.at::<T>(c).0 * channel.inverse_std;
            let sums = &bn_sums[c];
            let (mean, mean_product) = (sums.bias.sum / count, sums.weight.sum / count);
            for (dz, &x) in dz.iter_mut().zip(&input.x[extents.row(row)]) {
                if parts.channel == ChannelSource::Batch {
                    let x_hat = channel.normalize(T::from(x));
                    *dz = *dz - mean - x_hat * mean_product;
                }
                *dz = scale * *dz;
            }
        });
    }

    // Without a group part the channel part's affine is the norm's only one.
    if !parts.group {
        sums = std::mem::take(&mut bn_sums);
    }
    let both = parts.are_both();
    let (bn_weight, bn_weight_scale) =
        values_and_scale(both && input.bn_weight.is_some(), &bn_sums, |s| s.weight);
    let (bn_bias, bn_bias_scale) =
        values_and_scale(both && input.bn_bias.is_some(), &bn_sums, |s| s.bias);
    let (weight, weight_scale) = values_and_scale(input.weight.is_some(), &sums, |s| s.weight);
    let (bias, bias_scale) = values_and_scale(input.bias.is_some(), &sums, |s| s.bias);
    Gradients {
        x: extents.map(dz.len(), |i| dz[i].to_f64()),
        residual: input.residual.map(|_| rounded(g)),
        bn_weight,
        bn_bias,
        weight,
        bias,
        bn_weight_scale,
        bn_bias_scale,
        weight_scale,
        bias_scale,
    }
}

/// What normalises each channel; moves the running statistics.
fn channel_statistics<T: Number>(
    input: &Input,
    parts: &Parts,
    extents: &Extents,
    mut running: Option<&mut Running<T>>,
) -> Vec<Normalizer<T>> {
    let eps = if parts.group { CHANNEL_EPS } else { input.eps };
    let count = T::from((extents.samples * extents.row_len) as f64);
    let values = |c: usize| {
        let rows = extents.rows_of_channel(c);
        rows.flat_map(|row| input.x[extents.row(row)].iter().map(|&x| T::from(x)))
    };
    if parts.channel == ChannelSource::Batch {
        let batch = extents.map(extents.channels, |c| Moments::of(|| values(c)));
        if let Some(running) = running.as_mut()
            && input.training
        {
            let speed = match input.stats {
                Stats::Batch {
                    momentum: Some(momentum),
                } => T::from(momentum),
                _ => T::ONE / T::from(input.num_batches_tracked.saturating_add(1) as f64),
            };
            for (c, batch) in batch.iter().enumerate() {
                let unbiased = batch.sum_of_squares / (count - T::ONE);
                running.move_to(c, batch.mean, unbiased, speed);
            }
        }
        let normalizer =
            |batch: &Moments<T>| Normalizer::new(batch.mean, batch.sum_of_squares / count, eps);
        return batch.iter().map(normalizer).collect();
    }
    let running = running.expect("the extents were checked for them");
    if let (ChannelSource::Estimate, Stats::Estimate { moving_speed }) =
        (parts.channel, input.stats)
    {
        let moments = extents.map(extents.channels, |c| {
            let second_moment = sum_of_squares(values(c), running.mean[c]) / count;
            (mean(|| values(c)), second_moment)
        });
        for (c, (mean, second_moment)) in moments.into_iter().enumerate() {
            running.move_to(c, mean, second_moment, T::from(moving_speed));
        }
    }
    let statistics = running.mean.iter().zip(&running.var);
    statistics
        .map(|(&mean, &var)| Normalizer::new(mean, var, eps))
        .collect()
}

/// The result of a call without elements.
fn without_elements(input: &Input, parts: &Parts) -> Output {
    let running = |values: Option<&[f32]>| {
        let values = values.filter(|_| parts.tracked)?;
        Some(values.iter().copied().map(f64::from).collect())
    };
    let zeros = |given: Option<&[f32]>| given.map(|given| vec![0.0; given.len()]);
    let both = parts.are_both();
    Output {
        y: Vec::new(),
        pre_activation: Vec::new(),
        running_mean: running(input.running_mean),
        running_var: running(input.running_var),
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

/// Where the statistics that the channel part normalises by come from.
#[derive(Clone, Copy, Debug, PartialEq)]
enum ChannelSource {
    /// There is no channel part.
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
    channel: ChannelSource,
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
                (ChannelSource::None, true, false)
            }
            NormKind::InstanceNorm if track && !training => (ChannelSource::Running, false, true),
            NormKind::InstanceNorm => (ChannelSource::None, true, track),
            NormKind::BatchNorm | NormKind::EstBn | NormKind::BcNorm => {
                let channel = match (estimate, training) {
                    (true, true) => ChannelSource::Estimate,
                    (false, true) => ChannelSource::Batch,
                    (false, false) if !track => ChannelSource::Batch,
                    (_, false) => ChannelSource::Running,
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
        self.group && self.channel != ChannelSource::None
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
    fn group_divisor<T: Number>(&self, count: T) -> T {
        match self.kind {
            NormKind::WeightStandardization => count - T::ONE,
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
    fn at<T: Number>(&self, index: usize) -> (T, T) {
        let value = |values: Option<&[f32]>, otherwise: T| {
            values.map_or(otherwise, |values| T::from(values[index]))
        };
        (value(self.weight, T::ONE), value(self.bias, T::ZERO))
    }
}

/// The running statistics.
struct Running<T> {
    mean: Vec<T>,
    var: Vec<T>,
}

impl<T: Number> Running<T> {
    /// As they are before the call.
    fn before(input: &Input) -> Self {
        let widened = |values: Option<&[f32]>| {
            let values = values.unwrap_or_default().iter();
            values.copied().map(T::from).collect()
        };
        Self {
            mean: widened(input.running_mean),
            var: widened(input.running_var),
        }
    }

    /// Moves those of channel `c`.
    fn move_to(&mut self, c: usize, mean: T, var: T, speed: T) {
        let moved = |old: T, new: T| (T::ONE - speed) * old + speed * new;
        self.mean[c] = moved(self.mean[c], mean);
        self.var[c] = moved(self.var[c], var);
    }

    /// InstanceNorm: towards the means, over the samples, of the instances' means and unbiased
    /// variances.
    fn move_by_instances(&mut self, input: &Input, extents: &Extents, instances: &[Moments<T>]) {
        let speed = match input.stats {
            Stats::Batch {
                momentum: Some(momentum),
            } => T::from(momentum),
            _ => T::ZERO,
        };
        for c in 0..extents.channels {
            let of_channel = || instances.iter().skip(c).step_by(extents.channels);
            let unbiased =
                |instance: &Moments<T>| instance.sum_of_squares / (instance.count - T::ONE);
            let new_mean = mean(|| of_channel().map(|instance| instance.mean));
            let new_var = mean(|| of_channel().map(unbiased));
            self.move_to(c, new_mean, new_var, speed);
        }
    }
}

/// What elements are normalised by.
struct Normalizer<T> {
    mean: T,
    inverse_std: T,
}

impl<T: Number> Normalizer<T> {
    /// The standard deviation is sqrt(variance + eps). Where that is 0, its reciprocal is taken to
    /// be 0.
    fn new(mean: T, variance: T, eps: f64) -> Self {
        let std = (variance + T::from(eps)).sqrt();
        let inverse_std = if std == T::ZERO {
            T::ZERO
        } else {
            T::ONE / std
        };
        Self { mean, inverse_std }
    }

    fn normalize(&self, value: T) -> T {
        (value - self.mean) * self.inverse_std
    }
}

/// The moments of some elements.
struct Moments<T> {
    count: T,
    mean: T,
    /// Of the deviations from the mean.
    sum_of_squares: T,
}

impl<T: Number> Moments<T> {
    /// Of at least one element.
    fn of<I: Iterator<Item = T>>(values: impl Fn() -> I) -> Self {
        let mean = mean(&values);
        Self {
            count: T::from(values().count() as f64),
            mean,
            sum_of_squares: sum_of_squares(values(), mean),
        }
    }
}

/// The mean of at least one element.
fn mean<T: Number, I: Iterator<Item = T>>(values: impl Fn() -> I) -> T {
    // Counting from the first element makes the mean of equal elements that element, to the bit,
    // and their variance 0. From an infinity one cannot count.
    let first = values().next().filter(|first| first.is_finite());
    let origin = first.unwrap_or(T::ZERO);
    let (mut sum, mut count) = (T::ZERO, 0usize);
    values().for_each(|value| {
        sum += value - origin;
        count += 1;
    });
    origin + sum / T::from(count as f64)
}

/// The sum of the squared distances from `centre`.
fn sum_of_squares<T: Number>(values: impl Iterator<Item = T>, centre: T) -> T {
    values.fold(T::ZERO, |sum, value| {
        let distance = value - centre;
        sum + distance * distance
    })
}

/// An activation's value.
fn activate<T: Number>(activation: Activation, t: T) -> T {
    match activation {
        Activation::None => t,
        Activation::Relu if t.to_f64() <= 0.0 => T::ZERO,
        Activation::Relu => t,
        Activation::Silu => t * sigmoid(t),
        other => unimplemented!("the activation {other:?}"),
    }
}

/// The slope of an activation. No mere factor, as 0 · NaN is not the 0 that ReLU makes of any
/// gradient.
enum Slope<T> {
    /// The gradient is 0.
    Zero,
    /// The gradient stays.
    One,
    /// The gradient is multiplied.
    Factor(T),
}

impl<T: Number> Slope<T> {
    /// The slope at `t`.
    fn of(activation: Activation, t: T) -> Self {
        match activation {
            Activation::None => Slope::One,
            Activation::Relu if t.to_f64() <= 0.0 => Slope::Zero,
            Activation::Relu => Slope::One,
            // 1 - sigmoid(t) is sigmoid(-t), which cancels nothing.
            Activation::Silu => Slope::Factor(sigmoid(t) * (T::ONE + t * sigmoid(-t))),
            other => unimplemented!("the activation {other:?}"),
        }
    }

    /// The gradient before the activation, given the one behind it.
    fn gradient(&self, grad_y: T) -> T {
        match *self {
            Slope::Zero => T::ZERO,
            Slope::One => grad_y,
            Slope::Factor(factor) => factor * grad_y,
        }
    }
}

/// 1 / (1 + exp(-t)), by the exponential that cannot overflow.
fn sigmoid<T: Number>(t: T) -> T {
    if t.to_f64() < 0.0 {
        let small = t.exp();
        small / (T::ONE + small)
    } else {
        T::ONE / (T::ONE + (-t).exp())
    }
}

/// Each value as an `f64`.
fn rounded<T: Number>(values: &[T]) -> Vec<f64> {
    values.iter().map(|value| value.to_f64()).collect()
}

/// A sum beside the sum of its terms' magnitudes.
#[derive(Clone, Copy)]
struct Sum<T> {
    sum: T,
    magnitude: f64,
}

impl<T: Number> Sum<T> {
    const ZERO: Self = Self {
        sum: T::ZERO,
        magnitude: 0.0,
    };

    fn add(&mut self, term: T) {
        self.sum += term;
        self.magnitude += term.to_f64().abs();
    }
}

/// The gradients of one entry of a weight and of a bias.
struct AffineSums<T> {
    weight: Sum<T>,
    bias: Sum<T>,
}

impl<T: Number> AffineSums<T> {
    const ZERO: Self = Self {
        weight: Sum::ZERO,
        bias: Sum::ZERO,
    };

    /// Adds what an element contributes.
    fn add(&mut self, gradient: T, normalized: T) {
        self.weight.add(gradient * normalized);
        self.bias.add(gradient);
    }
}

/// A parameter's gradient and its scale; none and 0 where it is not asked for.
fn values_and_scale<T: Number>(
    wanted: bool,
    sums: &[AffineSums<T>],
    of: impl Fn(&AffineSums<T>) -> Sum<T>,
) -> (Option<Vec<f64>>, f64) {
    if !wanted {
        return (None, 0.0);
    }
    let magnitudes: Vec<f64> = sums.iter().map(|sums| of(sums).magnitude).collect();
    let values = sums.iter().map(|sums| of(sums).sum.to_f64()).collect();
    (Some(values), scale(&magnitudes))
}

impl Extents {
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
}
