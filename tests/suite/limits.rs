//! Sizes at which other implementations break: more loop iterations than llvmpipe runs (it ends an
//! invocation after some 65,535, silently), more workgroups than one dimension holds, more values
//! than f32 counts, tensors as large as a u32 index allows. On devices with WebGPU's default limits
//! and with the adapter's.
#![allow(missing_docs)]

use crate::common;

use bcnorm::gpu::headless::DeviceLimits;
use bcnorm::kernels::KernelId;
use bcnorm::params::{ColumnSplit, RowSplit, Table};
use bcnorm::{
    BackwardOptions, ChannelStats, DType, Error, ForwardOptions, Layout, Mode, NormDesc, Plan,
    Role, TensorDesc, Tuning,
};
use common::conditioning::{self, Worst};
use common::problem::Problem;
use common::targets::{self, Target};
use common::{adapters, run};

/// What llvmpipe runs of a loop before it stops.
const CUT: u32 = 65_535;

const LAYOUTS: [Layout; 2] = [Layout::ChannelsFirst, Layout::ChannelsLast];

/// Forward and backward everywhere, against one oracle. `merges` is how many moments (or sums) one
/// lane merges in a row: 4 roundings each, of random sign, in sums as large as the result.
/// Conditioning.rs covers 64 of them.
fn check(targets: &[Target], what: &str, problem: &Problem, merges: usize) {
    let expected = run::expected(problem);
    let mut bounds = conditioning::bounds(problem, &expected);
    let growth = 2f64.powi(-24) * (4.0 * merges as f64).sqrt() / conditioning::F32;
    bounds
        .values_mut()
        .for_each(|bound| *bound *= growth.max(1.0));
    let mut worst = Worst::default();
    for target in targets {
        let what = format!("{}: {what}", target.name);
        let outputs = target.run(problem);
        let found = conditioning::assert_problem(&what, problem, &outputs, &expected, &bounds);
        worst.take(found.fraction, || found.what);
    }
    println!("worst: {:.2} of its bound, {}", worst.fraction, worst.what);
}

/// All adapters, with default limits and with their own.
fn devices(tuning: Option<Tuning>) -> Vec<Target> {
    let limits = [DeviceLimits::Default, DeviceLimits::Adapter];
    let gpus = limits.into_iter().flat_map(|limits| {
        let gpus = adapters::gpus(limits).into_iter();
        gpus.map(move |(name, gpu)| (format!("{name}, {limits:?} limits"), gpu))
    });
    gpus.map(|(name, gpu)| Target::gpu(&name, gpu, tuning))
        .collect()
}

/// A batch in which every sample has another mean: whatever part of it is left out shows.
fn ramp(dims: &[usize], num_groups: usize) -> Problem {
    let mut problem = Problem::random(dims, num_groups, 8);
    let len = problem.x.len();
    for (i, x) in problem.x.iter_mut().enumerate() {
        *x += 10.0 * (i as f32 / len as f32);
    }
    problem
}

#[test]
fn many_samples() {
    let mut targets = devices(None);
    targets.push(Target::cpu());
    check(&targets, "N = 140,000", &ramp(&[140_000, 3, 2], 1), 0);
}

/// Tunings that fold the batch in one step: the planner must find lanes for it, since one lane
/// would need 280,000 iterations.
#[test]
fn many_samples_in_one_fold() {
    let tuning = Tuning::SOFTWARE.with(|t| {
        t.fold.samples_per_segment = u32::MAX;
        // Tables of rows, however short they are.
        t.short_rows.max_row = 0;
        t.short_rows.max_batch_row = 0;
    });
    let problem = ramp(&[140_000, 3, 2], 1);
    let plans = run::plans(&problem, BackwardOptions::default(), &tuning).unwrap();
    for (plan, kernel) in plans
        .iter()
        .zip([KernelId::ChannelFold, KernelId::ChannelFoldBackward])
    {
        let steps = plan.steps().iter().map(|step| step.spec.kernel);
        assert!(
            steps
                .clone()
                .all(|kernel| !kernel.name().starts_with("sample_fold"))
        );
        let fold = plan.steps().iter().find(|step| step.spec.kernel == kernel);
        let fold = fold.unwrap();
        let entries = fold.params.block::<Table>().unwrap().entries;
        assert_eq!(entries, 140_000);
        assert!(entries / fold.spec.lanes < CUT);
    }
    let targets = targets::with_tuning(tuning);
    check(&targets, "N = 140,000, one fold", &problem, 140_000 / 8);
    // And estimates, whose statistics take the same way.
    let estimate = problem.with_stats(ChannelStats::Estimate { moving_speed: 0.5 });
    check(
        &targets,
        "N = 140,000, one fold, estimate",
        &estimate,
        140_000 / 8,
    );
}

