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
//! Two cancellations belong to the mathematics, not to the formulas chosen:
//! * z less its group's mean, where a group is narrow beside the z of its rows ([`Kappa`]);
//! * dy less its projections on 1 and z-hat, and dz less its projections on 1 and x-hat: of groups
//!   or channels of a few elements, next to nothing is left.

use super::problem::Problem;
use bcnorm::{ChannelStats, Mode};
use std::collections::BTreeMap;

/// 16 roundings of 2^-24 each.
pub const F32: f64 = 1e-6;

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

/// What of a channel matters.
struct Channel {
    /// Mean in force.
    mean: f64,
    /// 1 / sqrt(V + 1e-5).
    rstd: f64,
    /// The batch's deviation.
    std: f64,
    /// Largest |x-hat|.
    x_hat: f64,
    /// Its root mean square.
    x_hat_rms: f64,
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
}

/// Largest intermediate value behind each output.
fn natural_sizes(p: &Problem) -> BTreeMap<&'static str, f64> {
    let tensor = p.tensor();
    let (samples, channels) = (
        tensor.num_samples() as usize,
        tensor.num_channels() as usize,
    );
    let (len, groups) = (tensor.row_len() as usize, p.norm.num_groups);
    let size = channels / groups;
    let row = |n: usize, c: usize| &p.x[(n * channels + c) * len..][..len];
    let column = |c: usize| {
        (0..samples)
            .flat_map(move |n| row(n, c))
            .map(|&x| f64::from(x))
    };

    // Mean, deviation and scale of every channel, and its largest |x-hat|.
    let mut stats = Vec::new();
    for c in 0..channels {
        let (batch_mean, batch_var) = mean_var(column(c));
        let running = (f64::from(p.running_mean[c]), f64::from(p.running_var[c]));
        let (mean, var) = match (p.mode, p.norm.stats) {
            (Mode::Eval, _) => running,
            (Mode::Train, ChannelStats::Estimate { moving_speed }) => {
                let s = f64::from(moving_speed);
                let delta = batch_mean - running.0;
                (
                    running.0 + s * delta,
                    running.1 + s * (batch_var + delta * delta - running.1),
                )
            }
            _ => (batch_mean, batch_var),
        };
        let rstd = 1.0 / (var + 1e-5).sqrt();
        stats.push(Channel {
            mean,
            rstd,
            std: batch_var.sqrt(),
            x_hat: largest(column(c).map(|x| (x - mean).abs())) * rstd,
            x_hat_rms: (batch_var + (batch_mean - mean).powi(2)).sqrt() * rstd,
        });
    }

    let mut y = 0.0f64;
    let mut weight = vec![0.0; groups];
    // Size of dz of every row: at its largest, and on average.
    let mut dz = vec![(0.0, 0.0); samples * channels];
    for n in 0..samples {
        for (g, weight) in weight.iter_mut().enumerate() {
            let cs = g * size..(g + 1) * size;
            let z = cs.clone().flat_map(|c| {
                let Channel { mean, rstd, .. } = stats[c];
                let (w, b) = (f64::from(p.bn_weight[c]), f64::from(p.bn_bias[c]));
                row(n, c)
                    .iter()
                    .map(move |&x| (f64::from(x) - mean) * rstd * w + b)
            });
            let (mean, var_z) = mean_var(z.clone());
            let sigma = (var_z + f64::from(p.norm.eps)).sqrt();
            let rstd = if sigma > 0.0 { 1.0 / sigma } else { 0.0 };
            let biases = cs.clone().map(|c| f64::from(p.bn_bias[c]));
            let widest = largest(
                biases
                    .clone()
                    .map(|b| (b - f64::from(p.bn_bias[cs.start])).abs()),
            );
            let rows = cs.clone().map(|c| {
                let Channel {
                    mean, rstd, std, ..
                } = stats[c];
                let row_mean = row(n, c).iter().map(|&x| f64::from(x)).sum::<f64>() / len as f64;
                let w = f64::from(p.bn_weight[c]).abs() * rstd;
                w * ((row_mean - mean).abs() + std)
            });
            let group = Kappa {
                kappa: (largest(rows) + 2.0 * widest) * rstd,
                z_hat: largest(z.map(|z| (z - mean).abs())) * rstd,
                z_hat_rms: var_z.sqrt() * rstd,
                rstd,
            };
            let w = f64::from(p.weight[g]).abs();
            let b = f64::from(p.bias[g]).abs();
            let z_hat = group.z_hat * (1.0 + group.kappa) + group.kappa;
            y = y.max(w * z_hat + b);

            let grads = cs
                .clone()
                .flat_map(|c| &p.grad_y[(n * channels + c) * len..][..len]);
            let (mean, var) = mean_var(grads.clone().map(|&v| f64::from(v)));
            let most = largest(grads.map(|&v| (f64::from(v) - mean).abs()));
            let scale = w * group.rstd * (1.0 + group.kappa);
            for c in cs {
                dz[n * channels + c] = (scale * most, scale * var.sqrt());
            }
            *weight += (size * len) as f64 * var.sqrt() * (group.z_hat_rms + group.kappa);
        }
    }

    let (mut x, mut bn_weight, mut bn_bias) = (0.0f64, 0.0f64, 0.0f64);
    let flows = p.mode == Mode::Train && matches!(p.norm.stats, ChannelStats::Batch { .. });
    for (c, channel) in stats.iter().enumerate() {
        let rows = || (0..samples).map(|n| dz[n * channels + c]);
        let scale = f64::from(p.bn_weight[c]).abs() * channel.rstd;
        // The channel's two means are at most the root mean square.
        let rms = (rows().map(|(_, rms)| rms * rms).sum::<f64>() / samples as f64).sqrt();
        let means = if flows {
            rms * (1.0 + channel.x_hat)
        } else {
            0.0
        };
        x = x.max(scale * (largest(rows().map(|(most, _)| most)) + means));
        let sum = len as f64 * rows().map(|(_, rms)| rms).sum::<f64>();
        bn_bias = bn_bias.max(sum);
        bn_weight = bn_weight.max(sum * channel.x_hat_rms);
    }
    BTreeMap::from([
        ("y", y),
        ("grad_x", x),
        ("grad_bn.weight", bn_weight),
        ("grad_bn.bias", bn_bias),
        ("grad_weight", largest(weight.into_iter())),
    ])
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

/// Asserts that every output is within its bound of the oracle; returns the worst error.
pub fn assert_outputs(
    what: &str,
    got: &super::run::Outputs,
    expected: &Expected,
    bounds: &BTreeMap<&'static str, f64>,
) -> Worst {
    let mut worst = Worst::default();
    assert_eq!(got.len(), expected.len(), "{what}: outputs are missing");
    for (name, values) in got {
        let (expected, scale) = &expected[name];
        let what = format!("{what}: {name}");
        let error = super::compare::assert_close(&what, values, expected, *scale, bounds[name]);
        worst.take(error / bounds[name], || {
            format!("{what}: {error:.1e} of {:.1e}", bounds[name])
        });
    }
    worst
}
