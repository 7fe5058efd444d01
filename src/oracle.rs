//! What every other implementation is measured against: Batch-Channel Normalization, forward and
//! backward, as the definition reads.
//!
//! # Source
//! S. Qiao, H. Wang, C. Liu, W. Shen, A. Yuille, *Rethinking Normalization and Elimination
//! Singularity in Neural Networks*, [arXiv:1911.09738](https://arxiv.org/abs/1911.09738), and the
//! PyTorch module its authors published (`BCNorm` over `BatchNorm2d` or `EstBN`). The backward
//! formulas are those of Ioffe and Szegedy, [arXiv:1502.03167](https://arxiv.org/abs/1502.03167),
//! applied twice: the group part gives a gradient tensor, the channel part turns it into the
//! input's.
//!
//! # What it computes
//! The input `x` has shape (N, C, L): N samples, C channels, L the product of the spatial
//! dimensions. With `mean` and `var` of each channel over (N, L), or the running ones, and with
//! the group (n, g) being sample n's C/G channels from g·C/G on:
//!
//! ```text
//! x-hat = (x - mean) / sqrt(var + 1e-5)         per channel
//! z     = bn_weight · x-hat + bn_bias           per channel
//! z-hat = (z - mean z) / sqrt(var z + eps)      per (sample, group), over C/G · L elements
//! y     = weight · z-hat + bias                 per group
//! ```
//!
//! # How far to trust it
//! It shares no code and no method with the library's stages: no row tables, no folds, no
//! coefficients, a loop over the tensor for each line above. All of it runs in double-double
//! arithmetic (about 32 digits) and is rounded to `f64` once, at the end. So the results are good
//! to about 1e-15 of their scale even where the mean is 1e7 standard deviations, or where a
//! gradient is what remains of terms 1e5 times its size. An `f64` alone would leave 1e-9 and 1e-11
//! there.
//!
//! It is single-threaded and needs memory for four `f64` copies of the input.

#![forbid(unsafe_code)]

mod double;

use double::Double;
use std::ops::Range;

/// The epsilon of the channel part: PyTorch's default, a constant in the reference.
const CHANNEL_EPS: f64 = 1e-5;

/// Where the channel part takes its mean and variance from, and how it updates the running ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Stats {
    /// `BatchNorm2d`. In training the batch's statistics normalise, the gradient flows through
    /// them, and the running ones move towards them.
    Batch {
        /// The weight of the new value in the running one; `None` averages over all batches so
        /// far, with weight 1 / (batches tracked, this one included).
        momentum: Option<f64>,
    },
    /// `EstBN`. In training the running statistics move first and then normalise; no gradient
    /// flows through them.
    Estimate {
        /// The weight of the new value in the running one, 0 at the start of a training.
        moving_speed: f64,
    },
}

/// One call of Batch-Channel Normalization. Tensors are in row-major order.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// N, the number of samples. May be 0.
    pub num_samples: usize,
    /// C, the number of channels.
    pub num_channels: usize,
    /// L, the product of the spatial dimensions (1 if there are none). May be 0.
    pub row_len: usize,
    /// G, the number of groups, a divisor of C.
    pub num_groups: usize,
    /// The epsilon of the group part. The channel part's is always 1e-5.
    pub eps: f64,
    /// The kind of channel statistics.
    pub stats: Stats,
    /// Training (true) or evaluation (false), where the running statistics are used as they are.
    pub training: bool,
    /// The input, (N, C, L).
    pub x: &'a [f32],
    /// The gradient of the loss with respect to `y`, (N, C, L); `None` skips the backward pass.
    pub grad_y: Option<&'a [f32]>,
    /// The channel part's weight, (C).
    pub bn_weight: &'a [f32],
    /// The channel part's bias, (C).
    pub bn_bias: &'a [f32],
    /// The group part's weight, (G).
    pub weight: &'a [f32],
    /// The group part's bias, (G).
    pub bias: &'a [f32],
    /// The channels' running mean before the call, (C).
    pub running_mean: &'a [f32],
    /// The channels' running variance before the call, (C).
    pub running_var: &'a [f32],
    /// How many training batches came before this call.
    pub num_batches_tracked: u64,
}

/// What one call yields.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// The result, (N, C, L).
    pub y: Vec<f64>,
    /// The channels' running mean after the call, (C).
    pub running_mean: Vec<f64>,
    /// The channels' running variance after the call, (C).
    pub running_var: Vec<f64>,
    /// One more than before in training with [`Stats::Batch`], otherwise as before.
    pub num_batches_tracked: u64,
    /// The gradients, if [`Input::grad_y`] was given.
    pub gradients: Option<Gradients>,
}