/// Shares of a lane that no loop of one word an iteration could run on llvmpipe: 70,000 and the
/// most that the tuning allows, in tensors of whole words and in others.
#[test]
fn long_shares_of_a_lane() {
    let tuning = Tuning::SOFTWARE.with(|t| {
        t.parts.max_words_per_lane = 195_000;
        t.reduction.words_per_lane = 195_000;
        t.reduction.min_words_per_lane = 195_000;
        t.map.words_per_lane = 195_000;
        t.parts.min_invocations = 1;
    });
    let targets = targets::with_tuning(tuning);
    // Rows of whole words, and rows that begin within one; words of one element, where the tensor is no whole number of 4.
    for (channels, len, width) in [
        (1, 280_000, 4),
        (2, 279_998, 4),
        (1, 780_000, 4),
        (2, 779_990, 4),
        (1, 130_001, 1),
        (1, 194_999, 1),
    ] {
        let problem = ramp(&[1, channels, len], 1);
        for plan in run::plans(&problem, BackwardOptions::default(), &tuning).unwrap() {
            let tensor_sized = plan.steps().iter().filter(|step| {
                let name = step.spec.kernel.name();
                name.starts_with("row_affine") || ["row_moments", "row_products"].contains(&name)
            });
            assert_eq!(tensor_sized.clone().count(), 2);
            for step in tensor_sized {
                let split = step.params.block::<RowSplit>().unwrap();
                assert_eq!((step.spec.lanes, split.parts), (1, 1));
                assert_eq!(step.spec.width, width);
                assert!(split.words_per_part > CUT);
            }
        }
        // Chunks of 4 words.
        let what = format!("a share of {len} values");
        check(&targets, &what, &problem, len / width as usize / 4);
    }
}

/// Rows of the same length under the adapter's own tuning: split into parts.
#[test]
fn long_rows() {
    let mut targets = devices(None);
    targets.push(Target::cpu());
    // Parts of 1024 words, chunks of 4; words of 1, since 780,001 is odd.
    let (what, merges) = ("rows of 780,001 values", 1024 / 4 + 780_001 / 1024);
    check(&targets, what, &ramp(&[1, 1, 780_001], 1), merges);
}

fn workgroups(plan: &Plan) -> Vec<[u32; 2]> {
    plan.steps().iter().map(|step| step.workgroups).collect()
}

/// More workgroups than one dimension of a dispatch may have.
#[test]
fn many_workgroups() {
    let elements = Tuning::SOFTWARE.with(|t| {
        t.reduction.workgroup_size = 1;
        t.map.workgroup_size = 1;
        t.fold.workgroup_size = 1;
    });
    let rows = elements.with(|t| t.short_rows.max_row = 0);
    let problem = ramp(&[23_333, 3, 5], 3);
    // Of elements, the kernels on groups have as many.
    for (tuning, least) in [(rows, 3), (elements, 1)] {
        for plan in run::plans(&problem, BackwardOptions::default(), &tuning).unwrap() {
            let folded = workgroups(&plan);
            let folded = folded.iter().filter(|[x, y]| *y > 1 && x * y > CUT);
            assert!(folded.count() >= least, "{:?}", workgroups(&plan));
        }
        check(&devices(Some(tuning)), "69,999 workgroups", &problem, 0);
    }
}

