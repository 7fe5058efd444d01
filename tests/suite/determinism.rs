//! The same bits on every run: of all outputs and all tables, over 100 runs on every adapter, however
//! the steps are recorded, and on the CPU with any number of threads. No reduction depends on who
//! comes first.
#![allow(missing_docs)]

use crate::common;
use crate::common::rig;

use bcnorm::cpu::{Buffers, Executor};
use bcnorm::gpu::Pipelines;
use bcnorm::gpu::headless::{DeviceLimits, Gpu};
use bcnorm::kernels::KernelId;
use bcnorm::{BackwardOptions, ChannelStats, DType, Layout, NormDesc, Plan, Role, Tuning};
use common::problem::Problem;
use common::run::{self, POISON};
use common::{adapters, compare};
use rig::{Contents, Rig, Way, contents, written};
use std::collections::BTreeSet;

const RUNS: usize = 100;

/// Runs of a submission.
const BATCH: usize = 10;

/// Rows in parts and batches in segments, lanes that share them: every kernel runs.
fn splitting(tuning: Tuning) -> Tuning {
    tuning.with(|t| {
        t.reduction.words_per_lane = 4;
        t.reduction.min_words_per_lane = 4;
        t.parts.max_words_per_lane = 16;
        t.fold.entries_per_lane = 2;
        t.fold.samples_per_segment = 5;
    })
}

/// Rows that begin within words, a group of several channels, more samples than a segment.
fn problem(seed: u64) -> Problem {
    Problem::random(&[23, 6, 19, 14], 2, seed)
}

/// The family's other kernels: channels last, running statistics of instances, no group part; 16 bits.
fn variants(seed: u64) -> Vec<Problem> {
    let dims = [23, 6, 19, 14];
    let instance = NormDesc::instance_norm(6)
        .with_weight(true)
        .with_bias(true)
        .with_track_running_stats(true);
    vec![
        problem(seed),
        Problem::random_of(instance, &dims, seed).with_layout(Layout::ChannelsLast),
        Problem::random_of(NormDesc::batch_norm(6).with_momentum(None), &dims, seed)
            .with_dtype(DType::BF16),
        // Short rows.
        Problem::random(&[130, 8, 2], 2, seed),
    ]
}

fn plans(problem: &Problem, tuning: &Tuning) -> [Plan; 2] {
    run::plans(problem, BackwardOptions::default(), tuning).unwrap()
}

fn roles(plans: &[Plan]) -> BTreeSet<Role> {
    plans
        .iter()
        .flat_map(Plan::needs)
        .map(|need| need.role)
        .collect()
}

fn written_roles(plans: &[Plan]) -> BTreeSet<Role> {
    plans
        .iter()
        .flat_map(Plan::steps)
        .flat_map(written)
        .collect()
}

/// Asserts that two runs left the same bits in the same buffers.
fn assert_same(what: &str, got: &Contents, expected: &Contents) {
    assert!(got.keys().eq(expected.keys()), "{what}: other buffers");
    for (role, words) in got {
        let floats = |words: &[u32]| -> Vec<f32> { bytemuck::pod_collect_to_vec(words) };
        compare::assert_same_bits(
            &format!("{what}: {role}"),
            &floats(words),
            &floats(&expected[role]),
        );
    }
}

/// What the comparison of runs rests on: all was written.
fn assert_whole(what: &str, contents: &Contents, plans: &[Plan]) {
    assert!(
        contents.keys().copied().eq(written_roles(plans)),
        "{what}: buffers are missing"
    );
    for (role, words) in contents {
        assert!(!words.contains(&POISON), "{what}: {role} has holes");
    }
}

