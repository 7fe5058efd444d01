//! Shapes, modes and special values against the f64 oracle, on every adapter and on the CPU
//! executor. Bounds: `common/conditioning.rs`.
#![allow(missing_docs)]

use crate::common;

use bcnorm::cpu::Executor;
use bcnorm::gpu::headless::DeviceLimits;
use bcnorm::gpu::transfer;
use bcnorm::{
    BackwardOptions, ChannelStats, Error, ForwardOptions, GradientMode, Mode, NormDesc, Plan, Role,
    TensorDesc, Tuning,
};
use common::conditioning::{self, Worst};
use common::problem::Problem;
use common::random::Random;
use common::run::{self, GpuProblem, Outputs};
use common::steps::run_steps;
use common::targets::{self, Target};
use pollster::block_on;
use std::collections::BTreeMap;

const BATCH: ChannelStats = ChannelStats::Batch {
    momentum: Some(0.1),
};
const ESTIMATE: ChannelStats = ChannelStats::Estimate { moving_speed: 0.05 };

/// Training and eval of both kinds of statistics.
const KINDS: [(Mode, ChannelStats); 4] = [
    (Mode::Train, BATCH),
    (Mode::Train, ESTIMATE),
    (Mode::Eval, BATCH),
    (Mode::Eval, ESTIMATE),
];

/// Runs a problem everywhere and compares all outputs; the oracle runs once.
fn check(targets: &[Target], problem: &Problem, worst: &mut Worst) {
    let expected = run::expected(problem);
    let bounds = conditioning::bounds(problem, &expected);
    for target in targets {
        let what = format!(
            "{}: {:?} in {} groups, {:?}, {:?}",
            target.name, problem.dims, problem.norm.num_groups, problem.mode, problem.norm.stats
        );
        let outputs = target.run(problem);
        let found = conditioning::assert_outputs(&what, &outputs, &expected, &bounds);
        worst.take(found.fraction, || found.what.clone());
    }
}

fn report(worst: &Worst) {
    println!("worst: {:.2} of its bound, {}", worst.fraction, worst.what);
}

#[test]
fn shapes_of_the_field_on_every_target() {
    // Shapes that users of other libraries reported, and degenerate ones: one group, one channel a
    // group, one channel, one sample, one element a row.
    let shapes: [(&[usize], &[usize]); 17] = [
        (&[16, 512, 7, 7], &[32]),
        (&[2, 3, 10], &[1, 3]),
        (&[2, 6, 4, 2, 2], &[1, 2, 3, 6]),
        (&[2, 6, 3, 1, 5, 2], &[2]),
        (&[9, 128, 1], &[1, 4, 64, 128]),
        (&[9, 128], &[32]),
        (&[3072, 64, 1, 1], &[8]),
        (&[2, 65, 100, 100], &[5]),
        (&[5, 1, 7], &[1]),
        (&[1, 1, 2], &[1]),
        (&[2, 1], &[1]),
        (&[1, 7, 11, 13], &[1, 7]),
        (&[7, 4, 1031], &[2]),
        (&[3, 5, 4099], &[5]),
        (&[1, 2, 65_537], &[1]),
        (&[4, 6, 1, 31], &[3]),
        (&[257, 3, 2], &[1]),
    ];
    let (targets, mut worst) = (targets::all(), Worst::default());
    for (seed, (dims, groups)) in (0..).zip(shapes) {
        for &groups in groups {
            // Large shapes once, in training.
            let large = dims.iter().product::<usize>() > 100_000;
            for &(mode, stats) in &KINDS[..if large { 1 } else { 4 }] {
                let problem = Problem::random(dims, groups, seed);
                let problem = problem.with_mode(mode).with_stats(stats);
                check(&targets, &problem, &mut worst);
            }
        }
    }
    report(&worst);
}

