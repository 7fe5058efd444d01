//! What a timed norm must yield, in plain f64 and on all threads.
//!
//! The library's oracle computes in double-double on one thread: seconds for a tensor of 10 MB, minutes for
//! a suite. The benchmark's data are tame (no mean is large beside its deviation, no group cancels), so f64
//! leaves some 1e-14 of the scale, far below what f32 kernels are held to. The formulas are the oracle's, a
//! loop over the tensor for each mean and each variance; the tests below compare the two.

use anyhow::{Result, ensure};
use bcnorm::{Activation, ChannelStats, Mode, NormKind, desc};
use bcnorm_testkit::oracle;
use bcnorm_testkit::problem::Problem;
use bcnorm_testkit::run::{Expected, by_name};
use std::num::NonZero;

/// One sum of a row.
type Field = fn(&RowSums) -> Sum;

/// What a problem of the benchmark must yield.
pub fn expected(problem: &Problem) -> Result<Expected> {
    Ok(by_name(&problem.norm, normalize(problem)?))
}

/// Where the channel part's statistics come from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ChannelPart {
    None,
    Batch,
    Estimate,
    Running,
}

/// What elements are normalized by, and their affine.
#[derive(Clone, Copy)]
struct Part {
    mean: f64,
    inverse_std: f64,
}

impl Part {
    const IDENTITY: Part = Part {
        mean: 0.0,
        inverse_std: 1.0,
    };

    fn new(mean: f64, variance: f64, eps: f64) -> Self {
        let std = (variance + eps).sqrt();
        let inverse_std = if std == 0.0 { 0.0 } else { 1.0 / std };
        Self { mean, inverse_std }
    }

    fn normalize(self, value: f64) -> f64 {
        (value - self.mean) * self.inverse_std
    }
}

/// A gradient's sum and the sum of its terms' magnitudes.
#[derive(Clone, Copy, Default)]
struct Sum {
    sum: f64,
    magnitude: f64,
}

impl Sum {
    fn add(&mut self, term: f64) {
        self.sum += term;
        self.magnitude += term.abs();
    }

    fn merge(&mut self, other: Sum) {
        self.sum += other.sum;
        self.magnitude += other.magnitude;
    }
}

/// Sums of one row: of g, and of g times what was normalized.
#[derive(Clone, Copy, Default)]
struct RowSums {
    plain: Sum,
    product: Sum,
}

impl RowSums {
    fn of(pairs: impl Iterator<Item = (f64, f64)>) -> Self {
        pairs.fold(RowSums::default(), |mut sums, (g, normalized)| {
            sums.plain.add(g);
            sums.product.add(g * normalized);
            sums
        })
    }
}