/// The gradients of the loss, and the scales that errors of the parameters' gradients are
/// divided by.
///
/// A parameter's gradient is a sum that may cancel to nothing, so its size says little about the
/// error to expect of it. Its scale is the largest sum of *absolute* terms behind one entry of
/// the tensor. For the other tensors see [`scale`].
#[derive(Clone, Debug, PartialEq)]
pub struct Gradients {
    /// With respect to the input, (N, C, L).
    pub x: Vec<f64>,
    /// With respect to the channel part's weight, (C): the sums of dz · x-hat.
    pub bn_weight: Vec<f64>,
    /// With respect to the channel part's bias, (C): the sums of dz.
    pub bn_bias: Vec<f64>,
    /// With respect to the group part's weight, (G): the sums of dy · z-hat.
    pub weight: Vec<f64>,
    /// With respect to the group part's bias, (G): the sums of dy.
    pub bias: Vec<f64>,
    /// The scale of `bn_weight`.
    pub bn_weight_scale: f64,
    /// The scale of `bn_bias`.
    pub bn_bias_scale: f64,
    /// The scale of `weight`.
    pub weight_scale: f64,
    /// The scale of `bias`.
    pub bias_scale: f64,
}

/// Batch-Channel Normalization, forward and, with [`Input::grad_y`], backward.
///
/// Cases that the formulas leave open:
/// * A group of one element has variance 0 and yields its bias.
/// * Where variance + eps is 0, the reciprocal standard deviation is taken to be 0: the output is
///   the bias, and the gradients of everything but the bias are 0.
/// * Without elements (N, C or L is 0) `y` is empty, the gradients are zeros and the state stays
///   as it is.
/// * One value per channel in training with [`Stats::Batch`], which PyTorch and this library's
///   layers refuse, makes the running variance NaN (its unbiased estimate is 0 / 0).
/// * NaN and infinities go where the formulas take them; so do a negative or NaN epsilon, momentum
///   or speed.
///
/// # Panics
/// When G is 0 or does not divide C, or when a slice does not have the length that its field
/// states.
pub fn bcnorm(input: &Input) -> Output {
    let shape = Shape::of(input);
    if shape.len() == 0 {
        return without_elements(input);
    }

    let channels = channel_statistics(input, &shape);

    // z, the output of the channel part.
    let mut z = vec![Double::ZERO; shape.len()];
    for (c, channel) in channels.iter().enumerate() {
        let weight = Double::from(input.bn_weight[c]);
        let bias = Double::from(input.bn_bias[c]);
        for i in shape.channel(c) {
            z[i] = weight * channel.normalize(Double::from(input.x[i])) + bias;
        }
    }

    // y, the output of the group part.
    let mut y = vec![0.0; shape.len()];
    let mut groups = Vec::with_capacity(shape.samples * shape.groups);
    for n in 0..shape.samples {
        for g in 0..shape.groups {
            let elements = shape.group(n, g);
            let group = Moments::of(|| z[elements.clone()].iter().copied(), input.eps);
            let weight = Double::from(input.weight[g]);
            let bias = Double::from(input.bias[g]);
            for i in elements {
                y[i] = (weight * group.normalize(z[i]) + bias).to_f64();
            }
            groups.push(group);
        }
    }

    let tracked = u64::from(input.training && matches!(input.stats, Stats::Batch { .. }));
    Output {
        y,
        running_mean: channels.iter().map(|c| c.running_mean.to_f64()).collect(),
        running_var: channels.iter().map(|c| c.running_var.to_f64()).collect(),
        num_batches_tracked: input.num_batches_tracked.saturating_add(tracked),
        gradients: input
            .grad_y
            .map(|grad_y| backward(input, &shape, &channels, &groups, z, grad_y)),
    }
}