#[test]
fn one_row_of_one_sample_with_one_element() {
    // (1, 256, 1, 1): batch statistics exist in eval and with estimates only.
    let (targets, mut worst) = (targets::all(), Worst::default());
    for (mode, stats) in &KINDS[1..] {
        for groups in [1, 8, 128, 256] {
            let problem = Problem::random(&[1, 256, 1, 1], groups, 11);
            let problem = problem.with_mode(*mode).with_stats(*stats);
            check(&targets, &problem, &mut worst);
        }
    }
    report(&worst);
}

/// More channels than one fold may loop over: 65,536, in one group, in some, in many.
#[test]
fn many_channels() {
    let (targets, mut worst) = (targets::all(), Worst::default());
    for groups in [1, 256, 65_536] {
        check(
            &targets,
            &Problem::random(&[2, 65_536, 3], groups, 3),
            &mut worst,
        );
    }
    report(&worst);
}

/// Every length of a row from 1 to 257, so that every head, tail and unaligned beginning of a row
/// occurs: in words of 4 (4 channels make the tensor a whole number of them) and of 1.
#[test]
fn every_row_length() {
    let (targets, mut worst) = (targets::all(), Worst::default());
    for len in 1..=257 {
        for channels in [4, 5] {
            let problem = Problem::random(&[3, channels, len], 1, 7);
            check(&targets, &problem, &mut worst);
        }
    }
    report(&worst);
}

/// The same with the tuning for GPUs: many lanes a row, reductions through workgroup memory.
#[test]
fn row_lengths_over_many_lanes() {
    let (targets, mut worst) = (targets::with_tuning(Tuning::GPU), Worst::default());
    for len in (1..70).chain([127, 128, 129, 255, 256, 257, 1023, 1025, 4111]) {
        check(
            &targets,
            &Problem::random(&[3, 4, len], 2, len as u64),
            &mut worst,
        );
    }
    for dims in [&[5, 66, 3][..], &[300, 3, 2], &[1, 2, 40_009], &[2, 600, 5]] {
        check(&targets, &Problem::random(dims, 1, 5), &mut worst);
    }
    report(&worst);
}

#[test]
fn random_shapes() {
    const SIZES: [usize; 14] = [1, 2, 3, 4, 5, 7, 8, 11, 13, 16, 17, 29, 31, 37];
    let (targets, mut worst) = (targets::all(), Worst::default());
    let mut random = Random::new(2026);
    let mut ran = 0;
    while ran < 60 {
        let rank = 2 + random.below(5);
        let mut dims: Vec<usize> = (0..rank)
            .map(|_| SIZES[random.below(SIZES.len())])
            .collect();
        let groups = [1, 2, 3, 5, 7][random.below(5)];
        dims[1] *= groups;
        let (mode, stats) = KINDS[random.below(4)];
        let seed = random.below(1 << 20) as u64;
        let values = dims.iter().product::<usize>();
        if values > 200_000 || values == dims[1] {
            continue;
        }
        ran += 1;
        let problem = Problem::random(&dims, groups, seed);
        let problem = problem.with_mode(mode).with_stats(stats);
        check(&targets, &problem, &mut worst);
    }
    report(&worst);
}

