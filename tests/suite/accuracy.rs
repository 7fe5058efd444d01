//! How accurate results are on data that breaks other implementations: large means, outliers,
//! extreme parameters, constants. Against the f64 oracle, on every adapter and on the CPU executor.
//!
//! Why the bounds hold. y = ((x - K) - d) A + B: x - K is exact or rounds relative to the distance
//! from the mean, whatever the mean; so do - d, the product and the sum. A is a product of four
//! rounded factors. That is some 10 roundings of 2^-24 relative to the distance, 6e-7, or 1.2e-6
//! where K lies as far on the other side. The statistics add half the relative error of the
//! variances, which sum up merges of chunks: at most 256 in a row (1024 words of a lane, chunks of
//! 4), with 4 roundings each, of random sign: sqrt(4 * 256) * 2^-24 = 2e-6. Together they stay
//! below [`BOUND`], at any mean and any length of a row. The gradients are made of the same parts.
#![allow(missing_docs)]

use crate::common;

use bcnorm::{ChannelStats, DType, Layout, Mode, NormDesc, NormKind};
use common::compare;
use common::conditioning::{F32, Worst};
use common::problem::Problem;
use common::random::Random;
use common::run;
use common::targets::{self, Target};

/// See above; it is the issue's.
const BOUND: f64 = 5e-6;

const EVAL: (Mode, ChannelStats) = (
    Mode::Eval,
    ChannelStats::Batch {
        momentum: Some(0.1),
    },
);
const ESTIMATE: (Mode, ChannelStats) = (Mode::Train, ChannelStats::Estimate { moving_speed: 0.3 });

/// The worst errors of y and of gradients, and all that missed its bound.
#[derive(Default)]
struct Report {
    y: Worst,
    gradients: Worst,
    missed: Vec<String>,
}

impl Report {
    /// All outputs within `bound` of the oracle.
    fn check(&mut self, targets: &[Target], what: &str, problem: &Problem, bound: f64) {
        let expected = run::expected(problem);
        for target in targets {
            for (name, got) in target.run(problem) {
                let (expected, scale) = &expected[name];
                let error = compare::error(&got, expected, *scale).unwrap();
                let place = || format!("{}: {what}: {name}", target.name);
                match name {
                    "y" => self.y.take(error, place),
                    _ => self.gradients.take(error, place),
                }
                // An error is never NaN.
                if error > bound {
                    let missed = format!("{}: {error:.2e} > {bound:.2e}", place());
                    self.missed.push(missed);
                }
            }
        }
    }

    /// Says how close it was, and fails for all that missed at once.
    fn finish(self) {
        println!("worst y: {:.2e} ({})", self.y.fraction, self.y.what);
        let Worst { fraction, what } = &self.gradients;
        println!("worst gradient or statistic: {fraction:.2e} ({what})");
        assert!(self.missed.is_empty(), "{}", self.missed.join("\n"));
    }
}

fn with(problem: &Problem, change: impl Fn(&mut Problem)) -> Problem {
    let mut problem = problem.clone();
    change(&mut problem);
    problem
}

/// 4 samples of 8 channels, 14 x 14, in 2 groups.
fn usual() -> Problem {
    Problem::random(&[4, 8, 14, 14], 2, 3)
}

/// Each channel a group of its own.
fn channel_groups() -> Problem {
    Problem::random(&[4, 8, 14, 14], 8, 3)
}

/// Mean / deviation from 1 to a million, in rows of up to 200,704 values, aligned or not.
#[test]
fn means_of_up_to_a_million_deviations() {
    let (targets, mut report) = (targets::all(), Report::default());
    for (dims, groups) in [
        ([1, 2, 200_704], 1),
        ([4, 8, 3136], 4),
        ([2, 4, 65_537], 2),
        ([64, 6, 49], 2),
    ] {
        for ratio in [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6] {
            let problem = with(&Problem::random(&dims, groups, 3), |p| {
                let mut random = Random::new(8);
                for (i, x) in p.x.iter_mut().enumerate() {
                    // Every channel has a mean of its own; every other one is negative.
                    let c = i / dims[2] % dims[1];
                    let mean = ratio * (1.0 + 0.1 * c as f32);
                    *x = random.normal() + if c % 2 == 0 { mean } else { -mean };
                }
            });
            let what = format!("{dims:?}, mean/std {ratio:e}");
            report.check(&targets, &what, &problem, BOUND);
        }
    }
    report.finish();
}