/// The norm, forward and backward, without fusion.
fn normalize(problem: &Problem) -> Result<oracle::Output> {
    let tensor = problem.check()?;
    let norm = &problem.norm;
    ensure!(
        problem.fusion.activation == Activation::None && !problem.fusion.residual,
        "the benchmark's reference knows no fusion"
    );
    let training = problem.mode == Mode::Train;
    let estimate = matches!(norm.stats, ChannelStats::Estimate { .. });
    let (channel_part, has_group) = match norm.kind {
        NormKind::BatchNorm | NormKind::EstBn | NormKind::BcNorm => (
            match (training, estimate) {
                (true, true) => ChannelPart::Estimate,
                (true, false) => ChannelPart::Batch,
                (false, _) => ChannelPart::Running,
            },
            norm.kind == NormKind::BcNorm,
        ),
        NormKind::GroupNorm | NormKind::InstanceNorm | NormKind::LayerNorm => {
            (ChannelPart::None, true)
        }
        other => anyhow::bail!("the benchmark's reference knows no {}", other.name()),
    };
    ensure!(
        norm.has_running_stats() == (channel_part != ChannelPart::None),
        "the benchmark's reference knows {} only as it is by default",
        norm.kind.name()
    );

    let channels = tensor.num_channels() as usize;
    let samples = tensor.num_samples() as usize;
    let len = tensor.row_len() as usize;
    let x = &problem.x;
    let row_of = |r: usize| &x[r * len..(r + 1) * len];
    let values = (samples * len) as f64;

    // The channel part.
    let eps = match has_group {
        true => f64::from(desc::CHANNEL_EPS),
        false => f64::from(norm.eps),
    };
    let of_channel = |c: usize| (0..samples).map(move |n| n * channels + c);
    let statistics = parallel(channels, |c| {
        if channel_part == ChannelPart::None {
            return (Part::IDENTITY, 0.0, 0.0);
        }
        let old = (
            f64::from(problem.running_mean[c]),
            f64::from(problem.running_var[c]),
        );
        if channel_part == ChannelPart::Running {
            return (Part::new(old.0, old.1, eps), old.0, old.1);
        }
        let about = |centre: f64| -> f64 {
            let rows = of_channel(c).map(|r| sum(row_of(r), |v| (v - centre) * (v - centre)));
            rows.sum()
        };
        let first = f64::from(x[c * len]);
        let sums = of_channel(c).map(|r| sum(row_of(r), |v| v - first));
        let mean = first + sums.sum::<f64>() / values;
        let moved = |speed: f64, var: f64| {
            (
                (1.0 - speed) * old.0 + speed * mean,
                (1.0 - speed) * old.1 + speed * var,
            )
        };
        match norm.stats {
            ChannelStats::Estimate { moving_speed } => {
                let moved = moved(f64::from(moving_speed), about(old.0) / values);
                (Part::new(moved.0, moved.1, eps), moved.0, moved.1)
            }
            ChannelStats::Batch { momentum } => {
                let squares = about(mean);
                let count = f64::from(problem.num_batches_tracked) + 1.0;
                let speed = momentum.map_or(1.0 / count, f64::from);
                let moved = moved(speed, squares / (values - 1.0));
                (Part::new(mean, squares / values, eps), moved.0, moved.1)
            }
            _ => (Part::IDENTITY, f64::NAN, f64::NAN),
        }
    });
    let channel = |c: usize| statistics[c].0;
    let (channel_weight, channel_bias) = match has_group {
        true => (&problem.bn_weight, &problem.bn_bias),
        false => (&problem.weight, &problem.bias),
    };
    let z = |c: usize, x: f32| -> f64 {
        let x = f64::from(x);
        if channel_part == ChannelPart::None {
            return x;
        }
        let (weight, bias) = (or(channel_weight, c, 1.0), or(channel_bias, c, 0.0));
        weight * channel(c).normalize(x) + bias
    };

    // The group part.
    let groups = match norm.kind {
        NormKind::InstanceNorm => channels,
        NormKind::LayerNorm => 1,
        _ => norm.num_groups,
    };
    let per_group = channels / groups;
    let rows_of_group = |part: usize| part * per_group..(part + 1) * per_group;
    let elements = (per_group * len) as f64;
    let group_parts = match has_group {
        false => Vec::new(),
        true => parallel(samples * groups, |part| {
            let rows = || rows_of_group(part);
            let first = z(rows().start % channels, row_of(rows().start)[0]);
            let over = |f: &dyn Fn(usize, &[f32]) -> f64| -> f64 {
                rows().map(|r| f(r % channels, row_of(r))).sum()
            };
            let total = over(&|c, row| sum_f32(row, |v| z(c, v) - first));
            let mean = first + total / elements;
            let squares = over(&|c, row| {
                sum_f32(row, |v| {
                    let d = z(c, v) - mean;
                    d * d
                })
            });
            Part::new(mean, squares / elements, f64::from(norm.eps))
        }),
    };
    let group_of_row = |r: usize| group_parts[r / per_group];
    let affine_len = norm.affine_len();
    let parameter = |c: usize| c / (channels / affine_len);
    let affine = |c: usize| {
        let at = parameter(c);
        (or(&problem.weight, at, 1.0), or(&problem.bias, at, 0.0))
    };
    let mut y = vec![0.0; x.len()];
    fill(&mut y, len, |r, out| {
        let c = r % channels;
        match has_group {
            false => map_into(out, row_of(r), |v| z(c, v)),
            true => {
                let (group, (weight, bias)) = (group_of_row(r), affine(c));
                map_into(out, row_of(r), |v| weight * group.normalize(z(c, v)) + bias);
            }
        }
    });

    let gradients = problem.backward.then(|| {
        let g = &problem.grad_y;
        let g_row = |r: usize| &g[r * len..(r + 1) * len];
        let rows = samples * channels;
        let mut dz = vec![0.0; x.len()];
        let mut weight = vec![RowSums::default(); affine_len];
        if has_group {
            let sums = parallel(rows, |r| {
                let (c, group) = (r % channels, group_of_row(r));
                let pairs = row_of(r).iter().zip(g_row(r));
                RowSums::of(pairs.map(|(&x, &g)| (f64::from(g), group.normalize(z(c, x)))))
            });
            for (r, sums) in sums.iter().enumerate() {
                let at = &mut weight[parameter(r % channels)];
                at.plain.merge(sums.plain);
                at.product.merge(sums.product);
            }
            let means = parallel(samples * groups, |part| {
                rows_of_group(part).fold((0.0, 0.0), |(plain, product), r| {
                    let scale = affine(r % channels).0 / elements;
                    (
                        plain + scale * sums[r].plain.sum,
                        product + scale * sums[r].product.sum,
                    )
                })
            });
            fill(&mut dz, len, |r, out| {
                let (c, group) = (r % channels, group_of_row(r));
                let (mean, mean_product) = means[r / per_group];
                let weight = affine(c).0;
                let pairs = row_of(r).iter().zip(g_row(r));
                for (out, (&x, &g)) in out.iter_mut().zip(pairs) {
                    let z_hat = group.normalize(z(c, x));
                    let centred = weight * f64::from(g) - mean - z_hat * mean_product;
                    *out = group.inverse_std * centred;
                }
            });
        } else {
            fill(&mut dz, len, |r, out| map_into(out, g_row(r), f64::from));
        }

        let mut bn = vec![RowSums::default(); channels];
        if channel_part != ChannelPart::None {
            let sums = parallel(rows, |r| {
                let channel = channel(r % channels);
                let pairs = row_of(r).iter().zip(&dz[r * len..(r + 1) * len]);
                RowSums::of(pairs.map(|(&x, &dz)| (dz, channel.normalize(f64::from(x)))))
            });
            for (r, sums) in sums.iter().enumerate() {
                bn[r % channels].plain.merge(sums.plain);
                bn[r % channels].product.merge(sums.product);
            }
            fill(&mut dz, len, |r, out| {
                let c = r % channels;
                let channel = channel(c);
                let scale = or(channel_weight, c, 1.0) * channel.inverse_std;
                let flows = f64::from(u8::from(channel_part == ChannelPart::Batch)) / values;
                let mean = flows * bn[c].plain.sum;
                let mean_product = flows * bn[c].product.sum;
                for (dz, &x) in out.iter_mut().zip(row_of(r)) {
                    let x_hat = channel.normalize(f64::from(x));
                    *dz = scale * (*dz - mean - x_hat * mean_product);
                }
            });
        }
        if !has_group {
            weight = std::mem::take(&mut bn);
        }
        let pick = |there: bool, sums: &[RowSums], of: fn(&RowSums) -> Sum| {
            let values = there.then(|| sums.iter().map(|s| of(s).sum).collect::<Vec<_>>());
            let magnitudes: Vec<f64> = match there {
                true => sums.iter().map(|s| of(s).magnitude).collect(),
                false => Vec::new(),
            };
            (values, oracle::scale(&magnitudes))
        };
        let (plain, product): (Field, Field) = (|s| s.plain, |s| s.product);
        let (bn_weight, bn_weight_scale) = pick(!problem.bn_weight.is_empty(), &bn, product);
        let (bn_bias, bn_bias_scale) = pick(!problem.bn_bias.is_empty(), &bn, plain);
        let (grad_weight, weight_scale) = pick(!problem.weight.is_empty(), &weight, product);
        let (bias, bias_scale) = pick(!problem.bias.is_empty(), &weight, plain);
        oracle::Gradients {
            x: dz,
            residual: None,
            bn_weight,
            bn_bias,
            weight: grad_weight,
            bias,
            bn_weight_scale,
            bn_bias_scale,
            weight_scale,
            bias_scale,
        }
    });
    let running = |of: fn(&(Part, f64, f64)) -> f64| {
        norm.has_running_stats()
            .then(|| statistics.iter().map(of).collect())
    };
    Ok(oracle::Output {
        y,
        pre_activation: Vec::new(),
        running_mean: running(|s| s.1),
        running_var: running(|s| s.2),
        num_batches_tracked: u64::from(problem.num_batches_tracked_after()),
        gradients,
    })
}

