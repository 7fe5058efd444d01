//! Sums of a million terms and more: their error must not grow with the count, in any fold. Values are such that a
//! plain loop in f32 rounds the same way again and again: two values of x, dy near one value.
#![allow(missing_docs)]

use crate::common;

use bcnorm::gpu::headless::DeviceLimits;
use bcnorm::kernels::KernelId;
use bcnorm::{BackwardOptions, NormDesc, Tuning};
use common::compare;
use common::problem::Problem;
use common::random::Random;
use common::run;
use common::targets::{self, Target};

/// The issue's: of each tensor's scale, whatever the number of terms.
const BOUND: f64 = 1e-6;

fn problem(norm: NormDesc, dims: &[usize]) -> Problem {
    let mut problem = Problem::random_of(norm, dims, 5);
    let mut random = Random::new(6);
    for (x, dy) in problem.x.iter_mut().zip(&mut problem.grad_y) {
        *x = if random.uniform() < 0.5 { 3.7 } else { 2.3 };
        *dy = 0.3 + 0.01 * random.normal();
    }
    problem
}

/// Runs the problem on the fastest adapter, with its own tuning or another, whose plans must
/// have one of `kernels`, and on the CPU executor.
fn check(problem: &Problem, tuning: Option<Tuning>, kernels: &[KernelId]) {
    let expected = run::expected(problem);
    let mut fastest = targets::fastest(DeviceLimits::Default);
    if let Some(tuning) = tuning {
        let (gpu, _) = fastest.device.unwrap();
        fastest = Target::gpu(&fastest.name, gpu, Some(tuning));
    }
    let targets = [fastest, Target::cpu()];
    for target in targets {
        let what = format!("{}: {:?}", target.name, problem.dims);
        let plans = run::plans(problem, BackwardOptions::default(), &target.tuning()).unwrap();
        let steps = plans.iter().flat_map(|plan| plan.steps());
        let names: Vec<&str> = steps.map(|step| step.spec.kernel.name()).collect();
        let found = kernels.iter().any(|kernel| names.contains(&kernel.name()));
        assert!(found || target.device.is_none(), "{what}: {names:?}");
        let mut worst = (0.0, "");
        for (name, got) in target.run(problem) {
            let (values, scale) = &expected[name];
            let error = compare::error(&got, values, *scale).unwrap();
            if error > worst.0 {
                worst = (error, name);
            }
        }
        println!("{what}: {:.1e} ({})", worst.0, worst.1);
        assert!(worst.0 <= BOUND, "{what}: {}: {:.2e}", worst.1, worst.0);
    }
}

/// Tables of rows, however short they are.
const ROWS: Tuning = {
    let mut t = Tuning::SOFTWARE;
    t.short_rows.max_row = 0;
    t.short_rows.max_batch_row = 0;
    t
};

/// As many rows in a group.
#[test]
fn rows_of_a_group() {
    let dims = [2, 1_048_583];
    let layer = NormDesc::layer_norm(dims[1]);
    check(&problem(layer, &dims), None, &[KernelId::GroupFold]);
    let dims = [1, 1_048_583, 3];
    let both = NormDesc::bc_norm(dims[1], 1);
    check(&problem(both, &dims), None, &[KernelId::GroupFold]);
}

/// As many elements, of short rows: with the tuning of GPUs, since a lane alone may not loop over so many.
#[test]
fn elements_of_a_group() {
    let dims = [8, 1_048_572];
    let layer = problem(NormDesc::layer_norm(dims[1]), &dims);
    check(&layer, Some(Tuning::GPU), &[KernelId::ElementAffine]);
}

/// As many samples, whose rows are elements.
#[test]
fn samples_of_elements() {
    let dims = [1_048_583, 3];
    let both = NormDesc::bc_norm(dims[1], 1);
    let kernels = [KernelId::ElementTerms];
    check(&problem(both, &dims), None, &kernels);
    let batch = NormDesc::batch_norm(dims[1]);
    let kernels = [KernelId::RowFold, KernelId::SampleFold];
    check(&problem(batch, &dims), None, &kernels);
}

#[test]
fn samples_of_running_statistics() {
    let dims = [1_048_583, 1, 2];
    let instance = NormDesc::instance_norm(1).with_track_running_stats(true);
    check(&problem(instance, &dims), None, &[KernelId::RunningFold]);
}

/// As many samples in one fold over the batch, and in one segment of it.
#[test]
fn samples_of_rows() {
    let dims = [1_048_583, 2, 2];
    let both = problem(NormDesc::bc_norm(2, 1), &dims);
    let one = ROWS.with(|t| t.fold.samples_per_segment = u32::MAX);
    check(&both, Some(one), &[KernelId::ChannelFold]);
    let segments = ROWS.with(|t| t.fold.samples_per_segment = 1_048_576);
    check(&both, Some(segments), &[KernelId::SampleFold]);
    check(&both, None, &[KernelId::SampleFold, KernelId::ElementTerms]);
}

/// As many parts of a row: of a word each.
#[test]
fn parts_of_a_row() {
    let tuning = ROWS.with(|t| {
        t.reduction.words_per_lane = 1;
        t.parts.max_words_per_lane = 1;
    });
    let dims = [1, 1, 4_194_400];
    let group = problem(NormDesc::group_norm(1, 1), &dims);
    check(&group, Some(tuning), &[KernelId::RowFold]);
}