/// A large shape on the fastest adapter that grants bindings as large, and on the CPU executor. The
/// oracle looks at some groups (a group's channels are a problem of their own); each element of the
/// others is compared between the two executors, which share neither code nor order of summation.
fn check_large(dims: &[usize], num_groups: usize, groups: &[usize], limits: DeviceLimits) {
    let problem = Problem::random_large(dims, num_groups, 21);
    let part = problem.restricted(groups);
    let expected = run::expected(&part);
    let bounds = conditioning::bounds(&part, &expected);
    let mut worst = Worst::default();
    let mut run = |target: &Target| {
        let outputs = target.run(&problem);
        let some = problem.restrict_outputs(&outputs, groups);
        let what = format!("{}: {dims:?}", target.name);
        let found = conditioning::assert_outputs(&what, &some, &expected, &bounds);
        worst.take(found.fraction, || found.what);
        outputs
    };
    let on_cpu = run(&Target::cpu());
    let fits = targets::by_speed(limits).into_iter().find(|target| {
        let refusal = target.refuses(&problem);
        if let Some(error) = &refusal {
            assert!(matches!(error, Error::Limit { .. }), "{error}");
            println!("{}: {error}", target.name);
        }
        refusal.is_none()
    });
    if let Some(target) = &fits {
        for (name, got) in run(target) {
            let other: Vec<f64> = on_cpu[name].iter().map(|&v| f64::from(v)).collect();
            // One bound for each executor; the bound is that of the groups looked at, and the least
            // favourable group of all may be 4 times worse.
            let scale = bcnorm_testkit::oracle::scale(&other).max(expected[name].1);
            let what = format!("{}: {dims:?}: {name}", target.name);
            common::compare::assert_close(&what, &got, &other, scale, 8.0 * bounds[name]);
        }
    }
    // WebGPU's default limits are there everywhere: only larger tensors may find no adapter.
    assert!(fits.is_some() || limits == DeviceLimits::Adapter);
    report(&worst);
}

#[test]
fn large_32_64_56_56() {
    check_large(&[32, 64, 56, 56], 16, &[0, 9, 15], DeviceLimits::Default);
}

#[test]
fn large_64_2048_7_7() {
    check_large(&[64, 2048, 7, 7], 32, &[0, 17, 31], DeviceLimits::Default);
}

/// 6.4 million rows of one element: a row's entry in a table is larger than the row.
#[test]
fn large_200704_32() {
    check_large(&[200_704, 32], 2, &[1], DeviceLimits::Default);
}

#[test]
fn large_88_980_16_16() {
    check_large(&[88, 980, 16, 16], 49, &[0, 31, 48], DeviceLimits::Default);
}

/// 246 MB: more than WebGPU's default binding of 128 MiB.
#[test]
fn large_1_64_800_1200() {
    check_large(&[1, 64, 800, 1200], 32, &[0, 31], DeviceLimits::Adapter);
}

/// Runs problems one after the other on the same state, everywhere, against a chain of oracles.
fn check_steps(what: &str, mut problems: Vec<Problem>) {
    // The oracle's state goes to the next step in f32, as PyTorch keeps it.
    let mut counts = Vec::new();
    for i in 0..problems.len() {
        let after = problems[i].oracle();
        let count = after.num_batches_tracked as u32;
        counts.push(count);
        if let Some(next) = problems.get_mut(i + 1) {
            let f32s =
                |values: Option<Vec<f64>>| values.unwrap().iter().map(|&v| v as f32).collect();
            next.running_mean = f32s(after.running_mean);
            next.running_var = f32s(after.running_var);
            next.num_batches_tracked = count;
        }
    }
    for target in targets::all() {
        let mut worst = Worst::default();
        let results = run_steps(&target, &problems);
        assert_eq!(results.len(), problems.len());
        for (step, (outputs, count)) in results.iter().enumerate() {
            let what = format!("{}: {what}, step {step}", target.name);
            let expected = run::expected(&problems[step]);
            // The state of step i carries the roundings of the i steps before.
            let mut bounds = conditioning::bounds(&problems[step], &expected);
            bounds
                .values_mut()
                .for_each(|bound| *bound *= 1.0 + step as f64);
            let found = conditioning::assert_outputs(&what, outputs, &expected, &bounds);
            worst.take(found.fraction, || found.what);
            assert_eq!(*count, counts[step], "{what}");
        }
        report(&worst);
    }
}

#[test]
fn running_statistics_of_batches() {
    for momentum in [Some(0.0), Some(0.1), Some(1.0), None] {
        let step = |seed| {
            let mut problem = Problem::random(&[4, 6, 5, 3], 2, seed)
                .with_stats(ChannelStats::Batch { momentum });
            problem.num_batches_tracked = 0;
            problem
        };
        let mut problems: Vec<_> = (1..=5).map(step).collect();
        // Eval neither counts nor moves.
        problems.insert(3, step(9).with_mode(Mode::Eval));
        check_steps(&format!("momentum {momentum:?}"), problems);
    }
}

