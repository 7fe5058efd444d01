//! How far f32 can be from the f64 oracle on a problem: bounds derived from the problem's data.
//!
//! Every quantity that the library computes passes fewer than 16 roundings of half a unit in the
//! last place, 2^-24 each, on its way from the input to the output, and 16 * 2^-24 < 1e-6. (Sums of
//! many terms round more often, but a sum's error grows with the square root of the count; over the
//! 1024 words of a lane it stays within the same bound.) Each rounding is relative to the value that
//! is rounded, so the error of an output is at most 1e-6 of the largest intermediate value behind
//! it, the output's "natural size". The golden metric divides by the largest output instead: where
//! intermediate values cancel, the bound grows by the ratio of the two.
//!
//! These cancellations belong to the mathematics, not to the formulas chosen:
//! * z less its group's mean, where a group is narrow beside the z of its rows ([`Kappa`]);
//! * dy less its projections on 1 and z-hat, and dz less its projections on 1 and x-hat: of groups
//!   or channels of a few elements, next to nothing is left;
//! * u = norm(x) and the residual, where their sum is small;
//! * what an activation's gradient takes from its argument: that of SiLU, whose slope changes by
//!   half of t's error; that of ReLU jumps, see [`expected_beside`].
//!
//! 16-bit tensors have the bound of f32, and what storing them takes besides: [`judge`].

use super::compare;
use super::problem::Problem;
use super::run;
use bcnorm::{Activation, ChannelStats, DType, Mode, NormKind};
use bcnorm_testkit::names::is_tensor;
use bcnorm_testkit::{oracle, storage};
use std::collections::BTreeMap;

/// 16 roundings of 2^-24 each.
pub const F32: f64 = 1e-6;

/// A row's mean is a pivot, one of its values, and an offset. Both are as large as the largest value
/// where that is the pivot of a chunk of so many values (and of the row, where there is no other
/// chunk): a sum is that many times the mean.
const CHUNK: usize = 16;

/// The oracle's own rounding, where nothing should be left: less than this of [`F32`].
const ORACLE: f64 = 1e-20;

/// The oracle's outputs, and their scales.
pub type Expected = BTreeMap<&'static str, (Vec<f64>, f64)>;

fn mean_var(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let count = values.clone().count() as f64;
    let mean = values.clone().sum::<f64>() / count;
    // Twice: the mean itself may be far larger than the deviations.
    let mean = mean + values.clone().map(|v| v - mean).sum::<f64>() / count;
    (
        mean,
        values.map(|v| (v - mean).powi(2)).sum::<f64>() / count,
    )
}

fn largest(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(0.0, f64::max)
}

fn reciprocal(sigma: f64) -> f64 {
    if sigma > 0.0 { 1.0 / sigma } else { 0.0 }
}

/// A bound for each output, in the golden metric; [`F32`] where nothing cancels.
pub fn bounds(problem: &Problem, expected: &Expected) -> BTreeMap<&'static str, f64> {
    let natural = natural_sizes(problem);
    expected
        .iter()
        .map(|(&name, (_, scale))| {
            let natural = natural.get(name).copied().unwrap_or(0.0);
            let ratio = if *scale > 0.0 { natural / scale } else { 1.0 };
            (name, F32 * ratio.max(1.0))
        })
        .collect()
}

/// An output of which the mathematics leaves exactly nothing (dx of groups of two elements, with eps 0) has no scale of
/// its own: its natural size is its scale, or any rounding would be infinitely wrong. Where that is 0, too, so is the output.
pub fn with_scales(problem: &Problem, mut expected: Expected) -> Expected {
    let natural = natural_sizes(problem);
    for (name, (_, scale)) in &mut expected {
        if *scale == 0.0 {
            *scale = natural.get(name).copied().unwrap_or(0.0);
        }
    }
    expected
}

