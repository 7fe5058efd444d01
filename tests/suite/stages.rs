//! Each stage alone against its CPU mirror, fed the same inputs: on every adapter, and as the CPU executor runs it, with
//! tunings that take every path (one lane and many, split rows, segmented batches, words of 1, 2 and 4, rows that
//! begin within words, channels last). What a step writes is poisoned before it, and so is all that lies
//! beside the ranges that it binds. Data here are ordinary; `accuracy.rs`, `cases.rs` and `property.rs`
//! hold whole plans to the oracle on the others.
#![allow(missing_docs)]

use crate::common;
use crate::common::rig;
use crate::common::work;

use bcnorm::cpu::{Buffers, Executor, run_mirror};
use bcnorm::gpu::Pipelines;
use bcnorm::gpu::headless::DeviceLimits;
use bcnorm::kernels::{Element, KernelId};
use bcnorm::plan::Step;
use bcnorm::tables::AffineBackward;
use bcnorm::{
    Activation, BackwardOptions, ChannelStats, DType, ForwardOptions, Fusion, GradientMode, Layout,
    Mode, NormDesc, Plan, Role, Tuning,
};
use bcnorm_testkit::storage;
use common::adapters;
use common::imprecise::imprecise;
use common::problem::Problem;
use common::run::{self, POISON};
use rig::{Contents, Ranges, Rig, WidePipelines, contents, written};
use std::collections::{BTreeMap, BTreeSet};

/// Mirror and kernel compute one formula from the same inputs; they differ by the order of sums and
/// merges, and by what WGSL leaves open. Some 100 roundings of 2^-24 of the largest value on the way, all
/// of one sign, are 6e-6; the data's deviation is of the order of their mean, so that the largest value of
/// a table's field is that of the way.
const TOLERANCE: f64 = 6e-6;

struct Case {
    name: String,
    problem: Problem,
    /// Of a forward without a backward.
    alone: Option<ForwardOptions>,
    options: BackwardOptions,
}

impl Case {
    fn new(problem: Problem) -> Self {
        let (norm, tensor) = (problem.norm, problem.tensor());
        let name = format!(
            "{:?} {} G={} {} {} {:?}",
            problem.dims,
            norm.kind.name(),
            norm.num_groups,
            tensor.dtype().name(),
            tensor.layout().name(),
            problem.mode
        );
        Case {
            name,
            alone: None,
            options: BackwardOptions::default().with_fusion(problem.fusion),
            problem,
        }
    }

    fn accumulate(mut self) -> Self {
        self.name += " accumulate";
        self.options.x = GradientMode::Accumulate;
        self.options.parameters = GradientMode::Accumulate;
        self
    }

    fn inference(mut self) -> Self {
        self.name += " inference";
        self.alone = Some(ForwardOptions::default().with_inference(true));
        self
    }

    fn in_place(mut self) -> Self {
        self.name += " in place";
        self.alone = Some(ForwardOptions::default().with_in_place(true));
        self
    }

    fn plans(&self, tuning: &Tuning) -> Vec<Plan> {
        let plans = match self.alone {
            Some(options) => self
                .problem
                .forward_plan(options, tuning)
                .map(|plan| vec![plan]),
            None => run::plans(&self.problem, self.options, tuning).map(Vec::from),
        };
        plans.unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }
}