#[test]
fn the_same_bits_on_every_run() {
    for (name, gpu) in adapters::gpus(DeviceLimits::Default) {
        let own = Tuning::for_device(&gpu.device);
        for (tuning_name, tuning) in [
            ("own", own),
            ("split", splitting(own)),
            (
                "split, shared",
                splitting(Tuning::GPU.with(|t| {
                    t.reduction.lanes = 8;
                    t.map.lanes = 8;
                    t.fold.lanes = 16;
                })),
            ),
        ] {
            let pipelines = Pipelines::with_tuning(&gpu.device, tuning);
            let mut kernels = BTreeSet::new();
            for problem in variants(1) {
                let kind = problem.norm.kind.name();
                let what = format!("{name}, {tuning_name}, {kind}");
                let plans = plans(&problem, &tuning);
                let steps = plans.iter().flat_map(Plan::steps);
                kernels.extend(steps.map(|step| step.spec.kernel));
                same_bits(&what, &gpu, &pipelines, &problem, &plans);
            }
            if tuning_name != "own" {
                assert_eq!(
                    kernels.len(),
                    KernelId::ALL.len(),
                    "{name}, {tuning_name}: only {kernels:?}"
                );
            }
        }
    }
}

fn same_bits(what: &str, gpu: &Gpu, pipelines: &Pipelines, problem: &Problem, plans: &[Plan]) {
    let rig = Rig::new(gpu, pipelines, plans);
    let before = contents(&run::host_buffers(problem, plans), roles(plans));
    let ways = [Way::PlanByPlan, Way::OnePass, Way::StepByStep];
    let mut first = None;
    for batch in 0..RUNS / BATCH {
        let way = ways[batch % ways.len()];
        let results = rig.run_plans(&before, BATCH, way).unwrap();
        assert_eq!(results.len(), BATCH);
        for (run, result) in results.into_iter().enumerate() {
            let run = batch * BATCH + run;
            let first = first.get_or_insert_with(|| {
                assert_whole(what, &result, plans);
                result.clone()
            });
            assert_same(&format!("{what}, run {run} {way:?}"), &result, first);
        }
    }
}

#[test]
fn the_same_bits_on_any_number_of_threads() {
    for (tuning_name, tuning) in [
        ("own", Tuning::CPU),
        ("split", splitting(Tuning::CPU)),
        ("a GPU's", splitting(Tuning::GPU)),
    ] {
        for problem in [
            problem(2),
            problem(3).with_stats(ChannelStats::Estimate { moving_speed: 0.3 }),
            Problem::random(&[1, 3, 1], 1, 4).with_mode(bcnorm::Mode::Eval),
            Problem::random(&[2, 1, 4099], 1, 5),
            variants(6).remove(1),
            variants(6).remove(2),
        ] {
            let plans = plans(&problem, &tuning);
            let run = |threads| {
                let mut buffers: Buffers = run::host_buffers(&problem, &plans);
                for plan in &plans {
                    Executor::with_threads(threads)
                        .run(plan, &mut buffers)
                        .unwrap();
                }
                contents(&buffers, written_roles(&plans))
            };
            let first = run(1);
            let what = format!("{:?} {tuning_name}", problem.dims);
            assert_whole(&what, &first, &plans);
            for threads in [1, 2, 5, 64] {
                assert_same(&format!("{what}, {threads} threads"), &run(threads), &first);
            }
        }
    }
}

/// Other data leaves other bits in every buffer that depends on it: the runs above are no copies of
/// one another.
#[test]
fn other_data_other_bits() {
    let gpu = adapters::first();
    let tuning = splitting(Tuning::for_device(&gpu.device));
    let pipelines = Pipelines::with_tuning(&gpu.device, tuning);
    let results = [1, 2].map(|seed| {
        let problem = problem(seed);
        let plans = plans(&problem, &tuning);
        let rig = Rig::new(&gpu, &pipelines, &plans);
        let before = contents(&run::host_buffers(&problem, &plans), roles(&plans));
        rig.run_plans(&before, 1, Way::OnePass).unwrap().remove(0)
    });
    for (role, words) in &results[0] {
        let same = words == &results[1][role];
        assert_eq!(same, *role == Role::NumBatchesTracked, "{role}");
    }
    let one_bit = |role: Role| {
        let mut changed = results[0].clone();
        *changed.get_mut(&role).unwrap().last_mut().unwrap() ^= 1;
        std::panic::catch_unwind(|| assert_same("one bit", &changed, &results[0])).is_err()
    };
    assert!(results[0].keys().all(|&role| one_bit(role)));
}