/// What the oracle expects of a run that may have fallen on either side of ReLU's kink where f32 does
/// not tell them apart: where |t| is less than f32's error of t.
///
/// Where the activation leaves nothing of y, t is its scale: f32 may leave as much of it as that.
pub fn expected_beside(problem: &Problem, got: &run::Outputs) -> Expected {
    if problem.fusion.activation == Activation::None || problem.x.is_empty() {
        return run::expected(problem);
    }
    let natural = natural_sizes(problem)[TOTAL];
    let scale = oracle::scale(&problem.oracle().pre_activation);
    let ratio = if scale > 0.0 { natural / scale } else { 1.0 };
    let mut expected = run::expected_beside(problem, got, F32 * ratio.max(1.0));
    if let Some((_, scale)) = expected.get_mut("y")
        && *scale == 0.0
    {
        *scale = natural;
    }
    expected
}

const LOST_MEANS: f64 = 1.0;

/// Where f32 cannot tell on which side of ReLU's kink an element is.
pub fn beside_kink(problem: &Problem) -> Vec<bool> {
    if problem.x.is_empty() {
        return Vec::new();
    }
    let near = F32 * natural_sizes(problem)[TOTAL];
    let t = problem.oracle().pre_activation;
    t.iter().map(|t| t.abs() <= near).collect()
}

/// The name under which [`natural_sizes`] has t, what the activation is applied to.
const TOTAL: &str = "t";

/// What the channel part does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    None,
    Batch,
    Estimate,
    Running,
}

fn channel_part(p: &Problem) -> Part {
    let training = p.mode == Mode::Train;
    let tracked = p.norm.track_running_stats;
    match (p.norm.kind, p.norm.stats) {
        (NormKind::GroupNorm | NormKind::LayerNorm | NormKind::WeightStandardization, _) => {
            Part::None
        }
        (NormKind::InstanceNorm, _) if training || !tracked => Part::None,
        (NormKind::InstanceNorm, _) => Part::Running,
        (_, ChannelStats::Estimate { .. }) if training => Part::Estimate,
        (_, ChannelStats::Batch { .. }) if training || !tracked => Part::Batch,
        _ => Part::Running,
    }
}

/// Whether there is a group part.
fn has_group_part(p: &Problem, part: Part) -> bool {
    match p.norm.kind {
        NormKind::BatchNorm | NormKind::EstBn => false,
        NormKind::InstanceNorm => part == Part::None,
        _ => true,
    }
}

/// What of a channel matters.
struct Channel {
    /// Mean in force.
    mean: f64,
    /// 1 / sqrt(V + eps).
    rstd: f64,
    /// The batch's deviation.
    std: f64,
    /// Largest |x-hat|.
    x_hat: f64,
    /// Its root mean square.
    x_hat_rms: f64,
    /// What x-hat is multiplied by, and what is added.
    weight: f64,
    bias: f64,
}

/// What of a (sample, group) matters.
struct Kappa {
    /// How much larger the z of the group's rows are than the group's deviation: roundings of z
    /// count that much in z-hat.
    kappa: f64,
    /// Largest |z-hat|.
    z_hat: f64,
    /// Its root mean square.
    z_hat_rms: f64,
    /// 1 / sqrt(W + eps).
    rstd: f64,
    /// Of z.
    mean: f64,
}

/// An affine's value, or what it is without one.
fn value(values: &[f32], index: usize, without: f64) -> f64 {
    values.get(index).map_or(without, |&v| f64::from(v))
}

/// A problem, by rows.
struct Rows<'a> {
    p: &'a Problem,
    samples: usize,
    channels: usize,
    len: usize,
    part: Part,
}

