//! Calls drawn at random over all that the library takes, forward and backward, against the f64
//! oracle, within bounds that follow from the data (`common/conditioning.rs`).
//!
//! The draws are the same on every run. `BCNORM_DRAWS=n` makes n of them in each test, `BCNORM_SEED=n` others;
//! a failure is shrunk and printed whole.
#![allow(missing_docs)]

use crate::common;

use bcnorm::cpu::Executor;
use bcnorm::gpu::headless::DeviceLimits;
use bcnorm::gpu::{Pipelines, headless::Gpu};
use bcnorm::params::{ColumnSplit, Parts, RowSplit, Table};
use bcnorm::{
    Activation, ChannelStats, DType, Error, ForwardOptions, Fusion, Layout, Mode, NormDesc,
    NormKind, Tuning,
};
use bcnorm_testkit::{Failure, storage};
use common::conditioning::{self, Worst};
use common::problem::Problem;
use common::random::Random;
use common::run::{self, GpuProblem, Outputs};
use common::{adapters, targets};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// Draws of a test without `BCNORM_DRAWS`, and where tests take their time. Nearly every one has kernels of its
/// own to compile.
const DRAWS: [u64; 2] = [50, 400];

/// Where x comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Data {
    /// This mean, in deviations.
    Normal(f32),
    /// Every channel and sample with a mean of its own, up to this many deviations from 0.
    Means(f32),
    /// Channels whose deviations are powers of 10.
    Scales,
    /// One value of every so many is 1e4 deviations off; the first one is.
    Outliers(usize),
    /// One value everywhere.
    Constant(f32),
    /// A value for each channel.
    Constants,
    /// A few integers.
    Integers,
    /// Alternating signs of one magnitude.
    Signs,
}

/// Where dy comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Upstream {
    /// This mean, in deviations.
    Normal(f32),
    /// This mean, of the other sign in every other row.
    TwoSigns(f32),
    Outliers,
    /// 0 but for every so many.
    Sparse(usize),
    Zero,
}

/// Parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Parameters {
    /// Weights around 1, biases around 0.
    Usual,
    /// Weights of 1, biases of 0.
    Fresh,
    /// Every other weight is 0.
    Zeros,
    /// Weights of either sign, up to 10 or down to 0.01.
    Wide,
    /// Biases of this size.
    Biases(f32),
}

/// A call, as it is drawn; [`problem`](Case::problem) makes it possible.
#[derive(Clone, Debug)]
struct Case {
    kind: NormKind,
    samples: usize,
    /// Groups, and channels of each.
    groups: usize,
    group_size: usize,
    spatial: Vec<usize>,
    /// Up to 40,000 elements instead of 6,000.
    large: bool,
    dtype: DType,
    layout: Layout,
    training: bool,
    stats: ChannelStats,
    tracked: bool,
    eps: f32,
    /// weight, bias, bn.weight, bn.bias.
    affine: [bool; 4],
    per_channel: bool,
    activation: Activation,
    residual: bool,
    in_place: bool,
    x: Data,
    /// x's deviation, a power of 10.
    scale: i32,
    grad_y: Upstream,
    parameters: Parameters,
    seed: u64,
}

const SIZES: [usize; 18] = [
    1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 13, 16, 17, 24, 31, 37, 64, 101,
];