/// One of some values, or what an absent parameter stands for.
fn or(values: &[f32], index: usize, absent: f64) -> f64 {
    values.get(index).map_or(absent, |&value| f64::from(value))
}

/// The sum of a function over a row, in eight sums that do not wait for each other.
fn sum_f32(row: &[f32], f: impl Fn(f32) -> f64) -> f64 {
    let (chunks, rest) = row.as_chunks::<8>();
    let mut sums = [0.0; 8];
    for chunk in chunks {
        for (sum, &value) in sums.iter_mut().zip(chunk) {
            *sum += f(value);
        }
    }
    sums.iter().sum::<f64>() + rest.iter().map(|&value| f(value)).sum::<f64>()
}

fn sum(row: &[f32], f: impl Fn(f64) -> f64) -> f64 {
    sum_f32(row, |value| f(f64::from(value)))
}

fn map_into(out: &mut [f64], row: &[f32], f: impl Fn(f32) -> f64) {
    for (out, &value) in out.iter_mut().zip(row) {
        *out = f(value);
    }
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

/// `f` of each index, on all threads, in order.
fn parallel<T: Send>(count: usize, f: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let share = count.div_ceil(threads()).max(1);
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..count)
            .step_by(share)
            .map(|start| {
                let f = &f;
                scope.spawn(move || (start..count.min(start + share)).map(f).collect::<Vec<T>>())
            })
            .collect();
        let joined = handles.into_iter().flat_map(|handle| {
            handle
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        joined.collect()
    })
}