impl Rows<'_> {
    fn of<'v>(
        &self,
        values: &'v [f32],
        n: usize,
        c: usize,
    ) -> impl Iterator<Item = f64> + Clone + 'v {
        let row = values
            .get((n * self.channels + c) * self.len..)
            .unwrap_or_default();
        row[..self.len.min(row.len())].iter().map(|&v| f64::from(v))
    }

    fn column(&self, c: usize) -> impl Iterator<Item = f64> + Clone + '_ {
        (0..self.samples).flat_map(move |n| self.of(&self.p.x, n, c))
    }

    /// Mean, deviation and scale of a channel, and its largest |x-hat|.
    fn channel(&self, c: usize, grouped: bool) -> Channel {
        let p = self.p;
        let (batch_mean, batch_var) = mean_var(self.column(c));
        let running = (
            value(&p.running_mean, c, 0.0),
            value(&p.running_var, c, 1.0),
        );
        let (mean, var) = match (self.part, p.norm.stats) {
            (Part::None, _) => (0.0, 1.0),
            (Part::Running, _) => running,
            (Part::Estimate, ChannelStats::Estimate { moving_speed }) => {
                let s = f64::from(moving_speed);
                let delta = batch_mean - running.0;
                (
                    running.0 + s * delta,
                    running.1 + s * (batch_var + delta * delta - running.1),
                )
            }
            _ => (batch_mean, batch_var),
        };
        let eps = if grouped { 1e-5 } else { f64::from(p.norm.eps) };
        let rstd = match self.part {
            Part::None => 1.0,
            _ => reciprocal((var + eps).sqrt()),
        };
        let (weight, bias) = match (self.part, grouped) {
            (Part::None, _) => (1.0, 0.0),
            (_, true) => (value(&p.bn_weight, c, 1.0), value(&p.bn_bias, c, 0.0)),
            (_, false) => (value(&p.weight, c, 1.0), value(&p.bias, c, 0.0)),
        };
        Channel {
            mean,
            rstd,
            std: batch_var.sqrt(),
            x_hat: largest(self.column(c).map(|x| (x - mean).abs())) * rstd,
            x_hat_rms: (batch_var + (batch_mean - mean).powi(2)).sqrt() * rstd,
            weight,
            bias,
        }
    }

    fn z<'v>(
        &'v self,
        n: usize,
        c: usize,
        channel: &Channel,
    ) -> impl Iterator<Item = f64> + Clone + 'v {
        let &Channel {
            mean,
            rstd,
            weight,
            bias,
            ..
        } = channel;
        let row = self.of(&self.p.x, n, c);
        row.map(move |x| (x - mean) * rstd * weight + bias)
    }

    /// A group of channels `cs` of a sample.
    fn group(&self, n: usize, cs: std::ops::Range<usize>, stats: &[Channel]) -> Kappa {
        let z = cs.clone().flat_map(|c| self.z(n, c, &stats[c]));
        let (mean, var) = mean_var(z.clone());
        let count = (cs.len() * self.len) as f64;
        let unbiased = match self.p.norm.kind {
            NormKind::WeightStandardization => var * count / (count - 1.0),
            _ => var,
        };
        let rstd = reciprocal((unbiased + f64::from(self.p.norm.eps)).sqrt());
        let first = stats[cs.start].bias;
        let widest = largest(cs.clone().map(|c| (stats[c].bias - first).abs()));
        let rows = cs.map(|c| {
            let (row_mean, row_var) = mean_var(self.of(&self.p.x, n, c));
            let channel = &stats[c];
            match self.part {
                // z is x, whose means are pairs: they are rounded relative to their differences.
                Part::None => (row_mean - mean).abs() + row_var.sqrt(),
                _ => {
                    let w = channel.weight.abs() * channel.rstd;
                    w * ((row_mean - channel.mean).abs() + channel.std)
                }
            }
        });
        Kappa {
            kappa: (largest(rows) + 2.0 * widest) * rstd,
            z_hat: largest(z.map(|z| (z - mean).abs())) * rstd,
            z_hat_rms: var.sqrt() * rstd,
            rstd,
            mean,
        }
    }
}

/// The largest of values and their root mean square; of their deviations from the mean where a
/// common mean drops out of what is made of them, in differences from a pivot.
fn sizes(values: impl Iterator<Item = f64> + Clone, mean_drops_out: bool) -> (f64, f64) {
    let (mean, var) = mean_var(values.clone());
    let (origin, square) = match mean_drops_out {
        true => (mean, var),
        false => (0.0, var + mean * mean),
    };
    (largest(values.map(|v| (v - origin).abs())), square.sqrt())
}