/// The gradients; `z` is the output of the channel part and gives its memory to its gradient.
fn backward(
    input: &Input,
    shape: &Shape,
    channels: &[Channel],
    groups: &[Moments],
    z: Vec<Double>,
    grad_y: &[f32],
) -> Gradients {
    // The group part: dz = (g - mean g - z-hat · mean(g · z-hat)) / std, where g = weight · dy.
    let mut weight = vec![Sum::ZERO; shape.groups];
    let mut bias = vec![Sum::ZERO; shape.groups];
    let mut dz = z;
    for n in 0..shape.samples {
        for g in 0..shape.groups {
            let group = &groups[n * shape.groups + g];
            let group_weight = Double::from(input.weight[g]);
            let elements = shape.group(n, g);
            let count = Double::from(elements.len() as f64);
            let (mut sum, mut product) = (Double::ZERO, Double::ZERO);
            for i in elements.clone() {
                let dy = Double::from(grad_y[i]);
                let z_hat = group.normalize(dz[i]);
                weight[g].add(dy * z_hat);
                bias[g].add(dy);
                sum += group_weight * dy;
                product += group_weight * dy * z_hat;
            }
            let (mean, mean_product) = (sum / count, product / count);
            for i in elements {
                let z_hat = group.normalize(dz[i]);
                let g = group_weight * Double::from(grad_y[i]);
                dz[i] = group.inverse_std * (g - mean - z_hat * mean_product);
            }
        }
    }

    // The channel part, by the same formula with z for y; a constant mean and variance drop the
    // two middle terms.
    let through_statistics = input.training && matches!(input.stats, Stats::Batch { .. });
    let count = Double::from((shape.samples * shape.row_len) as f64);
    let mut x = vec![0.0; shape.len()];
    let mut bn_weight = vec![Sum::ZERO; shape.channels];
    let mut bn_bias = vec![Sum::ZERO; shape.channels];
    for (c, channel) in channels.iter().enumerate() {
        for i in shape.channel(c) {
            bn_weight[c].add(dz[i] * channel.normalize(Double::from(input.x[i])));
            bn_bias[c].add(dz[i]);
        }
        let scale = Double::from(input.bn_weight[c]) * channel.inverse_std;
        let (mean, mean_product) = (bn_bias[c].sum / count, bn_weight[c].sum / count);
        for i in shape.channel(c) {
            let mut centred = dz[i];
            if through_statistics {
                let x_hat = channel.normalize(Double::from(input.x[i]));
                centred = centred - mean - x_hat * mean_product;
            }
            x[i] = (scale * centred).to_f64();
        }
    }

    Gradients {
        x,
        bn_weight_scale: Sum::scale(&bn_weight),
        bn_bias_scale: Sum::scale(&bn_bias),
        weight_scale: Sum::scale(&weight),
        bias_scale: Sum::scale(&bias),
        bn_weight: Sum::values(&bn_weight),
        bn_bias: Sum::values(&bn_bias),
        weight: Sum::values(&weight),
        bias: Sum::values(&bias),
    }
}

/// The statistics that normalise each channel, and the running ones after the call.
fn channel_statistics(input: &Input, shape: &Shape) -> Vec<Channel> {
    let one = Double::from(1.0);
    let count = (shape.samples * shape.row_len) as f64;
    (0..shape.channels)
        .map(|c| {
            let running_mean = Double::from(input.running_mean[c]);
            let running_var = Double::from(input.running_var[c]);
            let values = || shape.channel(c).map(|i| Double::from(input.x[i]));
            let moved = |old: Double, new: Double, speed: Double| (one - speed) * old + speed * new;
            match input.stats {
                _ if !input.training => Channel {
                    mean: running_mean,
                    inverse_std: inverse_std(running_var, CHANNEL_EPS),
                    running_mean,
                    running_var,
                },
                Stats::Batch { momentum } => {
                    let batch = Moments::of(values, CHANNEL_EPS);
                    let unbiased = batch.sum_of_squares / Double::from(count - 1.0);
                    let speed = match momentum {
                        Some(momentum) => Double::from(momentum),
                        None => {
                            let tracked = input.num_batches_tracked.saturating_add(1);
                            one / Double::from(tracked as f64)
                        }
                    };
                    Channel {
                        mean: batch.mean,
                        inverse_std: batch.inverse_std,
                        running_mean: moved(running_mean, batch.mean, speed),
                        running_var: moved(running_var, unbiased, speed),
                    }
                }
                Stats::Estimate { moving_speed } => {
                    let speed = Double::from(moving_speed);
                    let second_moment =
                        sum_of_squares(values(), running_mean) / Double::from(count);
                    let running_mean = moved(running_mean, mean(values), speed);
                    let running_var = moved(running_var, second_moment, speed);
                    Channel {
                        mean: running_mean,
                        inverse_std: inverse_std(running_var, CHANNEL_EPS),
                        running_mean,
                        running_var,
                    }
                }
            }
        })
        .collect()
}