#[test]
fn running_statistics_of_estimates() {
    for speeds in [[0.0; 4], [1.0; 4], [0.05; 4], [0.0, 0.3, 0.6, 1.0]] {
        let step = |(seed, moving_speed)| {
            let problem = Problem::random(&[4, 6, 5, 3], 2, seed);
            problem.with_stats(ChannelStats::Estimate { moving_speed })
        };
        let mut problems: Vec<_> = (1..).zip(speeds).map(step).collect();
        problems.insert(2, step((9, 0.5)).with_mode(Mode::Eval));
        check_steps(&format!("speeds {speeds:?}"), problems);
    }
}

/// A momentum or a speed of 0, and eval, leave the running statistics as they are, to the bit; a
/// momentum of 1 forgets them.
#[test]
fn running_statistics_that_stay() {
    let stay = [
        (
            Mode::Train,
            ChannelStats::Batch {
                momentum: Some(0.0),
            },
        ),
        (Mode::Train, ChannelStats::Estimate { moving_speed: 0.0 }),
        (Mode::Eval, BATCH),
        (Mode::Eval, ESTIMATE),
        (
            Mode::Eval,
            ChannelStats::Batch {
                momentum: Some(1.0),
            },
        ),
    ];
    for target in targets::all() {
        for (mode, stats) in stay {
            let problem = Problem::random(&[3, 4, 7], 2, 1)
                .with_mode(mode)
                .with_stats(stats);
            let outputs = target.run(&problem);
            for (name, before) in [
                ("bn.running_mean_after", &problem.running_mean),
                ("bn.running_var_after", &problem.running_var),
            ] {
                let what = format!("{}: {mode:?} {stats:?} {name}", target.name);
                common::compare::assert_same_bits(&what, &outputs[name], before);
            }
        }
        let problem = Problem::random(&[3, 4, 7], 2, 1).with_stats(ChannelStats::Batch {
            momentum: Some(1.0),
        });
        let other = Problem {
            running_mean: vec![1e6; 4],
            running_var: vec![1e9; 4],
            ..problem.clone()
        };
        let (a, b) = (target.run(&problem), target.run(&other));
        for name in [
            "bn.running_mean_after",
            "bn.running_var_after",
            "y",
            "grad_x",
        ] {
            common::compare::assert_same_bits(&target.name, &a[name], &b[name]);
        }
    }
}

/// Gradients with frozen statistics (backward in eval): no gradient flows through them, so that
/// each sample's depends on that sample alone. The batch's statistics do couple samples.
#[test]
fn frozen_statistics() {
    // Whole words of 4 whatever the number of samples: the same kernels, the same bits.
    let whole = Problem::random(&[2, 6, 8], 3, 4);
    let row = 6 * 8;
    let first = Problem {
        dims: vec![1, 6, 8],
        x: whole.x[..row].to_vec(),
        grad_y: whole.grad_y[..row].to_vec(),
        ..whole.clone()
    };
    for target in targets::all() {
        for (mode, stats, alone) in [
            (Mode::Eval, BATCH, true),
            (Mode::Eval, ESTIMATE, true),
            // Speed 0 freezes them in training, too.
            (
                Mode::Train,
                ChannelStats::Estimate { moving_speed: 0.0 },
                true,
            ),
            (Mode::Train, BATCH, false),
        ] {
            let of =
                |problem: &Problem| target.run(&problem.clone().with_mode(mode).with_stats(stats));
            let (whole, first) = (of(&whole), of(&first));
            let same = whole["grad_x"][..row] == first["grad_x"][..];
            assert_eq!(same, alone, "{}: {mode:?} {stats:?}", target.name);
        }
    }
}