/// Dispatches folded into two dimensions that hold more workgroups than there are items: those
/// beyond must leave everything alone.
#[test]
fn workgroups_folded_at_odd_limits() {
    // SwiftShader's: what all adapters compile in seconds.
    let shared = Tuning::for_name("SwiftShader", true);
    for max_workgroups in [37, 61, 255] {
        let tuning = shared.with(|t| t.limits.max_workgroups = max_workgroups);
        let problem = ramp(&[67, 13, 9], 1);
        for plan in run::plans(&problem, BackwardOptions::default(), &tuning).unwrap() {
            let most = workgroups(&plan).into_iter().flatten().max();
            assert!(most.unwrap() <= max_workgroups);
        }
        let what = format!("at most {max_workgroups} workgroups a dimension");
        check(&targets::with_tuning(tuning), &what, &problem, 0);
    }
}

/// More than 2^24 values in a channel, around 1: f32 does not count them one by one, and a sum of
/// them would be off by thousands.
#[test]
fn more_values_than_f32_counts() {
    let mut problem = Problem::random_large(&[1, 1, 4200, 4200], 1, 2);
    assert!(problem.x.len() > 1 << 24);
    problem.x.iter_mut().for_each(|x| *x -= 2.0);
    let limits = [DeviceLimits::Default, DeviceLimits::Adapter];
    let mut targets: Vec<Target> = limits.into_iter().map(targets::fastest).collect();
    targets.push(Target::cpu());
    // Parts of 1024 words of 4, chunks of 4 words; then all parts by one lane.
    check(
        &targets,
        "4200 x 4200",
        &problem,
        1024 / 4 + 4200 * 4200 / 4096,
    );
}

/// On paper: tensors of 2^31 and 2^32 elements are planned in each type and layout, each dispatch
/// within WebGPU's limits, with an invocation for each item and bindings for each element; one element
/// more than 2^32 is refused.
#[test]
fn the_largest_tensors_are_planned() {
    let shapes: [&[usize]; 9] = [
        &[1, 1, 1 << 31],
        &[2, 1, 1 << 15, 1 << 15],
        &[1 << 16, 1 << 15],
        &[1 << 20, 64, 32],
        &[3, 5, 11_930_464, 12],
        &[32, 1 << 16, 1 << 10],
        &[2, 2, 1 << 30],
        &[64, 256, 512, 512],
        &[4, 15, 71_582_788],
    ];
    let storages = [DType::F32, DType::F16, DType::BF16].into_iter();
    let storages = storages.flat_map(|dtype| LAYOUTS.map(|layout| (dtype, layout)));
    for (dims, (dtype, layout)) in shapes
        .into_iter()
        .flat_map(|dims| storages.clone().map(move |storage| (dims, storage)))
    {
        let tensor = TensorDesc::new(dims).unwrap();
        let tensor = tensor.with_dtype(dtype).with_layout(layout);
        let norm = NormDesc::bc_norm(dims[1], 1);
        for tuning in [Tuning::GPU, Tuning::SOFTWARE, Tuning::CPU] {
            let (forward, backward) = (ForwardOptions::default(), BackwardOptions::default());
            let plans = [
                Plan::forward(&norm, &tensor, Mode::Train, forward, &tuning),
                Plan::backward(&norm, &tensor, Mode::Train, backward, &tuning),
            ];
            for plan in plans {
                let what = format!("{dims:?} {} {}", dtype.name(), layout.name());
                let plan = plan.unwrap_or_else(|error| panic!("{what}: {error}"));
                check_on_paper(&what, &plan, &tuning);
            }
        }
    }
    // As many groups as channels: as many terms of gradients again, still counted right.
    let tensor = TensorDesc::new(&[1, 1 << 31]).unwrap();
    let stats = ChannelStats::Estimate { moving_speed: 0.1 };
    let norm = NormDesc::bc_norm(1 << 31, 1 << 31).with_stats(stats);
    let options = BackwardOptions::default();
    match Plan::backward(&norm, &tensor, Mode::Train, options, &Tuning::GPU) {
        Ok(plan) => assert_eq!(plan.need(Role::GradientTerms).unwrap().bytes, 8 << 32),
        Err(error) => assert!(matches!(error, Error::Limit { .. }), "{error}"),
    }
    for dims in [
        &[1, 1, (1 << 31) + 1][..],
        &[1 << 16, (1 << 16) + 1],
        &[3, 1, 1 << 31],
    ] {
        let error = TensorDesc::new(dims).unwrap_err();
        assert!(matches!(error, Error::TooManyElements { .. }), "{error}");
    }
}