/// 1, primes and non-multiples on every axis; words of 4, 2 and 1, aligned and not; rows, batches and
/// groups large enough for every tuning's splits, segments and lanes.
fn cases() -> Vec<Case> {
    let slow = ChannelStats::Estimate { moving_speed: 0.25 };
    let bc = |dims: &[usize], groups, seed| Problem::random(dims, groups, seed);
    let of = |norm, dims: &[usize], seed| Problem::random_of(norm, dims, seed);
    let last = Layout::ChannelsLast;
    let fused = |activation, residual| {
        Fusion::NONE
            .with_activation(activation)
            .with_residual(residual)
    };
    let instance = NormDesc::instance_norm(6)
        .with_weight(true)
        .with_bias(true)
        .with_track_running_stats(true);
    vec![
        Case::new(bc(&[1, 1, 2], 1, 2)).accumulate(),
        Case::new(bc(&[3, 5, 7, 3], 5, 6)),
        Case::new(bc(&[2, 6, 7, 9], 3, 8).with_stats(ChannelStats::Batch { momentum: None }))
            .accumulate(),
        Case::new(bc(&[2, 6, 7, 9], 2, 9).with_stats(slow)),
        Case::new(bc(&[4, 8, 16], 4, 11).with_mode(Mode::Eval)),
        Case::new(bc(&[1, 3, 4999], 3, 15)),
        Case::new(bc(&[1, 2, 20_002], 2, 17)).accumulate(),
        Case::new(bc(&[1031, 4, 4], 2, 21)).accumulate(),
        Case::new(bc(&[2, 520, 3], 1, 22)),
        Case::new(bc(&[300, 3], 1, 19).with_stats(slow)),
        Case::new(bc(&[3, 8, 501], 2, 23).with_layout(last)).accumulate(),
        Case::new(bc(&[40, 5, 33], 1, 24).with_layout(last)),
        Case::new(bc(&[3, 6, 101], 2, 25).with_dtype(DType::F16)),
        Case::new(
            bc(&[3, 7, 101], 7, 26)
                .with_dtype(DType::BF16)
                .with_layout(last),
        )
        .accumulate(),
        Case::new(
            bc(&[3, 6, 64], 2, 27)
                .with_dtype(DType::F16)
                .with_layout(last),
        ),
        Case::new(bc(&[5, 3, 9], 1, 28).with_dtype(DType::BF16)).accumulate(),
        Case::new(of(NormDesc::batch_norm(6), &[9, 6, 35], 29)),
        Case::new(of(NormDesc::batch_norm(6), &[9, 6, 35], 30).with_mode(Mode::Eval)),
        Case::new(of(NormDesc::batch_norm(12), &[50, 12], 31)),
        Case::new(of(NormDesc::group_norm(2, 6), &[4, 6, 35], 32)),
        Case::new(of(instance, &[9, 6, 35], 33)),
        Case::new(of(NormDesc::layer_norm(12), &[40, 12], 34).with_dtype(DType::BF16)),
        Case::new(of(NormDesc::weight_standardization(), &[8, 1, 27], 35)),
        Case::new(bc(&[3, 4, 50], 2, 36).with_fusion(fused(Activation::Silu, true))),
        Case::new(
            bc(&[3, 4, 50], 2, 37)
                .with_fusion(fused(Activation::Silu, false))
                .with_layout(last),
        ),
        Case::new(bc(&[3, 4, 51], 2, 38).with_fusion(fused(Activation::None, true))),
        Case::new(
            bc(&[3, 5, 51], 1, 39)
                .with_dtype(DType::F16)
                .with_fusion(fused(Activation::Silu, true))
                .with_layout(last),
        ),
        // Several words an invocation.
        Case::new(
            bc(&[2, 64, 35], 4, 53)
                .with_fusion(fused(Activation::Relu, true))
                .with_layout(last),
        )
        .accumulate(),
        Case::new(bc(&[1, 256, 19], 8, 54).with_layout(last)),
        Case::new(
            bc(&[3, 192, 21], 3, 55)
                .with_dtype(DType::F16)
                .with_layout(last),
        )
        .accumulate(),
    ]
    .into_iter()
    .chain(short())
    .collect()
}

