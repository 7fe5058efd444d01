//! Each stage alone against its CPU mirror, fed the same inputs: on every adapter, with tunings that
//! take every path (one lane and many, split rows, segmented batches, words of 1 and 4, rows that
//! begin within words), within tolerances derived from the inputs (`common/tolerance.rs`). What a
//! step writes is poisoned before it, and so is all that lies beside the ranges that it binds.
#![allow(missing_docs)]

mod common;
#[path = "common/rig.rs"]
mod rig;
#[path = "common/tolerance.rs"]
mod tolerance;

use bcnorm::cpu::Executor;
use bcnorm::gpu::Pipelines;
use bcnorm::gpu::headless::DeviceLimits;
use bcnorm::kernels::KernelId;
use bcnorm::plan::Step;
use bcnorm::{BackwardOptions, ChannelStats, Mode, Plan, Role, Tuning, Write};
use common::adapters;
use common::problem::{Problem, Random};
use common::run::{self, POISON};
use rig::{Contents, Ranges, Rig, WidePipelines, contents, written};
use std::collections::BTreeMap;
use tolerance::{Checks, Rule, checks};

// ---------------------------------------------------------------------------------------------
// Cases

struct Case {
    name: String,
    problem: Problem,
    options: BackwardOptions,
}

impl Case {
    fn new(dims: &[usize], groups: usize, seed: u64) -> Self {
        Case {
            name: format!("{dims:?} G={groups}"),
            problem: Problem::random(dims, groups, seed),
            options: BackwardOptions::default(),
        }
    }

    fn accumulate(mut self) -> Self {
        self.name += " accumulate";
        self.options = BackwardOptions {
            x: Write::Accumulate,
            parameters: Write::Accumulate,
        };
        self
    }

    fn stats(mut self, stats: ChannelStats) -> Self {
        self.name += &format!(" {stats:?}");
        self.problem = self.problem.with_stats(stats);
        self
    }

    fn eval(mut self) -> Self {
        self.name += " eval";
        self.problem = self.problem.with_mode(Mode::Eval);
        self
    }

    fn change(mut self, what: &str, change: impl FnOnce(&mut Problem)) -> Self {
        self.name += &format!(" {what}");
        change(&mut self.problem);
        self
    }
}

const CUMULATIVE: ChannelStats = ChannelStats::Batch { momentum: None };
const SLOW: ChannelStats = ChannelStats::Estimate { moving_speed: 0.25 };
const FAST: ChannelStats = ChannelStats::Estimate { moving_speed: 0.75 };

/// 1, primes and non-multiples on every axis; words of 4 that rows are aligned to (L = 16), that
/// they are not (L = 63, 6, 5002), words of 1; rows, batches and groups large enough for every
/// tuning's splits, segments and lanes.
fn cases() -> Vec<Case> {
    vec![
        Case::new(&[0, 4, 3], 2, 0),
        Case::new(&[2, 3, 0], 1, 0).accumulate(),
        Case::new(&[2, 1], 1, 1),
        Case::new(&[1, 1, 2], 1, 2).accumulate(),
        Case::new(&[1, 3, 1], 1, 3).stats(SLOW).accumulate(),
        Case::new(&[5, 3], 3, 4).stats(CUMULATIVE),
        Case::new(&[5, 3], 1, 4)
            .stats(CUMULATIVE)
            .change("the last count", |p| p.num_batches_tracked = u32::MAX),
        Case::new(&[1, 7, 2], 7, 5).eval(),
        Case::new(&[3, 5, 7, 3], 5, 6),
        Case::new(&[3, 5, 7, 3], 1, 7).accumulate(),
        Case::new(&[2, 6, 7, 9], 3, 8)
            .stats(CUMULATIVE)
            .accumulate(),
        Case::new(&[2, 6, 7, 9], 2, 9).stats(SLOW),
        Case::new(&[4, 8, 16], 2, 10).stats(SLOW).accumulate(),
        Case::new(&[4, 8, 16], 4, 11).eval(),
        Case::new(&[2, 4, 6], 2, 12).stats(FAST),
        Case::new(&[2, 12, 5, 5], 1, 13).eval().accumulate(),
        Case::new(&[3, 2, 1003], 1, 14).stats(SLOW).eval(),
        Case::new(&[1, 3, 4999], 3, 15),
        Case::new(&[2, 2, 5002], 1, 16).accumulate(),
        Case::new(&[1, 2, 20_002], 2, 17).stats(FAST),
        Case::new(&[1, 1, 40_000], 1, 18),
        Case::new(&[300, 3, 2], 1, 19),
        Case::new(&[1100, 2], 2, 20).stats(SLOW).accumulate(),
        Case::new(&[1031, 4, 4], 2, 21).accumulate(),
        Case::new(&[2, 520, 3], 1, 22),
        Case::new(&[4, 6, 50], 3, 23).change("mean 1e4", |p| {
            p.x.iter_mut().for_each(|x| *x = 1e4 + (*x - 3.0) * 0.5);
        }),
        Case::new(&[4, 6, 50], 3, 24)
            .stats(SLOW)
            .change("far from the running mean", |p| {
                p.x.iter_mut().for_each(|x| *x -= 1e3);
            }),
        Case::new(&[3, 4, 1009], 2, 25).change("outlier, first of its row", |p| p.x[1009] = 1e4),
        Case::new(&[3, 4, 1009], 2, 26).change("mean of dy 100", |p| {
            p.grad_y.iter_mut().for_each(|dy| *dy += 100.0);
        }),
        Case::new(&[3, 4, 20], 2, 27).change("a constant channel", |p| {
            p.x.chunks_mut(20).step_by(4).for_each(|row| row.fill(0.7));
        }),
        Case::new(&[2, 12, 9], 2, 28)
            .accumulate()
            .change("biases of 50", |p| {
                p.bn_bias
                    .iter_mut()
                    .enumerate()
                    .for_each(|(c, b)| *b += 50.0 - c as f32);
            }),
    ]
}