/// Largest intermediate value behind each output.
fn natural_sizes(p: &Problem) -> BTreeMap<&'static str, f64> {
    let tensor = p.tensor();
    let part = channel_part(p);
    let rows = Rows {
        p,
        samples: tensor.num_samples() as usize,
        channels: tensor.num_channels() as usize,
        len: tensor.row_len() as usize,
        part,
    };
    if tensor.elements() == 0 {
        return BTreeMap::new();
    }
    let &Rows {
        samples,
        channels,
        len,
        ..
    } = &rows;
    let grouped = has_group_part(p, part);
    let groups = if grouped { p.norm.num_groups } else { channels };
    let size = channels / groups;
    let per_channel = p.norm.kind != NormKind::BcNorm || p.norm.per_channel_affine;
    let affine = |c: usize| if per_channel { c } else { c / size };
    let stats: Vec<Channel> = (0..channels).map(|c| rows.channel(c, grouped)).collect();

    // Forward: u = norm(x), then t = u + residual.
    let mut u = 0.0f64;
    let mut kappas = Vec::new();
    for n in 0..samples {
        for g in 0..groups {
            let cs = g * size..(g + 1) * size;
            if !grouped {
                let channel = &stats[g];
                u = u.max(channel.weight.abs() * channel.x_hat + channel.bias.abs());
                continue;
            }
            let group = rows.group(n, cs.clone(), &stats);
            let z_hat = group.z_hat * (1.0 + group.kappa) + group.kappa;
            for c in cs {
                let w = value(&p.weight, affine(c), 1.0).abs();
                u = u.max(w * z_hat + value(&p.bias, affine(c), 0.0).abs());
            }
            kappas.push(group);
        }
    }
    let t = u + largest(p.residual.iter().map(|&v| f64::from(v).abs()));

    // Backward. Without an activation g is dy, exactly; with ReLU it is dy or 0. SiLU's slope is at
    // most 1.1 and changes by at most half of what t does.
    let plain = p.fusion.activation == Activation::None;
    let (slope, change) = match p.fusion.activation {
        Activation::Silu => (1.1, 1.1 + 0.5 * t),
        _ => (1.0, 1.0),
    };
    let mut natural = BTreeMap::from([(TOTAL, t), ("y", slope * t)]);
    natural.insert(
        "grad_residual",
        change * largest(p.grad_y.iter().map(|&v| f64::from(v).abs())),
    );
    let mut weight = vec![0.0; p.norm.affine_len()];
    let mut bias = vec![0.0; p.norm.affine_len()];
    // Size of dz of every row: at its largest, and on average.
    let mut dz = vec![(0.0, 0.0); samples * channels];
    for n in 0..samples {
        for c in 0..channels {
            let g = rows.of(&p.grad_y, n, c).map(f64::abs);
            let chunk = len.min(CHUNK) as f64 * largest(g.clone());
            bias[affine(c)] += change * g.sum::<f64>().max(chunk);
        }
        for (g, group) in kappas.iter().skip(n * groups).take(groups).enumerate() {
            let cs = g * size..(g + 1) * size;
            // What the projections are made of: dy times the affine's weight.
            let grads = cs.clone().flat_map(|c| {
                let w = value(&p.weight, affine(c), 1.0);
                rows.of(&p.grad_y, n, c).map(move |dy| w * dy)
            });
            let (most, rms) = sizes(grads, plain);
            // What they subtract is as large as dy at least where z-hat is.
            let most = most.max(group.z_hat * rms);
            let scale = change * group.rstd * (1.0 + group.kappa);
            for c in cs.clone() {
                dz[n * channels + c] = (scale * most, scale * rms);
            }
            if !per_channel {
                let grads = cs.flat_map(|c| rows.of(&p.grad_y, n, c));
                let (_, rms) = sizes(grads, plain);
                let z_hat = group.z_hat_rms + group.kappa;
                weight[g] += change * (size * len) as f64 * rms * z_hat;
                continue;
            }
            for c in cs {
                // The mean of dy stays: only the group's z sums to 0.
                let (_, rms) = sizes(rows.of(&p.grad_y, n, c), false);
                let z = rows.z(n, c, &stats[c]).map(|z| z - group.mean);
                let z_hat = sizes(z, false).1 * group.rstd + group.kappa;
                weight[c] += change * len as f64 * rms * z_hat;
            }
        }
    }
    let steepest = largest(kappas.iter().map(|group| group.rstd)).max(1.0);
    let flows = part == Part::Batch;
    if !grouped {
        for (c, channel) in stats.iter().enumerate() {
            let all = (0..samples).flat_map(|n| rows.of(&p.grad_y, n, c));
            let origin = if plain && flows { mean_var(all).0 } else { 0.0 };
            for n in 0..samples {
                let centred = rows.of(&p.grad_y, n, c).map(|dy| dy - origin);
                let (most, rms) = sizes(centred, false);
                let mean = LOST_MEANS * origin.abs();
                dz[n * channels + c] = (change * most + mean, change * rms);
                let (_, rms) = sizes(rows.of(&p.grad_y, n, c), false);
                weight[c] += change * len as f64 * rms * channel.x_hat_rms;
            }
        }
    }

    let (mut x, mut bn_weight, mut bn_bias) = (0.0f64, 0.0f64, 0.0f64);
    for (c, channel) in stats.iter().enumerate() {
        let of_rows = || (0..samples).map(|n| dz[n * channels + c]);
        let scale = channel.weight.abs() * channel.rstd;
        // The channel's two means are at most the root mean square.
        let rms = (of_rows().map(|(_, rms)| rms * rms).sum::<f64>() / samples as f64).sqrt();
        let means = if flows {
            rms * (1.0 + channel.x_hat)
        } else {
            0.0
        };
        x = x.max(scale * (largest(of_rows().map(|(most, _)| most)) + means));
        // Equal values of dy leave nothing of themselves.
        let whole = (0..samples).flat_map(|n| rows.of(&p.grad_y, n, c));
        let least = ORACLE * steepest * largest(whole.map(f64::abs));
        x = x.max(scale * least);
        let sum = len as f64 * of_rows().map(|(_, rms)| rms).sum::<f64>();
        bn_bias = bn_bias.max(sum + least);
        bn_weight = bn_weight.max((sum + least) * channel.x_hat_rms);
    }
    natural.extend([
        ("grad_x", x),
        ("grad_bn.weight", bn_weight),
        ("grad_bn.bias", bn_bias),
        ("grad_weight", largest(weight.into_iter())),
        ("grad_bias", largest(bias.into_iter())),
    ]);
    // The running mean and the batch's may be of opposite signs.
    let m = momentum(p);
    let means = (0..channels).map(|c| {
        let (mean, var) = mean_var(rows.column(c));
        (1.0 - m) * value(&p.running_mean, c, 0.0).abs() + m * (mean.abs() + var.sqrt())
    });
    let means = largest(means);
    natural.extend([
        ("bn.running_mean_after", means),
        ("running_mean_after", means),
    ]);
    natural
}