/// Short rows: words of one channel and of several, of each width; groups of one word a lane and of
/// more; parameters per group and per channel, or none.
fn short() -> Vec<Case> {
    let slow = ChannelStats::Estimate { moving_speed: 0.25 };
    let bc = |dims: &[usize], groups, seed| Problem::random(dims, groups, seed);
    let of = |norm, dims: &[usize], seed| Problem::random_of(norm, dims, seed);
    let fused = |activation, residual| {
        Fusion::NONE
            .with_activation(activation)
            .with_residual(residual)
    };
    let per_channel =
        |channels, groups| NormDesc::bc_norm(channels, groups).with_per_channel_affine(true);
    let bare = NormDesc::bc_norm(6, 2)
        .with_weight(false)
        .with_bias(false)
        .with_bn_weight(false)
        .with_bn_bias(false);
    vec![
        Case::new(bc(&[33, 10, 1], 1, 41)).accumulate(),
        Case::new(bc(&[64, 48, 2, 3], 8, 42)),
        Case::new(bc(&[7, 15, 5], 3, 43).with_stats(slow)).accumulate(),
        Case::new(bc(&[4, 64, 16], 2, 44)),
        Case::new(bc(&[17, 16, 4], 4, 45).with_mode(Mode::Eval)).accumulate(),
        Case::new(bc(&[40, 12, 1], 6, 46)),
        Case::new(bc(&[70, 23, 1], 1, 65)).accumulate(),
        Case::new(of(per_channel(34, 1), &[37, 34, 1], 66).with_dtype(DType::F16)),
        Case::new(bc(&[40, 8], 8, 47)),
        Case::new(of(per_channel(16, 4), &[17, 16, 2], 48)).accumulate(),
        Case::new(of(per_channel(9, 3), &[17, 9, 3], 49).with_mode(Mode::Eval)),
        Case::new(of(bare, &[17, 6, 5], 50)),
        Case::new(of(NormDesc::group_norm(3, 12), &[19, 12, 2], 51)),
        Case::new(of(NormDesc::layer_norm(512), &[3, 512, 2], 52)).accumulate(),
        Case::new(of(
            NormDesc::instance_norm(6).with_weight(true).with_bias(true),
            &[5, 6, 9],
            53,
        )),
        Case::new(of(NormDesc::weight_standardization(), &[40, 1, 9], 54)),
        Case::new(bc(&[64, 48, 2, 3], 8, 55).with_dtype(DType::F16)).accumulate(),
        Case::new(bc(&[17, 16, 4], 4, 56).with_dtype(DType::BF16)),
        Case::new(bc(&[33, 10, 3], 1, 57).with_dtype(DType::BF16)).accumulate(),
        Case::new(of(per_channel(6, 2), &[33, 6, 2], 58).with_dtype(DType::F16)),
        Case::new(bc(&[9, 12, 4], 3, 59).with_fusion(fused(Activation::None, true))),
        Case::new(
            bc(&[9, 12, 3], 3, 60)
                .with_mode(Mode::Eval)
                .with_fusion(fused(Activation::Silu, true)),
        )
        .inference(),
        Case::new(bc(&[9, 12, 3], 3, 61)).inference(),
        Case::new(
            bc(&[9, 10, 3], 5, 62)
                .with_mode(Mode::Eval)
                .with_dtype(DType::F16)
                .with_fusion(fused(Activation::Silu, false)),
        )
        .in_place(),
        // Long rows in groups that fit on chip.
        Case::new(of(NormDesc::group_norm(4, 8), &[2, 8, 10, 10], 63)).inference(),
        Case::new(
            bc(&[2, 8, 7, 11], 2, 64)
                .with_mode(Mode::Eval)
                .with_fusion(fused(Activation::Silu, true)),
        )
        .in_place(),
    ]
}

/// Everything split: parts of a few words, segments of 4 samples, a lane for every entry of a table,
/// workgroups that are no power of two, in two dimensions.
const SPLIT: Tuning = {
    let mut t = Tuning::GPU;
    t.reduction.workgroup_size = 24;
    t.map.workgroup_size = 24;
    t.reduction.lanes = 8;
    t.map.lanes = 8;
    t.reduction.words_per_lane = 2;
    t.reduction.min_words_per_lane = 2;
    t.map.words_per_lane = 2;
    t.parts.max_words_per_lane = 24;
    t.parts.min_invocations = 1 << 11;
    t.fold.workgroup_size = 192;
    t.fold.lanes = 64;
    t.fold.entries_per_lane = 1;
    t.fold.samples_per_segment = 4;
    t.limits.max_workgroups = 100;
    t
};

/// One lane a row, of as many words as any adapter's.
const LONG: Tuning = {
    let mut t = Tuning::SOFTWARE;
    t.parts.min_invocations = 1;
    t
};

/// For every step what its buffers hold before it and after its mirror.
struct Mirrored {
    plans: Vec<Plan>,
    steps: Vec<Mirror>,
}

struct Mirror {
    step: Step,
    /// What it binds; what it writes without reading is poison.
    whole: Contents,
    /// The same without what lies behind the step's entries.
    before: Contents,
    /// What it wrote.
    after: Contents,
    dtype: DType,
}