/// Everything split: parts of a few words, segments of 4 samples, a lane for every entry of a table,
/// workgroups that are no power of two, in two dimensions.
const SPLIT: Tuning = Tuning {
    workgroup_size: 24,
    reduce_lanes: 8,
    map_lanes: 8,
    words_per_lane: 2,
    max_words_per_lane: 24,
    min_invocations: 1 << 11,
    fold_workgroup_size: 192,
    fold_lanes: 64,
    entries_per_lane: 1,
    samples_per_segment: 4,
    max_workgroups: 100,
    ..Tuning::GPU
};

// ---------------------------------------------------------------------------------------------
// The mirror

/// The plans of a case, and for every step of theirs what its buffers hold before it and after, on
/// the CPU.
struct Mirrored {
    plans: [Plan; 2],
    steps: Vec<Mirror>,
}

struct Mirror {
    step: Step,
    /// What it binds; what it writes without reading is poison.
    before: Contents,
    /// What it wrote.
    after: Contents,
    checks: BTreeMap<Role, Checks>,
}

/// Written, but read as well.
fn is_state(role: Role, options: BackwardOptions) -> bool {
    match role {
        Role::RunningMean | Role::RunningVar | Role::NumBatchesTracked => true,
        Role::GradX => options.x == Write::Accumulate,
        Role::GradBnWeight | Role::GradBnBias | Role::GradWeight | Role::GradBias => {
            options.parameters == Write::Accumulate
        }
        _ => false,
    }
}

fn mirror(case: &Case, tuning: &Tuning) -> Mirrored {
    let plans = run::plans(&case.problem, case.options, tuning)
        .unwrap_or_else(|error| panic!("{}: {error}", case.name));
    let mut buffers = run::host_buffers(&case.problem, &plans);
    let mut random = Random::new(99);
    for need in plans.iter().flat_map(Plan::needs) {
        let is_gradient = need.role.name().starts_with("grad_") && need.role != Role::GradY;
        if is_gradient && is_state(need.role, case.options) {
            buffers.set(
                need.role,
                random.normals((need.bytes / 4) as usize, 0.0, 1.0),
            );
        }
    }
    let executor = Executor::with_threads(1);
    let mut steps = Vec::new();
    for step in plans.iter().flat_map(Plan::steps) {
        let name = step.spec.kernel.name();
        let before = contents(&buffers, step.bindings.iter().copied());
        let binding_checks = checks(step, &buffers);
        for role in written(step) {
            let poisoned = before[&role].iter().all(|&word| word == POISON);
            assert!(
                poisoned || is_state(role, case.options),
                "{}: {name} {role}",
                case.name
            );
        }
        executor.run_step(step, &mut buffers).unwrap();
        let after = contents(&buffers, written(step));
        for (role, words) in &after {
            // A comparison with poison would compare nothing with nothing.
            let holes = words.iter().filter(|&&word| word == POISON).count();
            assert_eq!(
                holes, 0,
                "{}: the mirror of {name} leaves holes in {role}",
                case.name
            );
        }
        let checks = written(step).zip(binding_checks).collect();
        steps.push(Mirror {
            step: step.clone(),
            before,
            after,
            checks,
        });
    }
    Mirrored { plans, steps }
}