#[test]
fn one_value_per_channel() {
    // As PyTorch: refused in training, whichever executor would run it.
    let refused = Problem::random(&[1, 192, 1, 1], 32, 1);
    let tensor = refused.tensor();
    for tuning in [Tuning::GPU, Tuning::SOFTWARE, Tuning::CPU] {
        let options = ForwardOptions::default();
        let plan = Plan::forward(&refused.norm, &tensor, Mode::Train, options, &tuning);
        let error = plan.unwrap_err();
        assert!(matches!(error, Error::OneValuePerChannel { .. }), "{error}");
        let options = BackwardOptions::default();
        let plan = Plan::backward(&refused.norm, &tensor, Mode::Train, options, &tuning);
        assert_eq!(plan.unwrap_err(), error);
    }
    // Where no batch statistics are needed, it runs.
    let (targets, mut worst) = (targets::all(), Worst::default());
    for &(mode, stats) in &KINDS[1..] {
        let problem = refused.clone().with_mode(mode).with_stats(stats);
        check(&targets, &problem, &mut worst);
    }
    // Two values are enough.
    for dims in [[2, 192, 1, 1], [1, 192, 1, 2]] {
        check(&targets, &Problem::random(&dims, 32, 1), &mut worst);
    }
    report(&worst);
}

/// A group of one element is its own mean: y is the group's bias to the bit, and no gradient passes
/// but the bias's.
#[test]
fn one_element_groups() {
    for target in targets::all() {
        for dims in [&[3, 7][..], &[3, 7, 1, 1], &[2, 8, 1]] {
            for (mode, stats) in KINDS {
                for eps in [1e-5, 1e-8, 0.0] {
                    let mut problem = Problem::random(dims, dims[1], 2)
                        .with_mode(mode)
                        .with_stats(stats);
                    problem.norm.eps = eps;
                    let outputs = target.run(&problem);
                    let what = format!("{}: {dims:?} {mode:?} {stats:?} eps {eps}", target.name);
                    let bias: Vec<f32> = problem.bias.repeat(dims[0]);
                    common::compare::assert_same_bits(&what, &outputs["y"], &bias);
                    for (name, values) in &outputs {
                        if name.starts_with("grad_") && *name != "grad_bias" {
                            assert!(
                                values.iter().all(|v| *v == 0.0),
                                "{what}: {name} {values:?}"
                            );
                        }
                    }
                }
            }
        }
    }
}

/// What a NaN or an Inf may reach: as the oracle's formulas take it, finite values as if it were
/// not there.
fn check_pattern(what: &str, target: &Target, problem: &Problem, clean: &Problem) -> Outputs {
    let expected = run::expected(problem);
    // Bounds of the problem without it: what stays finite has no part in it.
    let bounds = conditioning::bounds(clean, &run::expected(clean));
    let outputs = target.run(problem);
    for (name, got) in &outputs {
        let (values, scale) = &expected[name];
        assert_eq!(got.len(), values.len());
        for (i, (&got, &expected)) in got.iter().zip(values).enumerate() {
            let what = format!("{}: {what}: {name}[{i}]", target.name);
            assert_eq!(
                got.is_finite(),
                expected.is_finite(),
                "{what} is {got}, expected {expected}"
            );
            if got.is_finite() {
                let error = bcnorm_testkit::oracle::element_error(got.into(), expected, *scale);
                assert!(
                    error <= bounds[name],
                    "{what} is {got}, expected {expected}"
                );
            }
        }
    }
    outputs
}