fn cases() -> impl Strategy<Value = Case> {
    let norm = (
        select(NormKind::ALL),
        prop_oneof![
            3 => select(vec![Some(0.1f32), Some(0.0), Some(1.0), None])
                .prop_map(|momentum| ChannelStats::Batch { momentum }),
            1 => select(vec![0.3f32, 0.0, 1.0])
                .prop_map(|moving_speed| ChannelStats::Estimate { moving_speed }),
        ],
        prop::bool::weighted(0.8),
        select(vec![1e-5f32, 1e-5, 1e-5, 1e-3, 1e-8, 0.0, 1.0]),
        prop::array::uniform4(prop::bool::weighted(0.75)),
        any::<bool>(),
    );
    let shape = (
        select(&SIZES[..]),
        select(vec![1usize, 1, 2, 3, 5, 8]),
        select(vec![1usize, 2, 3, 4, 5, 8, 13, 32]),
        prop::collection::vec(select(&SIZES[..]), 0..4),
        prop::bool::weighted(0.02),
    );
    let call = (
        select(vec![DType::F32, DType::F32, DType::F16, DType::BF16]),
        select(vec![Layout::ChannelsFirst, Layout::ChannelsLast]),
        prop::bool::weighted(0.6),
        select(vec![
            Activation::None,
            Activation::None,
            Activation::Relu,
            Activation::Silu,
        ]),
        prop::bool::weighted(0.3),
        prop::bool::weighted(0.3),
    );
    let ratios = || select(vec![0.0f32, 1.0, 10.0, 100.0, 1e3, 1e4]);
    let data = (
        prop_oneof![
            8 => ratios().prop_map(Data::Normal),
            2 => ratios().prop_map(Data::Means),
            1 => Just(Data::Scales),
            2 => select(vec![7usize, 100, 5000]).prop_map(Data::Outliers),
            1 => select(vec![3.3f32, 0.0, -0.5, 100.0, 1234.567]).prop_map(Data::Constant),
            1 => Just(Data::Constants),
            1 => Just(Data::Integers),
            1 => Just(Data::Signs),
        ],
        prop_oneof![
            3 => Just(0i32),
            1 => select(vec![1, -1, 2, -3, 4, -6, 8, -10, 12]),
        ],
        prop_oneof![
            6 => ratios().prop_map(Upstream::Normal),
            1 => ratios().prop_map(Upstream::TwoSigns),
            1 => Just(Upstream::Outliers),
            1 => select(vec![2usize, 50]).prop_map(Upstream::Sparse),
            1 => Just(Upstream::Zero),
        ],
        prop_oneof![
            4 => Just(Parameters::Usual),
            1 => Just(Parameters::Fresh),
            1 => Just(Parameters::Zeros),
            1 => Just(Parameters::Wide),
            1 => select(vec![10.0f32, 1e3]).prop_map(Parameters::Biases),
        ],
        0u64..1 << 20,
    );
    (norm, shape, call, data).prop_map(|(norm, shape, call, data)| {
        let (kind, stats, tracked, eps, affine, per_channel) = norm;
        let (samples, groups, group_size, spatial, large) = shape;
        let (dtype, layout, training, activation, residual, in_place) = call;
        let (x, scale, grad_y, parameters, seed) = data;
        Case {
            kind,
            samples,
            groups,
            group_size,
            spatial,
            large,
            dtype,
            layout,
            training,
            stats,
            tracked,
            eps,
            affine,
            per_channel,
            activation,
            residual,
            in_place,
            x,
            scale,
            grad_y,
            parameters,
            seed,
        }
    })
}

/// Ways to share out work: the adapter's own, a GPU's with lanes that reduce through workgroup
/// memory, windows of 2.5 KiB with parts of two words, and both with many parts and segments. A window
/// holds a part at least: with channels last, all 256 channels of its positions.
fn tunings(own: Tuning) -> Vec<Tuning> {
    // Few numbers of lanes: each is a kernel of its own to compile.
    let shared = Tuning::GPU.with(|t| {
        t.reduction.workgroup_size = 64;
        t.map.workgroup_size = 64;
        t.reduction.lanes = 8;
        t.map.lanes = 8;
        t.reduction.words_per_lane = 1;
        t.reduction.min_words_per_lane = 1;
        t.map.words_per_lane = 1;
        t.parts.min_invocations = u32::MAX;
        t.fold.workgroup_size = 16;
        t.fold.lanes = 8;
        t.fold.entries_per_lane = 1;
        t.columns.tile = 4;
        t.columns.workgroup_size = 32;
    });
    // What lanes share lies in one window.
    let windows = own.with(|t| {
        t.limits.max_binding_bytes = 2560;
        t.parts.max_words_per_lane = 2;
        t.parts.max_column_bytes = 2048;
        t.reduction.lanes = t.reduction.lanes.min(8);
        t.map.lanes = t.map.lanes.min(8);
    });
    let parts = shared.with(|t| {
        t.parts.max_words_per_lane = 1;
        t.parts.max_column_bytes = 8192;
        t.fold.samples_per_segment = 3;
        t.limits.max_binding_bytes = 9216;
        t.limits.max_workgroups = 99;
    });
    vec![own, shared, windows, parts]
}