impl Mirror {
    /// Compares what a device wrote with the mirror's, binding by binding.
    fn compare(&self, got: &Contents) -> Result<f64, String> {
        let mut worst = 0.0f64;
        for (role, expected) in &self.after {
            let got = got.get(role).ok_or_else(|| format!("{role} is missing"))?;
            let fraction = self.checks[role]
                .compare(got, expected)
                .map_err(|error| format!("{role}: {error}"))?;
            worst = worst.max(fraction);
        }
        Ok(worst)
    }
}

// ---------------------------------------------------------------------------------------------
// On devices

fn check_stages(tuning: Option<Tuning>, wide: bool) {
    for (adapter, gpu) in adapters::gpus(DeviceLimits::Default) {
        let pipelines = match tuning {
            Some(tuning) => Pipelines::with_tuning(&gpu.device, tuning),
            None => Pipelines::new(&gpu.device),
        };
        let mut wide_pipelines = WidePipelines::default();
        // The worst error of each kernel, as a fraction of its tolerance.
        let mut worst: BTreeMap<KernelId, (f64, String)> = BTreeMap::new();
        let mut failures = Vec::new();
        for case in cases() {
            let mirrored = mirror(&case, pipelines.tuning());
            let rig = Rig::new(&gpu, &pipelines, &mirrored.plans);
            let before: Vec<Contents> = mirrored.steps.iter().map(|s| s.before.clone()).collect();
            let ranges = match wide {
                false => Ranges::Exact,
                true => Ranges::Wide(&mut wide_pipelines),
            };
            let got = rig
                .run_steps(&before, ranges)
                .unwrap_or_else(|e| panic!("{adapter}, {}: {e}", case.name));
            assert_eq!(got.len(), mirrored.steps.len());
            for (mirror, got) in mirrored.steps.iter().zip(&got) {
                let kernel = mirror.step.spec.kernel;
                let place = format!("{adapter}, {}: {}", case.name, kernel.name());
                match mirror.compare(got) {
                    Ok(fraction) => {
                        let worst = worst.entry(kernel).or_default();
                        if fraction >= worst.0 {
                            *worst = (fraction, case.name.clone());
                        }
                    }
                    Err(error) => failures.push(format!("{place}: {error}")),
                }
            }
        }
        for (kernel, (fraction, case)) in &worst {
            println!(
                "{adapter}: {} at {fraction:.3} of its tolerance ({case})",
                kernel.name()
            );
        }
        assert!(
            failures.is_empty(),
            "{} failures:\n{}",
            failures.len(),
            failures.join("\n")
        );
    }
}

#[test]
fn stages_with_the_adapters_tuning() {
    check_stages(None, false);
}

#[test]
fn stages_with_the_tuning_for_gpus() {
    check_stages(Some(Tuning::GPU), false);
}

#[test]
fn stages_with_everything_split() {
    check_stages(Some(SPLIT), false);
}

/// With poison instead of the bindings' ends, for what devices hide behind them.
#[test]
fn nothing_behind_the_tables_is_touched() {
    check_stages(None, true);
    check_stages(Some(SPLIT), true);
}

// ---------------------------------------------------------------------------------------------
// What the tests above rest on