/// A plan that no machine here could run.
fn check_on_paper(what: &str, plan: &Plan, tuning: &Tuning) {
    for step in plan.steps() {
        let name = step.spec.kernel.name();
        let [x, y] = step.workgroups;
        assert!(x <= CUT && y <= CUT, "{what}: {name}: {x} x {y}");
        let invocations = step.spec.workgroup_size / step.spec.lanes;
        let items_each = u64::from(invocations * step.spec.column_words);
        let items = u64::from(x) * u64::from(y) * items_each;
        assert!(
            items >= u64::from(step.params.dispatch().items),
            "{what}: {name}"
        );
        // The kernel's index, in u32, must not wrap around to an item that is there.
        assert!(items <= 1 << 32, "{what}: {name}");
        // A part's words, or its positions with channels last; those of 16 bits and an odd number
        // of channels are taken as they come. (Groups of elements are bounded by their loops alone.)
        let reads = [
            "row_moments",
            "row_products",
            "column_moments",
            "column_products",
        ]
        .contains(&name);
        let lanes = u64::from(step.spec.lanes);
        let rows = step.params.block::<RowSplit>();
        let columns = step.params.block::<ColumnSplit>();
        let share = rows.map(|split| split.words_per_part);
        let share = share.or(columns.map(|split| split.positions_per_part));
        let share = u64::from(share.unwrap_or(0)).div_ceil(lanes);
        assert!(
            !reads || share <= u64::from(tuning.parts.max_words_per_lane),
            "{what}: {name}"
        );
        // What is bound of a tensor.
        let whole = plan.tensor().buffer_bytes();
        let bound = step.window.map_or(whole, |window| window.bytes);
        let tensors = step.bindings.iter().any(|role| role.is_tensor());
        assert!(
            !tensors || bound <= tuning.limits.max_binding_bytes,
            "{what}: {name}"
        );
        if let Some(window) = step.window {
            assert!(window.offset % 256 == 0 && window.bytes % 4 == 0, "{what}");
            assert!(window.offset + window.bytes <= whole, "{what}");
        }
    }
}

/// The largest dispatches that a real device is asked for: a tensor of which each binding holds a
/// small part, in windows within rows and between them, right at every element.
#[test]
fn hundreds_of_windows() {
    let tuning = Tuning::SOFTWARE.with(|t| {
        t.limits.max_binding_bytes = 4096;
        // 32 positions of 24 channels fit.
        t.parts.max_words_per_lane = 32;
    });
    for (dims, dtype, layout) in [
        (&[2, 3, 20_011][..], DType::F32, Layout::ChannelsFirst),
        (&[2, 3, 20_011], DType::F16, Layout::ChannelsFirst),
        (&[2, 3, 20_011], DType::BF16, Layout::ChannelsLast),
        (&[40, 24, 11, 11], DType::F32, Layout::ChannelsLast),
        (&[400, 24, 7], DType::BF16, Layout::ChannelsFirst),
    ] {
        let problem = ramp(dims, 3).with_dtype(dtype).with_layout(layout);
        for plan in run::plans(&problem, BackwardOptions::default(), &tuning).unwrap() {
            let windows = plan.steps().iter().filter(|step| step.window.is_some());
            assert!(windows.count() > 30);
        }
        let what = format!("{dims:?} {} {} in windows", dtype.name(), layout.name());
        check(&targets::with_tuning(tuning), &what, &problem, 0);
    }
}