fn mirror(case: &Case, tuning: &Tuning) -> Mirrored {
    let plans = case.plans(tuning);
    let mut buffers = run::host_buffers(&case.problem, &plans);
    for need in plans.iter().flat_map(Plan::needs) {
        let is_gradient = need.role.name().starts_with("grad_") && need.role != Role::GradY;
        if is_gradient
            && case.options.x == GradientMode::Accumulate
            && need.role != Role::GradResidual
        {
            // Any finite values do: 0.5 in f32, and two small ones in 16 bits.
            buffers.set_u32(need.role, vec![0x3f00_3f00; (need.bytes / 4) as usize]);
        }
    }
    let mut steps = Vec::new();
    for plan in &plans {
        for step in plan.steps() {
            let whole = contents(&buffers, step.bindings.iter().copied());
            let before = touched(step, plan, whole.clone());
            run_mirror(plan, step, &mut buffers).unwrap();
            let after = touched(step, plan, contents(&buffers, written(step)));
            for (role, words) in &after {
                // A comparison with poison would compare nothing with nothing.
                let holes = words.iter().filter(|&&word| word == POISON).count();
                let name = step.spec.kernel.name();
                assert_eq!(holes, 0, "{}: {name} leaves holes in {role}", case.name);
            }
            steps.push(Mirror {
                step: step.clone(),
                whole,
                before,
                after,
                dtype: case.problem.dtype,
            });
        }
    }
    Mirrored { plans, steps }
}

/// Tables without what lies behind the step's entries: of another step that has more.
fn touched(step: &Step, plan: &Plan, mut contents: Contents) -> Contents {
    for (role, (_, declared)) in step.bindings.iter().zip(step.spec.bindings()) {
        if let (Some(words), false) = (contents.get_mut(role), role.is_tensor()) {
            let bytes = work::entries(step, plan, declared) * declared.element.bytes(&step.spec);
            words.truncate((bytes / 4) as usize);
        }
    }
    contents
}

/// The numbers that a table's entry stands for: sums where it is a sum that counts, and what it maps to
/// where it is a map. Pivots may be any of some values.
fn numbers(table: &str, words: &[u32]) -> Vec<f64> {
    let f = |i: usize| f64::from(f32::from_bits(words[i]));
    match table {
        "Moments" => vec![f64::from(words[0]), f(1) + f(2), f(3)],
        "Products" => vec![f64::from(words[0]), f(1) + f(2), f(3), f(4)],
        "Channel" => vec![
            f(0) + f(1),
            f(2),
            f(3) + f(4),
            f(5),
            f(6),
            f64::from(words[7]),
        ],
        "Group" => vec![f(0) + f(1) + f(2), f(3), f(4)],
        // Means in parts; the shift and the rest are what rounding left, relative to others.
        "GroupGradient" => vec![
            f(0) + f(1) + f(2),
            f(3),
            f(4) + f(5) + f(6),
            f(7) + f(8),
            f(9),
            f(10),
            f(11),
        ],
        // At two values of x (and of dy).
        "Affine" => [0.0, 10.0]
            .map(|x| ((x - f(0)) - f(1)) * f(2) + f(3))
            .to_vec(),
        "AffineBackward" => [(0.0, 0.0), (10.0, 0.0), (0.0, 10.0)]
            .map(|(x, dy)| {
                let unit = AffineBackward::x_unit(f32::from_bits(words[3]));
                (x - f(0)) * f64::from(unit) * f(1) + (dy - f(2)) * f(3) + f(4)
            })
            .to_vec(),
        _ => (0..words.len()).map(f).collect(),
    }
}

/// Entries of a binding, each as its numbers.
fn entries(element: Element, words: &[u32], dtype: DType) -> Vec<Vec<f64>> {
    match element {
        Element::Struct { name, size } => words
            .chunks_exact(size as usize / 4)
            .map(|entry| numbers(name, entry))
            .collect(),
        Element::U32 => words.iter().map(|&word| vec![f64::from(word)]).collect(),
        Element::Word if dtype != DType::F32 => {
            let halves = words
                .iter()
                .flat_map(|&word| [word as u16, (word >> 16) as u16]);
            let value = |bits: u16| match dtype {
                DType::F16 => half::f16::from_bits(bits).to_f64(),
                _ => half::bf16::from_bits(bits).to_f64(),
            };
            halves.map(|bits| vec![value(bits)]).collect()
        }
        _ => words.iter().map(|&word| numbers("", &[word])).collect(),
    }
}