/// Where a NaN or an Inf in x ends: in training in its channel's group of every sample, in eval (and
/// with frozen estimates) in its own (sample, group).
#[test]
fn nan_and_inf_in_x() {
    let targets: Vec<Target> = targets::all()
        .into_iter()
        .chain(targets::with_tuning(Tuning::GPU))
        .collect();
    let (samples, channels, len, groups) = (3, 8, 49, 4);
    let size = channels / groups * len;
    let clean = Problem::random(&[samples, channels, 7, 7], groups, 6);
    for target in &targets {
        for (mode, stats) in KINDS {
            let clean = clean.clone().with_mode(mode).with_stats(stats);
            // The first element of a row, one within, the last one, beside a row's end, the last.
            for (special, n, c, l) in [
                (f32::NAN, 1, 2, 0),
                (f32::NAN, 0, 0, 17),
                (f32::NAN, 2, 7, 48),
                (f32::INFINITY, 0, 5, 48),
                (f32::NEG_INFINITY, 1, 3, 0),
                (f32::INFINITY, 2, 0, 30),
            ] {
                let mut problem = clean.clone();
                problem.x[(n * channels + c) * len + l] = special;
                let what = format!("{mode:?} {stats:?}, {special} at ({n}, {c}, {l})");
                let outputs = check_pattern(&what, target, &problem, &clean);
                // Not only as the oracle says, but as the definition does.
                let group = c / (channels / groups);
                for (i, y) in outputs["y"].iter().enumerate() {
                    let hit = i / size % groups == group
                        && (mode == Mode::Train || i / (size * groups) == n);
                    assert_eq!(
                        y.is_finite(),
                        !hit,
                        "{}: {what}: y[{i}] is {y}",
                        target.name
                    );
                }
            }
        }
    }
}

#[test]
fn nan_and_inf_elsewhere() {
    let clean = Problem::random(&[3, 8, 7, 7], 4, 6);
    for target in targets::all() {
        for (mode, stats) in KINDS {
            let clean = clean.clone().with_mode(mode).with_stats(stats);
            for special in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let spoil = |what: &str, spoil: &dyn Fn(&mut Problem)| {
                    let mut problem = clean.clone();
                    spoil(&mut problem);
                    let what = format!("{mode:?} {stats:?}, {special} in {what}");
                    check_pattern(&what, &target, &problem, &clean)
                };
                // y never sees dy.
                for at in [0, 48, 49 * 9 + 5, 49 * 24 - 1] {
                    let outputs = spoil("dy", &|p| p.grad_y[at] = special);
                    assert!(outputs["y"].iter().all(|v| v.is_finite()));
                    assert!(outputs["grad_x"].iter().any(|v| !v.is_finite()));
                }
                spoil("bn.weight", &|p| p.bn_weight[3] = special);
                spoil("bn.bias", &|p| p.bn_bias[3] = special);
                spoil("weight", &|p| p.weight[1] = special);
                spoil("bias", &|p| p.bias[1] = special);
                spoil("running_mean", &|p| p.running_mean[5] = special);
                spoil("two samples of a channel", &|p| {
                    p.x[4 * 49 + 1] = special;
                    p.x[(8 + 4) * 49 + 2] = -special;
                });
            }
        }
    }
}

const EMPTY: [&[usize]; 5] = [
    &[0, 4, 3],
    &[2, 4, 0],
    &[0, 4],
    &[2, 4, 0, 5],
    &[2, 4, 3, 0],
];

/// An empty batch: no output, running statistics and count as they were, gradients 0 or, where they
/// are added, as they were.
#[test]
fn empty_batches() {
    for target in targets::all() {
        for dims in EMPTY {
            for (mode, stats) in KINDS {
                for parameters in [GradientMode::Replace, GradientMode::Accumulate] {
                    let problem = Problem::random(dims, 2, 1)
                        .with_mode(mode)
                        .with_stats(stats);
                    let what = format!("{}: {dims:?} {mode:?} {stats:?}", target.name);
                    check_empty(&what, &target, &problem, parameters);
                }
            }
        }
    }
}

const GRADIENTS: [(Role, usize); 4] = [
    (Role::GradBnWeight, 4),
    (Role::GradBnBias, 4),
    (Role::GradWeight, 2),
    (Role::GradBias, 2),
];

/// What is in the gradients before: numbers that stay where gradients are added.
const BEFORE: f32 = 1.5;