impl Case {
    fn norm(&self) -> NormDesc {
        let channels = self.groups * self.group_size;
        let norm = match self.kind {
            NormKind::BatchNorm => NormDesc::batch_norm(channels),
            NormKind::EstBn => NormDesc::est_bn(channels),
            NormKind::GroupNorm => NormDesc::group_norm(self.groups, channels),
            NormKind::InstanceNorm => NormDesc::instance_norm(channels),
            NormKind::LayerNorm => NormDesc::layer_norm(channels),
            NormKind::BcNorm => NormDesc::bc_norm(channels, self.groups),
            _ => NormDesc::weight_standardization(),
        };
        let [weight, bias, bn_weight, bn_bias] = self.affine;
        let norm = norm.with_eps(self.eps);
        let norm = match self.kind {
            NormKind::WeightStandardization => return norm,
            NormKind::BcNorm => norm
                .with_bn_weight(bn_weight)
                .with_bn_bias(bn_bias)
                .with_per_channel_affine(self.per_channel),
            _ => norm,
        };
        let norm = norm.with_weight(weight).with_bias(bias);
        match (self.kind, self.stats) {
            (NormKind::GroupNorm | NormKind::LayerNorm, _) => norm,
            (NormKind::EstBn, ChannelStats::Batch { .. }) => norm.with_moving_speed(0.3),
            // Batch statistics are BatchNorm's only, EstBN's are the others.
            (NormKind::BatchNorm | NormKind::InstanceNorm, ChannelStats::Estimate { .. }) => {
                norm.with_track_running_stats(self.tracked)
            }
            (_, stats) => norm
                .with_stats(stats)
                .with_track_running_stats(self.tracked),
        }
    }

    /// The shape: the largest sizes are halved until the tensor is small enough.
    fn dims(&self) -> Vec<usize> {
        let channels = self.groups * self.group_size;
        let mut dims = vec![self.samples, channels];
        dims.extend(&self.spatial);
        if self.kind == NormKind::WeightStandardization {
            // (O, 1, *rest).
            dims.insert(1, 1);
        }
        let most = if self.large { 40_000 } else { 6_000 };
        while dims.iter().product::<usize>() > most {
            let spatial = (0..dims.len()).filter(|&i| i != 1);
            let Some(largest) = spatial.max_by_key(|&i| dims[i]) else {
                break;
            };
            dims[largest] = dims[largest].div_ceil(2);
        }
        dims
    }

    fn problem(&self) -> Problem {
        let dims = self.dims();
        let mut problem = Problem::random_of(self.norm(), &dims, self.seed);
        let mut random = Random::new(self.seed ^ 0x9e37);
        let len: usize = dims[2..].iter().product();
        let channels = dims[1];
        // What 16 bits hold, with room for outliers.
        let scale = match self.dtype {
            DType::F16 => self.scale.clamp(-2, 0),
            _ if self.eps < 1e-6 => self.scale.max(-6),
            _ => self.scale,
        };
        let std = 10f32.powi(scale);
        let row_means: Vec<f32> = (0..dims[0] * channels).map(|_| random.normal()).collect();
        for (i, x) in problem.x.iter_mut().enumerate() {
            let (row, normal) = (i / len, random.normal());
            let c = row % channels;
            *x = std
                * match self.x {
                    Data::Normal(mean) => normal + mean,
                    Data::Means(far) => normal + far * row_means[row],
                    Data::Scales => (normal + 1.0) * 10f32.powi((c % 5) as i32 - 2),
                    Data::Outliers(every) => {
                        normal + if i.is_multiple_of(every) { 1e4 } else { 0.0 }
                    }
                    Data::Constant(value) => value,
                    Data::Constants => 1.0 + c as f32 / 3.0,
                    Data::Integers => (normal * 1.5).round(),
                    Data::Signs => [1.0, -1.0][i % 2],
                };
        }
        for (i, dy) in problem.grad_y.iter_mut().enumerate() {
            let sign = [1.0, -1.0][i / len % 2];
            match self.grad_y {
                Upstream::Normal(mean) => *dy += mean,
                Upstream::TwoSigns(mean) => *dy += sign * mean,
                Upstream::Outliers if i.is_multiple_of(97) => *dy = 1e4,
                Upstream::Outliers => {}
                Upstream::Sparse(every) if i.is_multiple_of(every) => {}
                Upstream::Sparse(_) | Upstream::Zero => *dy = 0.0,
            }
        }
        if self.dtype == DType::F16 {
            let clamp = |x: &mut f32| *x = x.clamp(-6e4, 6e4);
            problem
                .x
                .iter_mut()
                .chain(&mut problem.grad_y)
                .for_each(clamp);
        }
        self.draw_parameters(&mut problem, &mut random);
        // Running statistics near the data's.
        let count = problem.x.len().max(1) as f32;
        let mean = problem.x.iter().map(|x| x / count).sum::<f32>();
        for value in &mut problem.running_mean {
            *value = mean + std * 0.5 * random.normal();
        }
        for value in &mut problem.running_var {
            *value = std * std * (0.5 + 4.0 * random.uniform());
        }
        let mode = if self.training {
            Mode::Train
        } else {
            Mode::Eval
        };
        let problem = problem
            .with_mode(mode)
            .with_dtype(self.dtype)
            .with_layout(self.layout)
            .with_fusion(
                Fusion::NONE
                    .with_activation(self.activation)
                    .with_residual(self.residual),
            );
        if self.writes_x() {
            return problem.forward_only();
        }
        self.without_hidden_kinks(problem)
    }

