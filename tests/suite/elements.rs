//! Short rows, whose elements are rows of their own, and groups that one kernel takes whole: whole plans
//! against the oracle, on every adapter and on the CPU executor, with the adapter's own tuning, with that
//! for GPUs and with one that calls every row up to 16 elements short. Ordinary data, and data that break
//! sums of few elements: large means, an outlier that comes first, constants, NaN.
#![allow(missing_docs)]

use crate::common;

use bcnorm::cpu::Executor;
use bcnorm::gpu::Pipelines;
use bcnorm::gpu::headless::{DeviceLimits, Gpu};
use bcnorm::kernels::Family;
use bcnorm::{
    Activation, BackwardOptions, ChannelStats, DType, ForwardOptions, Fusion, Layout, Mode,
    NormDesc, NormKind, Plan, Role, Tuning,
};
use common::conditioning::{self, Expected, Worst};
use common::problem::Problem;
use common::run::{self, GpuProblem, Outputs};
use common::{adapters, compare, of_each_type};
use std::collections::BTreeMap;

const ESTIMATE: ChannelStats = ChannelStats::Estimate { moving_speed: 0.3 };

/// Words of one channel and of several, of 4, 2 and 1 elements; groups that a lane holds, that lanes share,
/// that are too large to be held, of one sample and of several; of two elements, and of one.
const SHAPES: &[(&[usize], usize)] = &[
    (&[2048, 12], 3),
    (&[64, 48, 2, 3], 8),
    (&[33, 10, 1], 5),
    (&[33, 10, 1], 1),
    (&[7, 15, 5], 3),
    (&[129, 8, 4, 4], 2),
    (&[70, 23], 1),
    (&[5, 32, 3, 3], 4),
    (&[2, 6, 1], 3),
    (&[2, 6, 1], 6),
    (&[4, 64, 16], 2),
    (&[3, 512, 2], 1),
];

/// The members that have a group part.
fn norms(channels: usize, groups: usize) -> Vec<(&'static str, NormDesc)> {
    let bc = NormDesc::bc_norm(channels, groups);
    let group = NormDesc::group_norm(groups, channels);
    vec![
        ("bc_norm", bc),
        ("bc_norm, estimate", bc.with_stats(ESTIMATE)),
        ("bc_norm, per channel", bc.with_per_channel_affine(true)),
        (
            "bc_norm, no affine",
            bc.with_weight(false)
                .with_bias(false)
                .with_bn_weight(false)
                .with_bn_bias(false),
        ),
        ("bc_norm, untracked", bc.with_track_running_stats(false)),
        ("group_norm", group),
        (
            "group_norm, no affine",
            group.with_weight(false).with_bias(false),
        ),
        ("layer_norm", NormDesc::layer_norm(channels)),
        (
            "instance_norm",
            NormDesc::instance_norm(channels)
                .with_weight(true)
                .with_bias(true),
        ),
    ]
}

/// Every row of up to 16 elements is short, held or not; every group of up to 4096 fits.
fn short(tuning: Tuning) -> Tuning {
    tuning.with(|t| {
        t.short_rows.max_row = 16;
        t.short_rows.max_batch_row = 16;
        t.inference.max_group = 4096;
        t.inference.max_tensor = u32::MAX;
    })
}

/// No row is short, no group fits.
fn long(tuning: Tuning) -> Tuning {
    tuning.with(|t| {
        t.short_rows.max_row = 0;
        t.short_rows.max_batch_row = 0;
        t.inference.max_group = 0;
    })
}

/// An executor of plans of one tuning.
struct Way {
    name: String,
    tuning: Tuning,
    gpu: Option<(Gpu, Pipelines)>,
}

impl Way {
    fn cpu(name: &str, tuning: Tuning) -> Self {
        Way {
            name: format!("cpu, {name}"),
            tuning,
            gpu: None,
        }
    }

    fn all() -> Vec<Way> {
        let mut ways = vec![
            Way::cpu("own", Tuning::CPU),
            Way::cpu("short", short(Tuning::CPU)),
        ];
        // Kernels that tunings share are compiled once.
        let gpus = adapters::gpus(DeviceLimits::Default).into_iter();
        let gpus = gpus.map(|(name, gpu)| {
            let pipelines = Pipelines::new(&gpu.device);
            (name, gpu, pipelines)
        });
        let gpus: Vec<_> = gpus.collect();
        for (tuning_name, of) in [
            ("own", (|own| own) as fn(Tuning) -> Tuning),
            ("short", short),
            ("GPU", |_| Tuning::GPU),
        ] {
            for (name, gpu, pipelines) in &gpus {
                ways.push(Way {
                    name: format!("{name}, {tuning_name}"),
                    tuning: of(Tuning::for_device(&gpu.device)),
                    gpu: Some((gpu.clone(), pipelines.clone())),
                });
            }
        }
        ways
    }