impl Mirror {
    /// Compares what a device wrote with the mirror's, binding by binding: the largest difference as a
    /// fraction of what is allowed.
    fn compare(&self, got: &Contents) -> Result<f64, String> {
        let mut worst = 0.0f64;
        for (&role, (_, declared)) in self.step.bindings.iter().zip(self.step.spec.bindings()) {
            let Some(expected) = self.after.get(&role) else {
                continue;
            };
            let got = got.get(&role).ok_or_else(|| format!("{role} is missing"))?;
            if got.len() != expected.len() {
                return Err(format!("{role} has {} words", got.len()));
            }
            let element = declared.element;
            let [got, expected] = [got, expected].map(|words| entries(element, words, self.dtype));
            let fields = expected.first().map_or(0, Vec::len);
            for field in 0..fields {
                let column = |table: &[Vec<f64>]| -> Vec<f64> {
                    table.iter().map(|entry| entry[field]).collect()
                };
                let (got, expected) = (column(&got), column(&expected));
                // The mean of x less its own mean is 0 but for the rounding of values of x's size.
                let is_rounding = matches!(
                    element,
                    Element::Struct {
                        name: "Products",
                        ..
                    }
                ) && field == 2;
                let least = if is_rounding { 3.0 } else { 1e-3 };
                let scale = expected
                    .iter()
                    .fold(least, |most: f64, value| most.max(value.abs()));
                for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
                    let rounding = match (element, self.dtype) {
                        (Element::Word, DType::F16 | DType::BF16) => {
                            storage::ulp(*expected as f32, self.dtype)
                        }
                        _ => 0.0,
                    };
                    let fraction = (got - expected).abs() / (TOLERANCE * scale + rounding);
                    // A NaN is no pass.
                    if fraction.is_nan() || fraction > 1.0 {
                        return Err(format!(
                            "{role}, entry {i}, field {field}: {got:e}, the mirror has {expected:e} \
                             (the largest is {scale:e})"
                        ));
                    }
                    worst = worst.max(fraction);
                }
            }
        }
        Ok(worst)
    }
}

/// The worst error of each kernel, as a fraction of its tolerance, and what fails.
#[derive(Default)]
struct Findings {
    worst: BTreeMap<KernelId, (f64, String)>,
    failures: Vec<String>,
}

impl Findings {
    /// Compares what `runner` wrote in a step of a case.
    fn compare(&mut self, runner: &str, case: &Case, mirror: &Mirror, got: &Contents) {
        let kernel = mirror.step.spec.kernel;
        match mirror.compare(got) {
            Ok(fraction) => {
                let worst = self.worst.entry(kernel).or_default();
                if fraction >= worst.0 {
                    *worst = (fraction, case.name.clone());
                }
            }
            Err(error) => {
                let (name, kernel) = (&case.name, kernel.name());
                self.failures
                    .push(format!("{runner}, {name}: {kernel}: {error}"));
            }
        }
    }

    fn report(&self, runner: &str) {
        for (kernel, (fraction, case)) in &self.worst {
            let kernel = kernel.name();
            println!("{runner}: {kernel} at {fraction:.3} of its tolerance ({case})");
        }
        assert!(
            self.failures.is_empty(),
            "{} failures:\n{}",
            self.failures.len(),
            self.failures.join("\n")
        );
    }
}

/// With the library's pipelines, or with those of texts that `rewrite` makes.
fn check_stages(tuning: Option<Tuning>, rewrite: Option<fn(&str) -> String>) {
    let mut gpus = match tuning {
        None => adapters::every_gpu(DeviceLimits::Default),
        Some(_) => adapters::gpus(DeviceLimits::Default),
    };
    if rewrite.is_some() {
        gpus.truncate(1); // Texts of the test's own are not for an adapter to show.
    }
    for (adapter, gpu) in gpus {
        let pipelines = match tuning {
            Some(tuning) => Pipelines::with_tuning(&gpu.device, tuning),
            None => Pipelines::new(&gpu.device),
        };
        let mut wide_pipelines = rewrite.map(WidePipelines::new);
        let mut findings = Findings::default();
        for case in cases() {
            let mirrored = mirror(&case, pipelines.tuning());
            let rig = Rig::new(&gpu, &pipelines, &mirrored.plans);
            let before: Vec<Contents> = mirrored.steps.iter().map(|s| s.before.clone()).collect();
            let ranges = wide_pipelines.as_mut().map_or(Ranges::Exact, Ranges::Wide);
            let got = rig
                .run_steps(&before, ranges)
                .unwrap_or_else(|e| panic!("{adapter}, {}: {e}", case.name));
            assert_eq!(got.len(), mirrored.steps.len());
            for (mirror, got) in mirrored.steps.iter().zip(&got) {
                findings.compare(&adapter, &case, mirror, got);
            }
        }
        findings.report(&adapter);
    }
}