/// The cases take every path: every kernel, one lane and more, parts, segments, words.
#[test]
fn cases_take_every_path() {
    let mut seen = std::collections::BTreeSet::new();
    for tuning in [Tuning::SOFTWARE, Tuning::GPU, SPLIT] {
        for case in cases() {
            let plans = run::plans(&case.problem, case.options, &tuning).unwrap();
            for step in plans.iter().flat_map(Plan::steps) {
                let (spec, p) = (&step.spec, &step.params);
                let lanes = match spec.lanes {
                    1 => "1 lane",
                    2..=32 => "some lanes",
                    _ => "many lanes",
                };
                let parts = if p.parts > 1 { "parts" } else { "whole rows" };
                let dimensions = if step.workgroups[1] > 1 { "2d" } else { "1d" };
                let name = spec.kernel.name();
                seen.insert(format!("{name} {lanes}"));
                seen.insert(format!("{name} {parts}"));
                seen.insert(format!("{name} width {} {}", spec.width, spec.aligned));
                seen.insert(format!(
                    "{name} accumulate {}",
                    spec.accumulate || p.flags & 8 != 0
                ));
                seen.insert(dimensions.to_owned());
                seen.insert(format!("{name} mode {}", p.flags & 7));
            }
        }
    }
    let mut wanted = vec![
        "2d".to_owned(),
        "row_affine_backward accumulate true".to_owned(),
    ];
    for kernel in KernelId::ALL {
        let name = kernel.name();
        wanted.push(format!("{name} 1 lane"));
        let alone = ["batch_count", "row_coefficients_backward"].contains(&name);
        if !alone {
            wanted.push(format!("{name} some lanes"));
            wanted.push(format!("{name} many lanes"));
        }
        if [
            "row_moments",
            "row_affine",
            "row_products",
            "row_affine_backward",
        ]
        .contains(&name)
        {
            wanted.push(format!("{name} parts"));
            wanted.push(format!("{name} whole rows"));
            wanted.push(format!("{name} width 1 true"));
            wanted.push(format!("{name} width 4 true"));
            wanted.push(format!("{name} width 4 false"));
        }
        if ["channel_fold", "channel_fold_backward"].contains(&name) {
            // Eval of either kind; batch, estimated and cumulative in training.
            for flags in [0, 1, 2, 3, 5] {
                wanted.push(format!("{name} mode {flags}"));
            }
        }
        if name == "channel_fold_backward" {
            wanted.push(format!("{name} accumulate true"));
            wanted.push(format!("{name} accumulate false"));
        }
    }
    let missing: Vec<_> = wanted.iter().filter(|path| !seen.contains(*path)).collect();
    assert!(missing.is_empty(), "no case takes {missing:?}");
}

/// Cases on which the comparison is seen to fail.
fn few_cases() -> Vec<Case> {
    vec![
        Case::new(&[9, 6, 7, 9], 3, 31).stats(CUMULATIVE),
        Case::new(&[9, 6, 7, 9], 2, 32).stats(SLOW).accumulate(),
        Case::new(&[5, 4, 27], 2, 33).eval(),
    ]
}

#[test]
fn the_mirror_is_like_itself() {
    for case in cases().iter().chain(&few_cases()) {
        for mirror in mirror(case, &SPLIT).steps {
            assert_eq!(mirror.compare(&mirror.after), Ok(0.0), "{}", case.name);
        }
    }
}

/// A relative error of 1e-3 in any word of any entry of any table, or one over its tolerance, a NaN,
/// poison and an infinity are found, and tolerances are small beside what they are tolerances of.
#[test]
fn one_wrong_word_fails() {
    let mut kernels = std::collections::BTreeSet::new();
    for case in few_cases() {
        for mirror in mirror(&case, &SPLIT).steps {
            let name = mirror.step.spec.kernel.name();
            kernels.insert(name);
            for (role, checks) in &mirror.checks {
                let expected = &mirror.after[role];
                let mut got = expected.clone();
                let size = checks.words_per_entry;
                for check in &checks.checks {
                    let what = format!("{}: {name} {role} {}", case.name, check.name);
                    let values = || expected.chunks(size).map(|entry| check.value(entry).abs());
                    let largest = values().fold(0.0, f64::max);
                    if let Rule::Near(tolerances) = &check.rule {
                        // The mean of x less its mean is 0 but for rounding: a tolerance is all it
                        // can be compared with.
                        let all_rounding = check.name == "x_mean";
                        let most = tolerances.iter().copied().fold(0.0, f64::max);
                        assert!(
                            all_rounding || most <= 1e-4 * largest,
                            "{what}: {most} of {largest}"
                        );
                    }
                    for at in [0, expected.len() / size / 2, expected.len() / size - 1] {
                        let tolerance = match &check.rule {
                            Rule::Near(tolerances) => tolerances[at],
                            _ => 0.0,
                        };
                        for &word in &check.words {
                            let word = at * size + word;
                            let value = f64::from(f32::from_bits(expected[word]));
                            let off = (1e-3 * largest).max(1.5 * tolerance).max(1e-30);
                            let mut wrong = vec![
                                POISON,
                                f32::NAN.to_bits(),
                                f32::INFINITY.to_bits(),
                                ((value + off) as f32).to_bits(),
                                ((value - off) as f32).to_bits(),
                            ];
                            if let Rule::Same = check.rule {
                                // Integers too.
                                wrong = vec![
                                    POISON,
                                    expected[word] ^ 1,
                                    expected[word].wrapping_add(1),
                                ];
                            }
                            for wrong in wrong {
                                let right = std::mem::replace(&mut got[word], wrong);
                                let result = checks.compare(&got, expected);
                                assert!(result.is_err(), "{what}: {value} became {wrong:#x}");
                                got[word] = right;
                            }
                        }
                    }
                }
            }
        }
    }
    assert_eq!(
        kernels.len(),
        KernelId::ALL.len(),
        "only {kernels:?} were compared"
    );
}