    /// Which side of ReLU's kink a run took shows in y, but not where f16 rounds it to 0. There, dy is 0.
    fn without_hidden_kinks(&self, mut problem: Problem) -> Problem {
        let hidden = self.dtype == DType::F16 && !self.residual;
        if hidden && self.activation == Activation::Relu && problem.check().is_ok() {
            let kinks = conditioning::beside_kink(&problem);
            for (dy, kink) in problem.grad_y.iter_mut().zip(kinks) {
                if kink {
                    *dy = 0.0;
                }
            }
        }
        problem
    }

    /// How much the sums of a tuning with many short parts may be off by beyond a bound that is for some 64
    /// merges in a row. Each merge rounds M2 once: by half of u at most, which the root of the variance
    /// halves, and which is of random sign but where values repeat.
    fn growth(&self, problem: &Problem, tuning: &Tuning) -> f64 {
        let merges = |plan: bcnorm::Plan| {
            let steps = plan.steps().iter().map(|step| {
                let params = &step.params;
                // Chunks of a part, parts of a row, entries of a segment.
                let rows = params
                    .block::<RowSplit>()
                    .map(|split| split.words_per_part / 4);
                let columns = params.block::<ColumnSplit>();
                let columns = columns.map(|split| split.positions_per_part / 4);
                let parts = params.block::<Parts>().map(|parts| parts.parts);
                let table = params
                    .block::<Table>()
                    .map(|table| table.entries_per_segment);
                let entries = rows.or(columns).or(parts).or(table).unwrap_or(0);
                f64::from(entries.div_ceil(step.spec.lanes))
            });
            steps.fold(0.0, f64::max)
        };
        let plans = [
            problem.forward_plan(Default::default(), tuning),
            problem.backward_plan(Default::default(), tuning),
        ];
        let merges = plans.into_iter().flatten().map(merges).fold(0.0, f64::max);
        let repeats = matches!(
            self.x,
            Data::Signs | Data::Integers | Data::Constant(_) | Data::Constants
        );
        let u = 2f64.powi(-24);
        let roundings = match repeats {
            true => merges / 2.0,
            false => (4.0 * merges).sqrt(),
        };
        (u * roundings / conditioning::F32).max(1.0)
    }

    fn draw_parameters(&self, problem: &mut Problem, random: &mut Random) {
        let weights = problem.weight.iter_mut().chain(&mut problem.bn_weight);
        for (i, weight) in weights.enumerate() {
            match self.parameters {
                Parameters::Usual | Parameters::Biases(_) => {}
                Parameters::Fresh => *weight = 1.0,
                Parameters::Zeros if i % 2 == 0 => *weight = 0.0,
                Parameters::Zeros => {}
                Parameters::Wide => {
                    *weight = random.normal().signum() * 10f32.powf(3.0 * random.uniform() - 2.0);
                }
            }
        }
        for bias in problem.bias.iter_mut().chain(&mut problem.bn_bias) {
            match self.parameters {
                Parameters::Fresh => *bias = 0.0,
                Parameters::Biases(size) => *bias *= size,
                _ => {}
            }
        }
    }

    /// In place, which there is in eval only.
    fn writes_x(&self) -> bool {
        self.in_place && !self.training
    }
}