fn check_empty(what: &str, target: &Target, problem: &Problem, parameters: GradientMode) {
    let options = BackwardOptions::default().with_parameters(parameters);
    let plans = run::plans(problem, options, &target.tuning()).unwrap();
    assert!(plans[0].steps().is_empty(), "{what}");
    let (after, count) = match &target.device {
        Some(_) => empty_on_gpu(target, problem, &plans),
        None => empty_on_cpu(problem, &plans),
    };
    assert_eq!(count, problem.num_batches_tracked, "{what}");
    let [mean, var] = [Role::RunningMean, Role::RunningVar].map(|role| &after[&role]);
    assert_eq!(mean, &problem.running_mean, "{what}");
    assert_eq!(var, &problem.running_var, "{what}");
    for (role, len) in GRADIENTS {
        let value = match parameters {
            GradientMode::Replace => 0.0,
            _ => BEFORE,
        };
        assert_eq!(
            after[&role],
            vec![value; len],
            "{what}: {role} {parameters:?}"
        );
    }
}

/// Running statistics, gradients and the count afterwards.
type Empty = (BTreeMap<Role, Vec<f32>>, u32);

fn empty_on_gpu(target: &Target, problem: &Problem, plans: &[Plan]) -> Empty {
    let (gpu, pipelines) = target.device.as_ref().unwrap();
    let mut bench = GpuProblem::new(gpu, problem, plans);
    for (role, len) in GRADIENTS {
        let buffer = transfer::upload(&gpu.device, role.name(), &vec![BEFORE; len]).unwrap();
        bench.buffers.insert(role, buffer);
    }
    bench.run(pipelines);
    let read = |(role, len)| {
        let buffer = &bench.buffers[&role];
        let values = transfer::read(&gpu.device, &gpu.queue, buffer, 0, len);
        (role, block_on(values).unwrap())
    };
    let roles = [(Role::RunningMean, 4), (Role::RunningVar, 4)];
    let after = roles.into_iter().chain(GRADIENTS).map(read).collect();
    let count = &bench.buffers[&Role::NumBatchesTracked];
    let count = transfer::read::<u32>(&gpu.device, &gpu.queue, count, 0, 1);
    (after, block_on(count).unwrap()[0])
}

fn empty_on_cpu(problem: &Problem, plans: &[Plan]) -> Empty {
    let mut buffers = run::host_buffers(problem, plans);
    for (role, len) in GRADIENTS {
        buffers.set(role, vec![BEFORE; len]);
    }
    for plan in plans {
        Executor::new().run(plan, &mut buffers).unwrap();
    }
    let roles = [Role::RunningMean, Role::RunningVar].into_iter();
    let roles = roles.chain(GRADIENTS.map(|(role, _)| role));
    let after = roles.map(|role| (role, buffers.get(role).unwrap().to_vec()));
    let count = buffers.get_u32(Role::NumBatchesTracked).unwrap()[0];
    (after.collect(), count)
}

/// Sizes that no machine could hold are no matter where one of the sizes is 0.
#[test]
fn empty_batches_of_any_size() {
    for dims in [
        [0, 4, 1 << 40],
        [usize::MAX, 4, 0],
        [1 << 20, 4, 0],
        [1 << 31, 4, 0],
    ] {
        let tensor = TensorDesc::new(&dims).unwrap();
        assert_eq!((tensor.elements(), tensor.bytes()), (0, 0));
        let norm = NormDesc::bc_norm(4, 2);
        for tuning in [Tuning::GPU, Tuning::SOFTWARE, Tuning::CPU] {
            let options = ForwardOptions::default();
            let plan = Plan::forward(&norm, &tensor, Mode::Train, options, &tuning);
            assert!(
                plan.unwrap_or_else(|e| panic!("{dims:?}: {e}"))
                    .steps()
                    .is_empty()
            );
            let options = BackwardOptions::default();
            let plan = Plan::backward(&norm, &tensor, Mode::Train, options, &tuning);
            assert_eq!(
                plan.unwrap_or_else(|e| panic!("{dims:?}: {e}"))
                    .steps()
                    .len(),
                1
            );
        }
    }
}