/// Swapped tables, tables shifted by an entry, halves that were not written, wrong lengths.
#[test]
fn swapped_and_missing_tables_fail() {
    let mut swapped = 0;
    for case in few_cases() {
        for mirror in mirror(&case, &SPLIT).steps {
            let name = format!("{}: {}", case.name, mirror.step.spec.kernel.name());
            let roles: Vec<Role> = mirror.after.keys().copied().collect();
            for (i, &role) in roles.iter().enumerate() {
                let change = |change: &dyn Fn(&mut Vec<u32>)| {
                    let mut got = mirror.after.clone();
                    change(got.get_mut(&role).unwrap());
                    mirror.compare(&got)
                };
                let size = mirror.checks[&role].words_per_entry;
                let entries = mirror.after[&role].len() / size;
                if entries > 1 {
                    let rotated = change(&|words| words.rotate_left(size));
                    let all_zero = mirror.after[&role].iter().all(|&word| word == 0);
                    assert!(rotated.is_err() || all_zero, "{name} {role} rotated");
                }
                assert!(
                    change(&|words| words.fill(POISON)).is_err(),
                    "{name} {role}"
                );
                assert!(
                    change(&|words| {
                        let n = words.len();
                        words[n / 2..].fill(POISON)
                    })
                    .is_err()
                );
                assert!(
                    change(&|words| {
                        words.pop();
                    })
                    .is_err(),
                    "{name} {role}"
                );
                assert!(change(&|words| words.clear()).is_err(), "{name} {role}");
                let mut got = mirror.after.clone();
                got.remove(&role);
                assert!(mirror.compare(&got).is_err(), "{name} {role}");
                for &other in &roles[i + 1..] {
                    let mut got = mirror.after.clone();
                    let (a, b) = (got[&role].clone(), got[&other].clone());
                    got.insert(role, b);
                    got.insert(other, a);
                    assert!(
                        mirror.compare(&got).is_err(),
                        "{name} {role} and {other} swapped"
                    );
                    swapped += 1;
                }
            }
        }
    }
    assert!(swapped > 0);
}

/// The rig sees a write behind the range that it takes for bound.
#[test]
fn the_rig_sees_holes() {
    let gpu = adapters::first();
    let pipelines = Pipelines::new(&gpu.device);
    let case = &few_cases()[0];
    let mirrored = mirror(case, pipelines.tuning());
    let rig = Rig::new(&gpu, &pipelines, &mirrored.plans);
    let before: Vec<Contents> = mirrored.steps.iter().map(|s| s.before.clone()).collect();
    let whole = rig.run_steps(&before, Ranges::Exact).unwrap();
    // Contents that are shorter than what the plan binds: its write is one behind their end.
    let mut short = before.clone();
    let role = written(&mirrored.steps[0].step).next().unwrap();
    short[0].get_mut(&role).unwrap().pop();
    let error = rig.run_steps(&short, Ranges::Exact).unwrap_err();
    assert!(error.contains("outside of its range"), "{error}");
    assert!(whole[0].contains_key(&role));
}