/// The batch's weight in the running statistics.
fn momentum(p: &Problem) -> f64 {
    match p.norm.stats {
        _ if p.mode == Mode::Eval => 0.0,
        ChannelStats::Batch { momentum: Some(m) } => m.into(),
        ChannelStats::Estimate { moving_speed } => moving_speed.into(),
        _ if p.norm.kind == NormKind::InstanceNorm => 0.0,
        _ => 1.0 / (1.0 + f64::from(p.num_batches_tracked)),
    }
}

/// The worst error of a run as a fraction of its bound, and where.
#[derive(Debug, Clone, Default)]
pub struct Worst {
    pub fraction: f64,
    pub what: String,
}

impl Worst {
    pub fn take(&mut self, fraction: f64, what: impl FnOnce() -> String) {
        if fraction > self.fraction {
            *self = Worst {
                fraction,
                what: what(),
            };
        }
    }
}

/// Asserts that every output is within its bound of the oracle; returns the worst error. Of f32
/// tensors.
pub fn assert_outputs(
    what: &str,
    got: &run::Outputs,
    expected: &Expected,
    bounds: &BTreeMap<&'static str, f64>,
) -> Worst {
    let mut worst = Worst::default();
    assert_eq!(got.len(), expected.len(), "{what}: outputs are missing");
    for (name, values) in got {
        let (expected, scale) = &expected[name];
        let what = format!("{what}: {name}");
        let error = compare::assert_close(&what, values, expected, *scale, bounds[name]);
        worst.take(error / bounds[name], || {
            format!("{what}: {error:.1e} of {:.1e}", bounds[name])
        });
    }
    worst
}