    /// Forward and, unless it is alone, backward.
    fn plans(&self, problem: &Problem, forward: ForwardOptions) -> Vec<Plan> {
        let mut plans = vec![problem.forward_plan(forward, &self.tuning).unwrap()];
        if problem.backward {
            let options = BackwardOptions::default();
            plans.push(problem.backward_plan(options, &self.tuning).unwrap());
        }
        plans
    }

    /// What plans leave, everything poisoned beforehand.
    fn run(&self, problem: &Problem, plans: &[Plan]) -> Outputs {
        match &self.gpu {
            Some((gpu, pipelines)) => {
                let bench = GpuProblem::new(gpu, problem, plans);
                bench.run(pipelines);
                let results = bench.results();
                let results = results.unwrap_or_else(|error| panic!("{}: {error}", self.name));
                results.outputs
            }
            None => {
                let mut buffers = run::host_buffers(problem, plans);
                for plan in plans {
                    Executor::new().run(plan, &mut buffers).unwrap();
                }
                run::host_outputs(problem, plans, &buffers)
            }
        }
    }
}

fn is_of_elements(plan: &Plan) -> bool {
    let mut families = plan
        .steps()
        .iter()
        .map(|step| step.spec.kernel.kernel().family);
    families.any(|family| [Family::ElementReduce, Family::ElementColumn].contains(&family))
}

/// The ways of a problem: those of the CPU executor, and of those on adapters, which compile for most of their
/// time, one in eleven by turns; one in seven where tests take their time. (Both are prime to how often modes, types,
/// norms and data come round, so that each meets each way.)
fn in_turn(ways: &[Way], problem: usize) -> impl Iterator<Item = &Way> {
    let share = if adapters::long() { 7 } else { 11 };
    let turns = ways.iter().enumerate();
    let turns = turns
        .filter(move |(index, way)| way.gpu.is_none() || (index + problem).is_multiple_of(share));
    turns.map(|(_, way)| way)
}

/// What was compared.
#[derive(Default)]
struct Report {
    worst: Worst,
    problems: usize,
    runs: usize,
    of_elements: usize,
    wrong: Vec<String>,
}

impl Report {
    fn check(&mut self, ways: &[Way], what: &str, problem: &Problem, forward: ForwardOptions) {
        let expected = run::expected(problem);
        let bounds = conditioning::bounds(problem, &expected);
        self.check_against(ways, what, problem, forward, (&expected, &bounds));
    }