/// Where the outlier of each row is: among the others, in its first element (which serves as a
/// pivot), in the middle, in its last.
const PLACES: [usize; 4] = [7919, 0, 10_000, 19_999];

fn with_outliers(values: &mut [f32], at: usize) {
    values.chunks_mut(20_000).for_each(|row| row[at] = 1e4);
}

/// An outlier of 1e4 deviations in every row. All other values of a row are some 1e-4 of y's
/// largest, so that the error is relative to the outlier: the bound as above.
#[test]
fn outliers_in_x() {
    let (targets, mut report) = (targets::all(), Report::default());
    for at in PLACES {
        let problem = with(&Problem::random(&[2, 4, 20_000], 2, 3), |p| {
            with_outliers(&mut p.x, at);
        });
        let what = format!("outlier in x at {at}");
        report.check(&targets, &what, &problem, BOUND);
    }
    report.finish();
}

/// The same in dy. The gradients of the parameters are sums over rows; their scale is the sum of
/// magnitudes, to which the outlier adds 1e4 beside 20,000 others. No other term may be rounded
/// relative to the outlier: accuracy must not hang on which element is the pivot.
#[test]
fn outliers_in_dy() {
    let (targets, mut report) = (targets::all(), Report::default());
    for at in PLACES {
        let problem = with(&Problem::random(&[2, 4, 20_000], 2, 3), |p| {
            with_outliers(&mut p.grad_y, at);
        });
        let what = format!("outlier in dy at {at}");
        report.check(&targets, &what, &problem, BOUND);
    }
    report.finish();
}

/// The group's mean is up to 1e4 deviations from 0, by running statistics that are far off or by
/// samples whose means are far apart. Where a group is one channel, its mean is its row's and the
/// roundings of both are the same, so nothing is lost. Where it is several, each row's mean of z is
/// rounded relative to itself, up to 1.5 times as many deviations, three times (two differences, a
/// sum) and once more in the group's mean: an error of 6 * 2^-24 for each deviation. (A layer that
/// stores z in f32, as PyTorch's does, rounds each element like this.)
#[test]
fn groups_far_from_zero() {
    let (targets, mut report) = (targets::all(), Report::default());
    for base in [channel_groups(), usual()] {
        let groups = base.norm.num_groups;
        for far in [1e1, 1e2, 1e3, 1e4] {
            let shared = if groups == 8 { 0.0 } else { f64::from(far) };
            let bound = BOUND + shared * 6.0 * 2f64.powi(-24);
            let mut report_of = |what: String, problem: Problem| {
                report.check(&targets, &what, &problem, bound);
            };
            let off = with(&base, |p| {
                (p.mode, p.norm.stats) = EVAL;
                p.bn_weight.fill(1.0);
                p.running_var.fill(4.0);
                p.running_mean.fill(3.0 - 2.0 * far);
            });
            report_of(format!("running mean {far:e} off, G = {groups}"), off);
            let apart = with(&base, |p| {
                p.bn_weight.fill(1.0);
                p.bn_bias.fill(0.0);
                let mut random = Random::new(4);
                for (i, x) in p.x.iter_mut().enumerate() {
                    *x = random.normal() + far * (i / (8 * 196)) as f32 + 0.37;
                }
            });
            report_of(format!("samples {far:e} apart, G = {groups}"), apart);
        }
    }
    report.finish();
}

/// bn.bias of up to 1e4, equal in a group (its pivot, it drops out exactly), of two signs, or with
/// small differences: z is differences of biases, each exact or rounded relative to itself.
#[test]
fn large_biases_of_the_channel_part() {
    let (targets, mut report) = (targets::all(), Report::default());
    for large in [1e1, 1e2, 1e3, 1e4] {
        let equal = with(&usual(), |p| p.bn_bias.fill(large));
        let two_signs = with(&usual(), |p| {
            for (c, bias) in p.bn_bias.iter_mut().enumerate() {
                *bias = if c % 2 == 0 { large } else { -large };
            }
        });
        let close = with(&usual(), |p| p.bn_bias.iter_mut().for_each(|b| *b += large));
        for (what, problem) in [
            ("equal", equal),
            ("of two signs", two_signs),
            ("close", close),
        ] {
            let what = format!("bn.bias {large:e}, {what}");
            report.check(&targets, &what, &problem, BOUND);
        }
    }
    report.finish();
}