/// Runs a case one way.
trait Runner {
    fn run(&self, case: &Case, problem: &Problem) -> Result<Outputs, Failure>;

    fn tuning(&self) -> &Tuning;
}

/// On a device.
struct OnGpu {
    gpu: Gpu,
    pipelines: Pipelines,
}

impl Runner for OnGpu {
    fn run(&self, case: &Case, problem: &Problem) -> Result<Outputs, Failure> {
        let pipelines = &self.pipelines;
        if !case.writes_x() {
            return Ok(run::gpu(&self.gpu, pipelines, problem)?.outputs);
        }
        problem.check()?;
        let plan = problem.forward_plan(in_place(), pipelines.tuning())?;
        let bench = GpuProblem::new(&self.gpu, problem, &[plan]);
        bench.try_run(pipelines)?;
        Ok(bench.results()?.outputs)
    }

    fn tuning(&self) -> &Tuning {
        self.pipelines.tuning()
    }
}

/// On the CPU executor, by the plans that GPUs get.
struct OnCpu {
    executor: Executor,
    tuning: Tuning,
}

impl Runner for OnCpu {
    fn run(&self, case: &Case, problem: &Problem) -> Result<Outputs, Failure> {
        let tuning = &self.tuning;
        let plans = if case.writes_x() {
            problem.check()?;
            vec![problem.forward_plan(in_place(), tuning)?]
        } else {
            let (forward, backward) = problem.plans(tuning)?;
            [forward].into_iter().chain(backward).collect()
        };
        let mut buffers = run::host_buffers(problem, &plans);
        for plan in &plans {
            self.executor.run(plan, &mut buffers)?;
        }
        Ok(run::host_outputs(problem, &plans, &buffers))
    }

    fn tuning(&self) -> &Tuning {
        &self.tuning
    }
}

fn in_place() -> ForwardOptions {
    ForwardOptions::default().with_in_place(true)
}

/// What a test has seen.
#[derive(Default)]
struct Seen {
    worst: BTreeMap<&'static str, Worst>,
    refused: u32,
    ran: u32,
}

/// Runs a case and compares it with the oracle.
fn check(runner: &dyn Runner, case: &Case, seen: &RefCell<Seen>) -> Result<(), String> {
    let problem = case.problem();
    let outputs = match runner.run(case, &problem) {
        Ok(outputs) => outputs,
        // As PyTorch refuses it.
        Err(Failure::Library(Error::OneValuePerChannel { .. })) => {
            seen.borrow_mut().refused += 1;
            return Ok(());
        }
        Err(failure) => return Err(failure.to_string()),
    };
    let expected = conditioning::expected_beside(&problem, &outputs);
    let expected = conditioning::with_scales(&problem, expected);
    let mut bounds = conditioning::bounds(&problem, &expected);
    let growth = case.growth(&problem, runner.tuning());
    bounds.values_mut().for_each(|bound| *bound *= growth);
    let worst = conditioning::judge_problem(&problem, &outputs, &expected, &bounds)?;
    let mut seen = seen.borrow_mut();
    seen.ran += 1;
    let kind = case.kind.name();
    let of_kind = seen.worst.entry(kind).or_default();
    of_kind.take(worst.fraction, || format!("{} of {case:?}", worst.what));
    Ok(())
}

fn number(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.map_or(default, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is no number"))
    })
}

/// Draws cases and checks each; a failure is shrunk.
fn draw(what: &str, salt: u64, runner: &dyn Runner) {
    let draws = number("BCNORM_DRAWS", DRAWS[usize::from(adapters::long())]) as u32;
    let seed = number("BCNORM_SEED", 2026);
    println!("{what}: {draws} draws, BCNORM_SEED={seed}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..16].copy_from_slice(&salt.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let config = Config {
        cases: draws,
        max_shrink_iters: 400,
        failure_persistence: None,
        ..Config::default()
    };
    let seen = RefCell::new(Seen::default());
    let result = TestRunner::new_with_rng(config, rng).run(&cases(), |case| {
        check(runner, &case, &seen).map_err(TestCaseError::fail)
    });
    let seen = seen.into_inner();
    for worst in seen.worst.values() {
        println!("{what}: the worst took {}", worst.what);
    }
    println!("{what}: {} ran, {} were refused", seen.ran, seen.refused);
    match result {
        Ok(()) => assert!(seen.refused < draws / 10, "most of what is drawn must run"),
        Err(TestError::Fail(why, case)) => panic!(
            "{what}, BCNORM_SEED={seed}: {why}\nshape {:?}, {:?}\n{case:#?}",
            case.dims(),
            case.norm()
        ),
        Err(TestError::Abort(why)) => panic!("{what}: {why}"),
    }
}