    fn check_against(
        &mut self,
        ways: &[Way],
        what: &str,
        problem: &Problem,
        forward: ForwardOptions,
        (expected, bounds): (&Expected, &BTreeMap<&'static str, f64>),
    ) {
        self.problems += 1;
        for way in in_turn(ways, self.problems) {
            let plans = way.plans(problem, forward);
            let outputs = way.run(problem, &plans);
            // By its own tuning the CPU executor takes elements up to 2 a row only.
            if way.tuning != Tuning::CPU {
                self.runs += 1;
                self.of_elements += usize::from(is_of_elements(&plans[0]));
            }
            let what = format!("{}: {what}", way.name);
            match conditioning::judge_problem(problem, &outputs, expected, bounds) {
                Ok(found) => {
                    let Worst { fraction, what: of } = found;
                    self.worst.take(fraction, || format!("{what}: {of}"));
                }
                Err(wrong) => self.wrong.push(format!("{what}: {wrong}")),
            }
        }
    }

    /// Fails for all that was wrong at once, and where too few of the plans took the way at issue.
    fn finish(self, least: f64) {
        let Worst { fraction, what } = &self.worst;
        println!(
            "{} runs, {} of elements; worst: {fraction:.2} of its bound, {what}",
            self.runs, self.of_elements
        );
        let wrong = &self.wrong[..self.wrong.len().min(40)];
        assert!(
            wrong.is_empty(),
            "{} wrong:\n{}",
            self.wrong.len(),
            wrong.join("\n")
        );
        let share = self.of_elements as f64 / self.runs as f64;
        assert!(
            share >= least,
            "{share:.3} of the runs took rows of elements, less than {least}"
        );
    }
}

fn name(problem: &Problem, norm: &str) -> String {
    format!(
        "{norm} {:?} G={} {} {:?} {:?}",
        problem.dims,
        problem.norm.num_groups,
        problem.dtype.name(),
        problem.mode,
        problem.fusion
    )
}

/// Calls `check` with every shape, norm, mode and type that there is.
fn for_every_problem(mut check: impl FnMut(&str, Problem)) {
    for (index, &(dims, groups)) in SHAPES.iter().enumerate() {
        for (norm_name, norm) in norms(dims[1], groups) {
            for mode in [Mode::Train, Mode::Eval] {
                for dtype in [DType::F32, DType::F16, DType::BF16] {
                    let problem = Problem::random_of(norm, dims, index as u64)
                        .with_mode(mode)
                        .with_dtype(dtype);
                    // PyTorch takes no instance of one element.
                    if problem.check().is_ok() {
                        check(&name(&problem, norm_name), problem);
                    }
                }
            }
        }
    }
}

fn forward_and_backward(dtype: DType) {
    let (ways, mut report) = (Way::all(), Report::default());
    for_every_problem(|what, problem| {
        if problem.dtype == dtype {
            report.check(&ways, what, &problem, ForwardOptions::default());
        }
    });
    report.finish(0.6);
}

of_each_type! { forward_and_backward }

/// A residual without an activation, to which backward need not look.
#[test]
fn with_a_residual() {
    let (ways, mut report) = (Way::all(), Report::default());
    let mut turn = 0;
    for_every_problem(|what, problem| {
        turn += 1;
        if turn % 5 == 0 {
            let fusion = Fusion::default().with_residual(true);
            let problem = problem.with_fusion(fusion);
            report.check(&ways, what, &problem, ForwardOptions::default());
        }
    });
    report.finish(0.6);
}

/// Without a backward, in place and not, with every fusion; rows are long here, too.
#[test]
fn alone() {
    let (ways, mut report) = (Way::all(), Report::default());
    let mut turn = 0;
    let mut check = |problem: Problem, norm_name: &str| {
        turn += 1;
        let fusion = Fusion::NONE
            .with_activation([Activation::None, Activation::Relu, Activation::Silu][turn % 3])
            .with_residual(turn / 3 % 2 == 1);
        let in_place = problem.mode == Mode::Eval && turn / 6 % 2 == 1;
        let forward = ForwardOptions::default()
            .with_in_place(in_place)
            .with_inference(!in_place);
        let problem = problem.forward_only().with_fusion(fusion);
        let what = format!("{}, in place: {in_place}", name(&problem, norm_name));
        report.check(&ways, &what, &problem, forward);
    };
    // One in 7, for time: not a divisor of the 6 modes and types of a norm, so that each of them has its turn.
    let mut index = 0;
    for_every_problem(|what, problem| {
        index += 1;
        if index % 7 == 0 {
            check(problem, what);
        }
    });
    for (dims, groups) in [
        (&[2, 8, 7, 11][..], 2),
        (&[2, 8, 10, 10], 4),
        (&[3, 4, 100], 4),
        (&[2, 16, 16, 16], 1),
    ] {
        for (norm_name, norm) in norms(dims[1], groups) {
            for dtype in [DType::F32, DType::F16, DType::BF16] {
                let problem = Problem::random_of(norm, dims, 9).with_mode(Mode::Eval);
                check(problem.with_dtype(dtype), norm_name);
            }
        }
    }
    // The last four shapes have long rows under every adapter's own tuning.
    report.finish(0.5);
}

/// Shapes for data that are no ordinary ones.
const HARD: &[(&[usize], usize)] = &[
    (&[64, 48, 2, 3], 8),
    (&[33, 10, 1], 5),
    (&[129, 8, 4, 4], 2),
    (&[64, 12], 3),
    (&[3, 512, 2], 1),
    (&[4, 1024], 1),
];

/// Which norms a test takes.
type Only = fn(&NormDesc) -> bool;

const BC_NORM: Only = |norm| norm.kind == NormKind::BcNorm;
const OTHERS: Only = |norm| norm.kind != NormKind::BcNorm;

/// Calls `check` with a problem of each of these shapes and norms, in both modes.
fn for_every_hard(only: Only, mut check: impl FnMut(&str, Problem)) {
    for (index, &(dims, groups)) in HARD.iter().enumerate() {
        let norms = norms(dims[1], groups).into_iter();
        for (norm_name, norm) in norms.filter(|(_, norm)| only(norm)) {
            for mode in [Mode::Train, Mode::Eval] {
                let problem = Problem::random_of(norm, dims, index as u64).with_mode(mode);
                if problem.check().is_ok() {
                    check(&name(&problem, norm_name), problem);
                }
            }
        }
    }
}

/// The first element of every (sample, group).
fn firsts(problem: &Problem) -> impl Iterator<Item = usize> + use<> {
    let size = problem.x.len() / problem.dims[0] / problem.norm.num_groups;
    (0..problem.x.len()).step_by(size)
}

/// Means of 1000 and 10,000 deviations, of x and of its running statistics.
fn large_means(only: Only, ways: &[Way], report: &mut Report) {
    for_every_hard(only, |what, clean| {
        for mean in [1e3, 1e4] {
            let mut problem = clean.clone();
            problem.x.iter_mut().for_each(|x| *x += mean);
            problem.running_mean.iter_mut().for_each(|m| *m += mean);
            let what = format!("{what}, mean {mean:e}");
            report.check(ways, &what, &problem, ForwardOptions::default());
        }
    });
}

/// The element that sums are taken about is far from all others.
fn outliers_that_come_first(only: Only, ways: &[Way], report: &mut Report) {
    for_every_hard(only, |what, clean| {
        for outlier in [1e3, -1e4] {
            let mut of_x = clean.clone();
            firsts(&clean).for_each(|first| of_x.x[first] = outlier);
            let mut of_dy = clean.clone();
            firsts(&clean).for_each(|first| of_dy.grad_y[first] = outlier);
            for (of, problem) in [("x", of_x), ("dy", of_dy)] {
                let what = format!("{what}, {of} {outlier:e}");
                report.check(ways, &what, &problem, ForwardOptions::default());
            }
        }
    });
}

fn upstream_gradients_with_a_large_mean(only: Only, ways: &[Way], report: &mut Report) {
    for_every_hard(only, |what, clean| {
        for mean in [1e2, 1e4] {
            let mut problem = clean.clone();
            problem.grad_y.iter_mut().for_each(|dy| *dy += mean);
            let what = format!("{what}, dy {mean:e}");
            report.check(ways, &what, &problem, ForwardOptions::default());
        }
    });
}

/// Equal in all channels, and nearly so.
fn large_biases_of_the_channel_part(only: Only, ways: &[Way], report: &mut Report) {
    for_every_hard(only, |what, clean| {
        if clean.bn_bias.is_empty() {
            return;
        }
        let mut equal = clean.clone();
        equal.bn_bias.fill(1e3);
        let mut close = clean.clone();
        close.bn_bias.iter_mut().for_each(|bias| *bias += 1e3);
        for (biases, problem) in [("equal", equal), ("close", close)] {
            let what = format!("{what}, bn.bias 1e3, {biases}");
            report.check(ways, &what, &problem, ForwardOptions::default());
        }
    });
}

/// All of these in one test: they run the same kernels.
fn hard_data(only: Only) {
    let (ways, mut report) = (Way::all(), Report::default());
    large_means(only, &ways, &mut report);
    outliers_that_come_first(only, &ways, &mut report);
    upstream_gradients_with_a_large_mean(only, &ways, &mut report);
    large_biases_of_the_channel_part(only, &ways, &mut report);
    report.finish(0.6);
}

#[test]
fn hard_data_for_bc_norm() {
    hard_data(BC_NORM);
}

#[test]
fn hard_data_for_the_others() {
    hard_data(OTHERS);
}

/// A constant is its own mean to the bit: y is the bias, where the group's channels have one z.
#[test]
fn constants_are_their_bias() {
    let ways = Way::all();
    let (mut of_elements, mut turn) = (0, 0);
    for_every_hard(
        |_| true,
        |what, clean| {
            for value in [100.0, 3.3, 1234.567, 0.0, 1e-20] {
                let mut problem = clean.clone().forward_only();
                problem.x.fill(value);
                for values in [
                    &mut problem.bn_weight,
                    &mut problem.bn_bias,
                    &mut problem.running_mean,
                    &mut problem.running_var,
                ] {
                    values.fill(1.37);
                }
                let (channels, len) = (
                    problem.norm.num_channels,
                    problem.tensor().row_len() as usize,
                );
                let entries = problem.bias.len().max(1);
                let bias = |c: usize| problem.bias.get(c * entries / channels).copied();
                let sample = (0..channels * len).map(|i| bias(i / len).unwrap_or(0.0));
                let y = sample.collect::<Vec<f32>>().repeat(problem.dims[0]);
                turn += 1;
                for way in in_turn(&ways, turn) {
                    for inference in [false, true] {
                        let forward = ForwardOptions::default().with_inference(inference);
                        let plans = way.plans(&problem, forward);
                        of_elements += usize::from(is_of_elements(&plans[0]));
                        let got = way.run(&problem, &plans);
                        let what = format!("{}: {what}, {value} everywhere", way.name);
                        // 0 may have either sign.
                        let positive: Vec<f32> = got["y"].iter().map(|&y| y + 0.0).collect();
                        compare::assert_same_bits(&what, &positive, &y);
                    }
                }
            }
        },
    );
    assert!(of_elements > 1000, "{of_elements}");
}

/// Training takes a NaN or an Inf to its channel's groups of all samples, where the channel part is the
/// batch's; else it stays in its own (sample, group). In gradients it is where the oracle has it.
#[test]
fn nan_and_inf() {
    let ways = Way::all();
    let (mut of_elements, mut turn) = (0, 0);
    for_every_hard(
        |_| true,
        |what, clean| {
            let groups = clean.norm.num_groups;
            let size = clean.x.len() / clean.dims[0] / groups;
            for (special, sample, group, within) in [
                (f32::NAN, 1, 0, 0),
                (f32::NAN, 0, groups - 1, size - 1),
                (f32::INFINITY, 2, groups / 2, size / 2),
            ] {
                let mut problem = clean.clone();
                problem.x[(sample * groups + group) * size + within] = special;
                let expected = run::expected(&problem);
                let untracked = !problem.norm.track_running_stats;
                let of_batch =
                    clean.norm.kind == NormKind::BcNorm && (clean.mode == Mode::Train || untracked);
                turn += 1;
                for way in in_turn(&ways, turn) {
                    let plans = way.plans(&problem, ForwardOptions::default());
                    of_elements += usize::from(is_of_elements(&plans[0]));
                    let outputs = way.run(&problem, &plans);
                    let what = format!("{}: {what}, {special} in {sample}, {group}", way.name);
                    for (i, y) in outputs["y"].iter().enumerate() {
                        let item = i / size;
                        let hit = item % groups == group && (of_batch || item / groups == sample);
                        assert_eq!(y.is_finite(), !hit, "{what}: y[{i}] is {y}");
                    }
                    for (name, values) in &outputs {
                        for (i, (got, exact)) in values.iter().zip(&expected[name].0).enumerate() {
                            let same = got.is_finite() == exact.is_finite();
                            assert!(same, "{what}: {name}[{i}] is {got}, not {exact}");
                        }
                    }
                }
            }
        },
    );
    assert!(of_elements > 300, "{of_elements}");
}

/// Groups of one element are their own mean: y is the bias to the bit, and no gradient passes but the
/// bias's.
#[test]
fn groups_of_one_element() {
    for way in &Way::all() {
        for stats in [
            ChannelStats::Batch {
                momentum: Some(0.1),
            },
            ESTIMATE,
        ] {
            for mode in [Mode::Train, Mode::Eval] {
                for eps in [1e-5, 0.0] {
                    let mut problem = Problem::random(&[9, 7, 1], 7, 2)
                        .with_mode(mode)
                        .with_stats(stats);
                    problem.norm.eps = eps;
                    let plans = way.plans(&problem, ForwardOptions::default());
                    assert!(plans.iter().all(is_of_elements), "{}", way.name);
                    let outputs = way.run(&problem, &plans);
                    let what = format!("{}: {stats:?} {mode:?} eps {eps}", way.name);
                    compare::assert_same_bits(&what, &outputs["y"], &problem.bias.repeat(9));
                    for (name, values) in &outputs {
                        if name.starts_with("grad_") && *name != "grad_bias" {
                            let none = values.iter().all(|&value| value == 0.0);
                            assert!(none, "{what}: {name} {values:?}");
                        }
                    }
                }
            }
        }
    }
}

/// Which plans take the way: elements of a group together, rows no longer than the tuning says, nothing of
/// other devices or of the caller's, no activation that backward would have to compute again.
#[test]
fn short_rows_take_this_way() {
    let tuning = short(Tuning::GPU);
    let of = |problem: &Problem, options: ForwardOptions, tuning: &Tuning| {
        is_of_elements(&problem.forward_plan(options, tuning).unwrap())
    };
    let plain = ForwardOptions::default();
    let inference = plain.with_inference(true);
    let at = Problem::random(&[4, 8, 4, 4], 2, 1);
    let above = Problem::random(&[4, 8, 17], 2, 1);
    assert!(of(&at, plain, &tuning) && !of(&above, plain, &tuning));
    assert!(!of(&at, plain, &long(Tuning::GPU)));
    // Known statistics: the group is taken whole.
    let eval = above.clone().with_mode(Mode::Eval);
    assert!(of(&eval, inference, &tuning) && !of(&eval, plain, &tuning));
    assert!(!of(&above, inference, &tuning));
    let last = at.clone().with_layout(Layout::ChannelsLast);
    assert!(!of(&last, plain, &tuning));
    let relu = Fusion::NONE.with_activation(Activation::Relu);
    let fused = at.clone().with_fusion(relu);
    assert!(!of(&fused, plain, &tuning) && of(&fused, inference, &tuning));
    let ungrouped = Problem::random_of(NormDesc::batch_norm(8), &[4, 8, 4, 4], 1);
    assert!(!of(&ungrouped, plain, &tuning));
    // Groups of an odd number of 16 bits share words with their neighbours.
    let odd = Problem::random(&[4, 6, 3], 2, 1).with_dtype(DType::F16);
    assert!(!of(&odd, plain, &tuning));

    // No table of rows; x is read once where statistics are known.
    let plan = eval.forward_plan(inference, &tuning).unwrap();
    assert_eq!(plan.tensor_bytes(), 2 * eval.tensor().bytes());
    let kernels: Vec<&str> = plan
        .steps()
        .iter()
        .map(|step| step.spec.kernel.name())
        .collect();
    assert_eq!(kernels, ["channel_fold", "element_affine"]);
    let plan = at.forward_plan(plain, &tuning).unwrap();
    assert!(plan.need(Role::Rows).is_none() && plan.need(Role::Groups).is_some());

    // Of groups of one element the table of groups is larger than the tensor: where it fits no binding,
    // rows have tables.
    let tiny = Problem::random(&[64, 8], 8, 1);
    let table = 64 * 8 * 48;
    for (max_binding_bytes, fits) in [(table, true), (table - 4, false)] {
        let tuning = tuning.with(|t| t.limits.max_binding_bytes = max_binding_bytes);
        assert_eq!(of(&tiny, plain, &tuning), fits);
    }
}

/// Both ways compute the same: each within its bound of the oracle, and so of each other.
#[test]
fn both_ways_agree() {
    let mut compared = 0;
    let executor = Tuning::CPU;
    let ways = [
        Way::cpu("short", short(executor)),
        Way::cpu("long", long(executor)),
    ];
    for_every_problem(|what, problem| {
        let results = ways.each_ref().map(|way| {
            let plans = way.plans(&problem, ForwardOptions::default());
            (is_of_elements(&plans[0]), way.run(&problem, &plans))
        });
        let [(true, short), (false, long)] = &results else {
            // Groups of an odd number of 16 bits, or a few large groups.
            let (tensor, norm) = (problem.tensor(), problem.norm);
            let groups = tensor.num_samples() as usize * norm.num_groups;
            let size = norm.num_channels / norm.num_groups * tensor.row_len() as usize;
            let odd = problem.dtype != DType::F32 && size % 2 == 1;
            assert!(
                (odd || (groups < 8 && size > 16)) && !results[1].0,
                "{what}"
            );
            return;
        };
        let expected = run::expected(&problem);
        let bounds = conditioning::bounds(&problem, &expected);
        for (name, values) in short {
            let scale = expected[name].1;
            let unit = match problem.dtype {
                DType::F16 => 2f64.powi(-10),
                DType::BF16 => 2f64.powi(-7),
                _ => 0.0,
            };
            let allowed = (2.0 * bounds[name] + unit) * scale;
            for (i, (a, b)) in values.iter().zip(&long[name]).enumerate() {
                let far = (f64::from(*a) - f64::from(*b)).abs();
                assert!(far <= allowed, "{what}: {name}[{i}]: {a} and {b}");
            }
        }
        compared += 1;
    });
    assert!(compared > 300, "{compared}");
}