/// Weights of 0, negative ones, and ones so small that their square underflows: what they multiply
/// is then below eps in the group's variance, and everything else is as with any other weight.
#[test]
fn weights() {
    let (targets, mut report) = (targets::all(), Report::default());
    for w in [0.0, -1.0, 1e-20, -1e-20, 1e10] {
        for (what, problem) in [
            ("every bn.weight", with(&usual(), |p| p.bn_weight.fill(w))),
            (
                "every bn.weight, biases that hide nothing",
                with(&usual(), |p| {
                    p.bn_weight.fill(w);
                    p.bn_bias.fill(0.25);
                    p.bias.fill(0.0);
                }),
            ),
            ("one bn.weight", with(&usual(), |p| p.bn_weight[3] = w)),
            ("every weight", with(&usual(), |p| p.weight.fill(w))),
            (
                "every weight, bias 0",
                with(&usual(), |p| {
                    p.weight.fill(w);
                    p.bias.fill(0.0);
                }),
            ),
        ] {
            let what = format!("{what} = {w:e}");
            report.check(&targets, &what, &problem, BOUND);
        }
    }
    report.finish();
}

/// An upstream gradient with a mean far above its deviation. A common mean drops out of every
/// gradient but the bias's, in differences from a pivot: nothing is rounded relative to it, the
/// bound is that of 16 roundings. One of two signs survives in some gradients, and doubles the
/// roundings.
#[test]
fn upstream_gradients_with_a_large_mean() {
    let (targets, mut report) = (targets::all(), Report::default());
    for mean in [1e1, 1e2, 1e3, 1e4] {
        let common = with(&usual(), |p| p.grad_y.iter_mut().for_each(|dy| *dy += mean));
        let what = format!("dy with mean {mean:e}");
        report.check(&targets, &what, &common, F32);
        let two_signs = with(&usual(), |p| {
            for (i, dy) in p.grad_y.iter_mut().enumerate() {
                *dy += if i / 196 % 2 == 0 { mean } else { -mean };
            }
        });
        let what = format!("dy with mean +-{mean:e}");
        report.check(&targets, &what, &two_signs, 2.0 * F32);
    }
    report.finish();
}

const CONSTANTS: [f32; 8] = [100.0, 3.3, 1234.567, 0.0, -0.5, 65_504.0, 1e-20, 1e18];

/// Asserts that y is the group's bias to the bit, and that all else is as the oracle's and finite.
fn check_constant(targets: &[Target], what: &str, problem: &Problem, report: &mut Report) {
    let per_group = problem.x.len() / problem.dims[0] / problem.norm.num_groups;
    let sample: Vec<f32> = problem
        .bias
        .iter()
        .flat_map(|&b| std::iter::repeat_n(b, per_group))
        .collect();
    let y = sample.repeat(problem.dims[0]);
    for target in targets {
        let outputs = target.run(problem);
        let what = format!("{}: {what}", target.name);
        let other = |(got, bias): &(&f32, &f32)| got.to_bits() != bias.to_bits();
        if let Some((got, bias)) = outputs["y"].iter().zip(&y).find(other) {
            let missed = format!("{what}: y is {got:e}, not its bias {bias:e}");
            report.missed.push(missed);
        }
        for (name, values) in outputs {
            assert!(values.iter().all(|v| v.is_finite()), "{what}: {name}");
        }
    }
    report.check(targets, what, problem, BOUND);
}