/// On the fastest adapter, with one of [`tunings`].
fn draw_on_the_fastest_adapter(tuning: usize) {
    let target = targets::fastest(DeviceLimits::Default);
    let (gpu, pipelines) = target.device.unwrap();
    let tunings = tunings(*pipelines.tuning());
    let pipelines = Pipelines::with_tuning(&gpu.device, tunings[tuning]);
    draw(&target.name, tuning as u64, &OnGpu { gpu, pipelines });
}

#[test]
fn draws_with_the_adapters_tuning() {
    draw_on_the_fastest_adapter(0);
}

#[test]
fn draws_with_the_tuning_for_gpus() {
    draw_on_the_fastest_adapter(1);
}

#[test]
fn draws_in_windows() {
    draw_on_the_fastest_adapter(2);
}

#[test]
fn draws_in_parts() {
    draw_on_the_fastest_adapter(3);
}

/// The same plans' mirrors, on other draws.
#[test]
fn draws_on_the_cpu_executor() {
    for (salt, tuning) in (4..).zip(tunings(Tuning::SOFTWARE)) {
        let executor = Executor::with_threads(1);
        draw("cpu", salt, &OnCpu { executor, tuning });
    }
}

/// What is drawn is planned, also for adapters that are not here.
#[test]
fn draws_are_planned_for_every_class_of_adapter() {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[8; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    for _ in 0..500 {
        let case = cases().new_tree(&mut runner).unwrap().current();
        let problem = case.problem();
        for own in [Tuning::GPU, Tuning::SOFTWARE] {
            for tuning in tunings(own) {
                let planned = match case.writes_x() {
                    true => problem.forward_plan(in_place(), &tuning).map(drop),
                    false => problem.plans(&tuning).map(drop).map_err(|why| match why {
                        Failure::Library(error) => error,
                        Failure::Data(why) => panic!("{why}: {case:?}"),
                    }),
                };
                let right = matches!(planned, Ok(()) | Err(Error::OneValuePerChannel { .. }));
                assert!(
                    right,
                    "{planned:?}: {:?}, {case:?}, {tuning:?}",
                    case.dims()
                );
            }
        }
    }
}

/// Draws reach what they should: every norm, type, layout and way, odd sizes, several windows.
#[test]
fn draws_are_of_many_kinds() {
    let mut runner = TestRunner::new_with_rng(
        Config::default(),
        TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]),
    );
    let (mut kinds, mut ranks, mut odd, mut windowed) = (BTreeMap::new(), [0; 8], 0, 0);
    for tuning in (0..500).map(|draw| draw % 4) {
        let case = cases().new_tree(&mut runner).unwrap().current();
        let problem = case.problem();
        let elements = problem.x.len();
        assert!(elements > 0 && elements <= 45_000, "{case:?}");
        assert!(
            problem
                .x
                .iter()
                .chain(&problem.grad_y)
                .all(|v| v.is_finite()),
            "{case:?}"
        );
        let again = case.problem();
        assert!(run::same_bits(&problem.x, &again.x));
        *kinds.entry(case.kind.name()).or_insert(0) += 1;
        ranks[problem.dims.len()] += 1;
        odd += u32::from(case.dtype != DType::F32 && elements % 2 == 1);
        if let Ok((forward, _)) = problem.plans(&tunings(Tuning::SOFTWARE)[tuning]) {
            windowed += u32::from(forward.steps().iter().any(|step| step.window.is_some()));
        }
        assert_eq!(
            storage::encode(&problem.x, &problem.tensor()).len() as u64 * 4,
            { problem.tensor().buffer_bytes() }
        );
    }
    println!("{kinds:?}, ranks {ranks:?}, {odd} odd 16-bit tensors, {windowed} in windows");
    assert!(kinds.len() == NormKind::ALL.len() && kinds.values().all(|&count| count > 30));
    assert!(ranks[2..6].iter().all(|&count| count > 50) && odd > 10 && windowed > 30);
}