/// Fills chunks of `len` elements, each given its number, on all threads.
fn fill(out: &mut [f64], len: usize, f: impl Fn(usize, &mut [f64]) + Sync) {
    let share = (out.len() / len).div_ceil(threads()).max(1);
    std::thread::scope(|scope| {
        for (block, out) in out.chunks_mut(share * len).enumerate() {
            let f = &f;
            scope.spawn(move || {
                for (index, out) in out.chunks_mut(len).enumerate() {
                    f(block * share + index, out);
                }
            });
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use bcnorm::NormDesc;

    fn norms() -> [NormDesc; 7] {
        [
            NormDesc::bc_norm(6, 3),
            NormDesc::bc_norm(6, 6).with_momentum(None),
            NormDesc::batch_norm(6),
            NormDesc::group_norm(2, 6),
            NormDesc::instance_norm(6),
            NormDesc::layer_norm(6),
            NormDesc::est_bn(6).with_moving_speed(0.3),
        ]
    }

    #[test]
    fn it_is_the_oracle_on_small_shapes() {
        for norm in norms() {
            for dims in [&[3, 6, 5, 7][..], &[2, 6, 33], &[5, 6, 1, 2], &[1, 6, 17]] {
                for mode in [Mode::Train, Mode::Eval] {
                    let problem = Problem::random_of(norm, dims, 5).with_mode(mode);
                    let got = expected(&problem).unwrap();
                    let want = by_name(&norm, problem.oracle());
                    assert_eq!(got.len(), want.len());
                    for (name, (want, scale)) in &want {
                        let (got, got_scale) = &got[name];
                        let what = format!("{} {mode:?} {dims:?} {name}", norm.kind.name());
                        let error = oracle::error(got, want, *scale);
                        assert!(error < 1e-12, "{what}: {error:e}");
                        assert!((got_scale / scale - 1.0).abs() < 1e-12, "{what}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_it_does_not_know_it_refuses() {
        let fused = Problem::random(&[2, 6, 5], 2, 1).with_fusion(bcnorm::Fusion {
            activation: Activation::Relu,
            residual: false,
        });
        let filters = Problem::random_of(NormDesc::weight_standardization(), &[4, 1, 9], 1);
        let tracked = NormDesc::instance_norm(6).with_track_running_stats(true);
        let tracked = Problem::random_of(tracked, &[2, 6, 5], 1);
        for problem in [fused, filters, tracked] {
            expected(&problem).unwrap_err();
        }
    }
}