/// Constant input is its own mean, x - K and d are 0 to the bit, and so is everything up to the
/// bias. In training the channel part takes any constant to its bias; the group part takes that to
/// its own where a group's channels have equal ones.
#[test]
fn constants_in_training() {
    let (targets, mut report) = (targets::all(), Report::default());
    for value in CONSTANTS {
        for eps in [1e-5, 1e-8, 0.0] {
            for base in [usual(), channel_groups()] {
                let problem = with(&base, |p| {
                    p.norm.eps = eps;
                    p.x.fill(value);
                    let size = p.norm.num_channels / p.norm.num_groups;
                    (0..8).for_each(|c| p.bn_bias[c] = p.bn_bias[c / size * size]);
                });
                let groups = base.norm.num_groups;
                let what = format!("{value} everywhere, eps {eps}, G = {groups}");
                check_constant(&targets, &what, &problem, &mut report);
            }
        }
    }
    // 200,704 values: the sum of as many 3.3 is not 200,704 times 3.3 in f32.
    let problem = with(&Problem::random(&[2, 2, 448, 448], 2, 3), |p| p.x.fill(3.3));
    check_constant(&targets, "200,704 values of 3.3", &problem, &mut report);
    // Each channel a constant of its own.
    let problem = with(&channel_groups(), |p| {
        for (i, x) in p.x.iter_mut().enumerate() {
            *x = CONSTANTS[i / 196 % 8];
        }
    });
    check_constant(&targets, "constants by channel", &problem, &mut report);
    report.finish();
}

/// With running statistics a constant is not its channel's mean; a group whose channels map it to
/// the same z is constant nevertheless: its variance is 0, and y its bias.
#[test]
fn constants_with_running_statistics() {
    let (targets, mut report) = (targets::all(), Report::default());
    for value in [100.0, 3.3, 0.0, -0.5, 65_504.0] {
        for eps in [1e-5, 1e-8, 0.0] {
            for (mode, stats) in [EVAL, ESTIMATE] {
                let own_channels = with(&channel_groups(), |p| p.x.fill(value));
                let alike = with(&usual(), |p| {
                    p.x.fill(value);
                    p.bn_weight.fill(0.7);
                    p.bn_bias.fill(1.7);
                    p.running_mean.fill(2.345);
                    p.running_var.fill(1.234);
                });
                for problem in [own_channels, alike] {
                    let mut problem = problem.with_mode(mode).with_stats(stats);
                    problem.norm.eps = eps;
                    let groups = problem.norm.num_groups;
                    let what = format!("{value}, eps {eps}, G = {groups}, {mode:?}");
                    check_constant(&targets, &what, &problem, &mut report);
                }
            }
        }
    }
    report.finish();
}

/// eps from 0 to 1000 on data with a variance, down to one that eps outweighs.
#[test]
fn values_of_eps() {
    let (targets, mut report) = (targets::all(), Report::default());
    for eps in [0.0, 1e-30, 1e-8, 1.0, 1e3] {
        for scale in [1.0, 1e-4] {
            for (mode, stats) in [(Mode::Train, EVAL.1), EVAL, ESTIMATE] {
                let problem = with(&usual(), |p| {
                    p.norm.eps = eps;
                    p.x.iter_mut().for_each(|x| *x *= scale);
                });
                let problem = problem.with_mode(mode).with_stats(stats);
                let what = format!("eps {eps:e}, x * {scale:e}, {mode:?} {stats:?}");
                report.check(&targets, &what, &problem, BOUND);
            }
        }
    }
    report.finish();
}

/// Values far from 1: deviations of 1e-20, whose squares are subnormal or 0 (beside the channel
/// part's eps they vanish, on adapters that flush subnormals and on others), and of 1e15, whose
/// squares sum up to 1e33; and values of 1e18.
#[test]
fn values_far_from_one() {
    let (targets, mut report) = (targets::all(), Report::default());
    let scaled = |scale: f32| {
        with(&usual(), |p| {
            p.x.iter_mut().for_each(|x| *x = (*x - 3.0) * scale);
            p.running_mean.fill(0.0);
            // Nothing that would hide y.
            p.bn_bias.fill(0.25);
            p.bias.fill(0.0);
        })
    };
    for scale in [1e-20, 1e-10, 1e-6, 1e6, 1e10, 1e15] {
        let what = format!("x * {scale:e}");
        report.check(&targets, &what, &scaled(scale), BOUND);
    }
    let around = with(&usual(), |p| {
        p.x.iter_mut().for_each(|x| *x = 1e18 + 1e15 * *x)
    });
    report.check(&targets, "1e18 +- 1e15", &around, BOUND);
    let around = around.with_stats(ESTIMATE.1);
    report.check(&targets, "1e18 +- 1e15, estimated", &around, BOUND);
    report.finish();
}