/// The CPU executor's own kernels, on one thread and on several.
#[test]
fn stages_of_the_cpu_executor() {
    let mut findings = Findings::default();
    for tuning in [Tuning::CPU, Tuning::GPU, SPLIT] {
        for case in cases() {
            let mirrored = mirror(&case, &tuning);
            let steps = mirrored.plans.iter().flat_map(|plan| {
                let steps = plan.steps().iter();
                steps.map(move |step| (plan, step))
            });
            for ((plan, step), mirror) in steps.zip(&mirrored.steps) {
                let [one, several] = [1, 3].map(|threads| {
                    let mut buffers = Buffers::new();
                    for (&role, words) in &mirror.whole {
                        buffers.set_u32(role, words.clone());
                    }
                    let executor = Executor::with_threads(threads);
                    executor.run_step(plan, step, &mut buffers).unwrap();
                    touched(step, plan, contents(&buffers, written(step)))
                });
                let (name, kernel) = (&case.name, step.spec.kernel.name());
                assert!(one == several, "{name}: {kernel} depends on threads");
                findings.compare("CPU executor", &case, mirror, &one);
            }
        }
    }
    findings.report("CPU executor");
}

#[test]
fn stages_with_the_adapters_tuning() {
    check_stages(None, None);
}

#[test]
fn stages_with_the_tuning_for_gpus() {
    check_stages(Some(Tuning::GPU), None);
}

#[test]
fn stages_with_everything_split() {
    check_stages(Some(SPLIT), None);
}

/// With poison instead of the bindings' ends, for what devices hide behind them.
#[test]
fn nothing_behind_the_tables_is_touched() {
    check_stages(Some(SPLIT), Some(str::to_string));
}

/// Lanes of as many words as a software adapter's, so as many merges, with quotients as bad as WGSL lets them be.
#[test]
fn quotients_as_bad_as_they_may_be() {
    check_stages(Some(LONG), Some(imprecise));
}

/// The cases run every kernel, with one lane and more.
#[test]
fn cases_take_every_path() {
    let (mut kernels, mut lanes) = (BTreeSet::new(), BTreeSet::new());
    let mut words = BTreeSet::new();
    for tuning in [Tuning::SOFTWARE, SPLIT] {
        for case in cases() {
            for step in mirror(&case, &tuning).steps {
                kernels.insert(step.step.spec.kernel);
                words.insert((step.step.spec.kernel, step.step.spec.column_words));
                lanes.insert((
                    step.step.spec.kernel.kernel().family.is_tensor_sized(),
                    step.step.spec.lanes > 1,
                ));
            }
        }
    }
    assert_eq!(kernels.len(), KernelId::ALL.len(), "only {kernels:?}");
    assert_eq!(lanes.len(), 4);
    // Of the four kernels that can take several words.
    let several = words.iter().filter(|(_, words)| [2, 8].contains(words));
    assert_eq!(several.count(), 8, "{words:?}");
}

/// A word that is off by a thousandth of the largest, a NaN, poison, tables shifted by an entry or cut
/// short: all are found.
#[test]
fn one_wrong_word_fails() {
    let mut tried = 0;
    for case in [&cases()[2], &cases()[12], &cases()[16]] {
        for mirror in mirror(case, &SPLIT).steps {
            assert_eq!(mirror.compare(&mirror.after), Ok(0.0));
            for (&role, (_, declared)) in
                mirror.step.bindings.iter().zip(mirror.step.spec.bindings())
            {
                let Some(words) = mirror.after.get(&role) else {
                    continue;
                };
                let name = format!("{} {role}", mirror.step.spec.kernel.name());
                let fails = |change: &dyn Fn(&mut Vec<u32>)| {
                    let mut got = mirror.after.clone();
                    change(got.get_mut(&role).unwrap());
                    mirror.compare(&got).is_err()
                };
                let middle = words.len() / 2;
                assert!(fails(&|words| words[middle] = POISON), "{name}");
                assert!(fails(&|words| {
                    words.pop();
                }));
                if declared.element == Element::F32 {
                    let most = words
                        .iter()
                        .map(|&w| f32::from_bits(w).abs())
                        .fold(0.0, f32::max);
                    assert!(fails(&|words| {
                        let value = f32::from_bits(words[middle]);
                        words[middle] = (value + 1e-3 * most.max(0.1)).to_bits();
                    }));
                }
                if let Element::Struct { size, .. } = declared.element
                    && words.len() > size as usize / 4
                    && role != Role::RowGradients
                {
                    let entry = size as usize / 4;
                    assert!(fails(&|words| words.rotate_left(entry)), "{name}");
                }
                tried += 1;
            }
        }
    }
    assert!(tried > 20);
}