/// The result of a call without elements.
fn without_elements(input: &Input) -> Output {
    let widened = |values: &[f32]| values.iter().copied().map(f64::from).collect();
    Output {
        y: Vec::new(),
        running_mean: widened(input.running_mean),
        running_var: widened(input.running_var),
        num_batches_tracked: input.num_batches_tracked,
        gradients: input.grad_y.map(|_| Gradients {
            x: Vec::new(),
            bn_weight: vec![0.0; input.num_channels],
            bn_bias: vec![0.0; input.num_channels],
            weight: vec![0.0; input.num_groups],
            bias: vec![0.0; input.num_groups],
            bn_weight_scale: 0.0,
            bn_bias_scale: 0.0,
            weight_scale: 0.0,
            bias_scale: 0.0,
        }),
    }
}

/// What a channel is normalised by, and its running statistics after the call.
struct Channel {
    mean: Double,
    inverse_std: Double,
    running_mean: Double,
    running_var: Double,
}

impl Channel {
    fn normalize(&self, x: Double) -> Double {
        (x - self.mean) * self.inverse_std
    }
}

/// The moments of some elements.
struct Moments {
    mean: Double,
    /// Of the deviations from the mean.
    sum_of_squares: Double,
    /// From the biased variance.
    inverse_std: Double,
}

impl Moments {
    /// Of at least one element.
    fn of<I: Iterator<Item = Double>>(values: impl Fn() -> I, eps: f64) -> Self {
        let count = Double::from(values().count() as f64);
        let mean = mean(&values);
        let sum_of_squares = sum_of_squares(values(), mean);
        Self {
            mean,
            sum_of_squares,
            inverse_std: inverse_std(sum_of_squares / count, eps),
        }
    }

    fn normalize(&self, value: Double) -> Double {
        (value - self.mean) * self.inverse_std
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

/// 1 / sqrt(variance + eps), and 0 where that is 1 / 0.
fn inverse_std(variance: Double, eps: f64) -> Double {
    let std = (variance + Double::from(eps)).sqrt();
    if std == Double::ZERO {
        Double::ZERO
    } else {
        Double::from(1.0) / std
    }
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

    fn values(sums: &[Self]) -> Vec<f64> {
        sums.iter().map(|sum| sum.sum.to_f64()).collect()
    }

    fn scale(sums: &[Self]) -> f64 {
        let magnitudes: Vec<f64> = sums.iter().map(|sum| sum.magnitude).collect();
        scale(&magnitudes)
    }
}

/// The extents of a call and the elements of its parts.
struct Shape {
    samples: usize,
    channels: usize,
    row_len: usize,
    groups: usize,
}

impl Shape {
    /// Checks what [`bcnorm`] documents.
    fn of(input: &Input) -> Self {
        let (samples, channels) = (input.num_samples, input.num_channels);
        let (row_len, groups) = (input.row_len, input.num_groups);
        assert!(
            groups > 0 && channels.is_multiple_of(groups),
            "num_groups is {groups}: it must be at least 1 and divide num_channels, {channels}"
        );
        let elements = samples
            .checked_mul(channels)
            .and_then(|rows| rows.checked_mul(row_len));
        let check = |name: &str, len: usize, expected: Option<usize>| {
            assert!(
                Some(len) == expected,
                "{name} has {len} elements: it needs {expected:?} for {samples} samples of \
                 {channels} channels of {row_len} elements in {groups} groups"
            );
        };
        check("x", input.x.len(), elements);
        if let Some(grad_y) = input.grad_y {
            check("grad_y", grad_y.len(), elements);
        }
        check("bn_weight", input.bn_weight.len(), Some(channels));
        check("bn_bias", input.bn_bias.len(), Some(channels));
        check("weight", input.weight.len(), Some(groups));
        check("bias", input.bias.len(), Some(groups));
        check("running_mean", input.running_mean.len(), Some(channels));
        check("running_var", input.running_var.len(), Some(channels));
        Self {
            samples,
            channels,
            row_len,
            groups,
        }
    }

    /// The number of elements.
    fn len(&self) -> usize {
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

    /// Where group `g` of sample `n` lies: its channels are neighbours.
    fn group(&self, n: usize, g: usize) -> Range<usize> {
        let len = self.channels / self.groups * self.row_len;
        let start = (n * self.groups + g) * len;
        start..start + len
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