/// Deviations of 1e18, whatever the number of values: their squares fit f32, no sum of them does. Of all kinds of
/// norms, rows and elements, in f32 and in bf16.
#[test]
fn deviations_of_1e18() {
    let (targets, mut missed, mut worst) = (targets::all(), Vec::new(), Worst::default());
    let large = [1, 2, 200_000];
    for (norm, dims) in [
        (NormDesc::bc_norm(8, 2), &[4, 8, 14, 14][..]),
        (NormDesc::bc_norm(12, 3), &[70, 12, 2]),
        (NormDesc::batch_norm(3), &[2000, 3, 49]),
        (NormDesc::est_bn(3).with_stats(ESTIMATE.1), &[20, 3, 49]),
        (
            NormDesc::instance_norm(3).with_track_running_stats(true),
            &[200, 3, 9],
        ),
        (NormDesc::group_norm(1, 2), &large),
        (NormDesc::layer_norm(65_537), &[2, 65_537]),
        (NormDesc::layer_norm(1001), &[60, 1001]),
    ] {
        for deviation in [1e16, 1e18] {
            for dtype in [DType::F32, DType::BF16] {
                for layout in [Layout::ChannelsFirst, Layout::ChannelsLast] {
                    let mut problem = Problem::random_of(norm, dims, 7).with_layout(layout);
                    problem
                        .x
                        .iter_mut()
                        .for_each(|x| *x = (*x - 2.0) * 0.5 * deviation);
                    problem.running_mean.fill(0.0);
                    problem.running_var.fill(1.0);
                    let problem = problem.with_dtype(dtype);
                    let expected = run::expected(&problem);
                    for target in &targets {
                        for (name, got) in target.run(&problem) {
                            let (values, scale) = &expected[name];
                            let found = compare::judge(dtype, name, &got, values, *scale, BOUND);
                            let what = || {
                                let kind = norm.kind.name();
                                let data = format!("{dims:?} {} {deviation:e}", dtype.name());
                                format!("{}: {kind} {data} {layout:?}", target.name)
                            };
                            worst.take(found.error, || format!("{}: {name}", what()));
                            if let Some(wrong) = found.wrong {
                                missed.push(format!("{}: {wrong}", what()));
                            }
                        }
                    }
                }
            }
        }
    }
    println!("worst: {:.2e} ({})", worst.fraction, worst.what);
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

/// A running variance of Inf leaves the bias, as the formula says: 1 / sqrt(Inf) is 0. A NaN stays one.
#[test]
fn an_infinite_running_variance_leaves_the_bias() {
    for target in targets::all() {
        for norm in [NormDesc::batch_norm(3), NormDesc::bc_norm(3, 1)] {
            let mut problem = Problem::random_of(norm, &[2, 3, 5], 3).with_mode(Mode::Eval);
            problem.running_var = vec![f32::INFINITY, 2.0, f32::INFINITY];
            let outputs = target.run(&problem);
            let what = format!("{}: {}", target.name, norm.kind.name());
            for (name, values) in &outputs {
                let state = *name == "running_var_after" || *name == "bn.running_var_after";
                let finite = state || values.iter().all(|v| v.is_finite());
                assert!(finite, "{what}: {name} {values:?}");
            }
            if norm.kind == NormKind::BatchNorm {
                for (i, y) in outputs["y"].iter().enumerate() {
                    let c = i / 5 % 3;
                    assert!(c == 1 || *y == problem.bias[c], "{what}: y[{i}] is {y}");
                }
            }
            problem.running_var[2] = f32::NAN;
            let y = &target.run(&problem)["y"];
            assert!(y[10..15].iter().all(|y| y.is_nan()), "{what}: {y:?}");
        }
    }
}

/// Where a mean of squares is beyond f32 (deviations of 2e19 and more) no number is right: y must
/// show it, not hide an infinite variance behind finite values.
#[test]
fn overflow_is_not_hidden() {
    let problem = with(&usual(), |p| p.x[5] = 1e25);
    for target in targets::all() {
        let y = &target.run(&problem)["y"];
        // Channel 0 overflows, and with it group 0 of every sample.
        for (i, y) in y.iter().enumerate() {
            let hit = i / (4 * 196) % 2 == 0;
            assert_eq!(y.is_finite(), !hit, "{}: y[{i}] is {y}", target.name);
        }
    }
}