/// The same of tensors of any type, by [`judge`].
pub fn assert_problem(
    what: &str,
    problem: &Problem,
    got: &run::Outputs,
    expected: &Expected,
    bounds: &BTreeMap<&'static str, f64>,
) -> Worst {
    judge_problem(problem, got, expected, bounds).unwrap_or_else(|wrong| panic!("{what}: {wrong}"))
}

/// What is wrong with a run, or the worst that is not.
pub fn judge_problem(
    problem: &Problem,
    got: &run::Outputs,
    expected: &Expected,
    bounds: &BTreeMap<&'static str, f64>,
) -> Result<Worst, String> {
    if !got.keys().eq(expected.keys()) {
        let names = |names: Vec<&&str>| format!("{names:?}");
        let (got, expected) = (got.keys().collect(), expected.keys().collect());
        return Err(format!(
            "the outputs are {}, not {}",
            names(got),
            names(expected)
        ));
    }
    let mut worst = Worst::default();
    for (name, values) in got {
        let (expected, scale) = &expected[name];
        let fraction = judge(problem.dtype, name, values, expected, *scale, bounds[name])?;
        worst.take(fraction, || {
            format!("{name}, {fraction:.2} of {:.1e}", bounds[name])
        });
    }
    Ok(worst)
}

/// How much of its bound an output took, or that it is beyond it.
///
/// Of a 16-bit tensor every element must be what some value rounds to that is within the bound of the
/// exact result: the correctly rounded result, or one next to it where the middle between the two is
/// as near as f32's error. ([`compare::judge`] counts elements that are not the correctly rounded result
/// instead, 1 in 100; with a larger bound there may be more, and equal elements are wrong together.)
pub fn judge(
    dtype: DType,
    name: &str,
    got: &[f32],
    expected: &[f64],
    scale: f64,
    bound: f64,
) -> Result<f64, String> {
    let finding = compare::judge(dtype, name, got, expected, scale, bound);
    if dtype == DType::F32 || !is_tensor(name) {
        return finding.wrong.clone().map_or(Ok(finding.fraction()), Err);
    }
    let f32_error = bound * scale;
    if got.len() != expected.len() || !f32_error.is_finite() {
        return Err(finding.wrong.unwrap_or_default());
    }
    let mut worst = 0.0f64;
    for (i, (&got, &expected)) in got.iter().zip(expected).enumerate() {
        let nearest = storage::round(expected, dtype);
        if storage::ulps(got, nearest, dtype) == 0 {
            continue;
        }
        let [low, high] =
            [-1.0, 1.0].map(|sign| storage::round(expected + sign * f32_error, dtype));
        // False for a NaN.
        if !(low <= got && got <= high) {
            return Err(format!(
                "{name}: element {i} is {got:e}, expected {expected:e}, {low:e} to {high:e} in {}",
                dtype.name()
            ));
        }
        let beyond = (f64::from(got) - expected).abs() - storage::ulp(nearest, dtype) / 2.0;
        if beyond.is_finite() {
            worst = worst.max(beyond / f32_error);
        }
    }
    Ok(worst)
}
