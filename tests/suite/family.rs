//! Every member of the family in every mode, type, layout and fusion, against the oracle: on every
//! adapter, with both tunings, and on the CPU executor. The README's table of what is supported is what
//! passed here.
#![allow(missing_docs)]

use crate::common;

use bcnorm::cpu::Executor;
use bcnorm::gpu::Pipelines;
use bcnorm::gpu::headless::{DeviceLimits, Gpu};
use bcnorm::{
    Activation, ChannelStats, DType, Error, Fusion, Layout, Mode, NormDesc, NormKind, Plan,
    TensorDesc, Tuning,
};
use bcnorm_testkit::problem::Problem;
use bcnorm_testkit::{Failure, compare, run};
use common::{adapters, of_each_type};
use std::collections::{BTreeMap, BTreeSet};

/// Errors in the golden metric: 1e-6 is the golden vectors' bar.
const BAR: f64 = 1e-6;

const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];
const LAYOUTS: [Layout; 2] = [Layout::ChannelsFirst, Layout::ChannelsLast];
const MODES: [Mode; 2] = [Mode::Train, Mode::Eval];

fn fusions() -> impl Iterator<Item = Fusion> {
    let activations = [Activation::None, Activation::Relu, Activation::Silu];
    activations.into_iter().flat_map(|activation| {
        [false, true].map(|residual| {
            Fusion::NONE
                .with_activation(activation)
                .with_residual(residual)
        })
    })
}

/// The members, each in the variants that torch.nn has.
fn norms(channels: usize, groups: usize) -> Vec<(&'static str, NormDesc)> {
    let estimate = ChannelStats::Estimate { moving_speed: 0.3 };
    let batch = NormDesc::batch_norm(channels);
    let group = NormDesc::group_norm(groups, channels);
    let instance = NormDesc::instance_norm(channels);
    let bc = NormDesc::bc_norm(channels, groups);
    vec![
        ("batch_norm", batch),
        (
            "batch_norm, no affine",
            batch.with_weight(false).with_bias(false),
        ),
        (
            "batch_norm, no bias",
            batch.with_weight(true).with_bias(false),
        ),
        ("batch_norm, cumulative", batch.with_momentum(None)),
        (
            "batch_norm, untracked",
            batch.with_track_running_stats(false),
        ),
        ("est_bn", NormDesc::est_bn(channels).with_moving_speed(0.3)),
        (
            "est_bn, no affine",
            NormDesc::est_bn(channels)
                .with_weight(false)
                .with_bias(false),
        ),
        ("group_norm", group),
        (
            "group_norm, no affine",
            group.with_weight(false).with_bias(false),
        ),
        (
            "group_norm, no weight",
            group.with_weight(false).with_bias(true),
        ),
        ("instance_norm", instance),
        (
            "instance_norm, affine",
            instance.with_weight(true).with_bias(true),
        ),
        (
            "instance_norm, tracked",
            instance
                .with_weight(true)
                .with_bias(true)
                .with_track_running_stats(true),
        ),
        ("layer_norm", NormDesc::layer_norm(channels)),
        ("bc_norm", bc),
        ("bc_norm, estimate", bc.with_stats(estimate)),
        ("bc_norm, per channel", bc.with_per_channel_affine(true)),
        (
            "bc_norm, no affine",
            bc.with_weight(false)
                .with_bias(false)
                .with_bn_weight(false)
                .with_bn_bias(false),
        ),
        (
            "bc_norm, biases",
            bc.with_weight(false)
                .with_bias(true)
                .with_bn_weight(false)
                .with_bn_bias(true),
        ),
        ("bc_norm, untracked", bc.with_track_running_stats(false)),
    ]
}

/// Shapes that take each path: words of 4, 2 and 1, aligned or not, channels whole words or not, odd sizes,
/// several parts.
const SHAPES: &[(&[usize], usize)] = &[
    (&[2, 8, 4, 4], 2),
    (&[3, 6, 7, 5], 3),
    (&[3, 5, 3, 3], 5),
    (&[1, 4, 2500], 2),
    (&[5, 12], 3),
    (&[2, 3, 1301], 1),
];

/// What passed of one member.
#[derive(Default, PartialEq, Eq, Debug)]
struct Passed {
    dtypes: BTreeSet<&'static str>,
    layouts: BTreeSet<&'static str>,
    fusions: BTreeSet<&'static str>,
    combinations: BTreeSet<String>,
}

/// What of the family passed.
type Support = BTreeMap<&'static str, Passed>;

/// Runs every combination that is not refused; returns how many.
fn sweep(
    what: &str,
    pick: impl Fn(usize, DType) -> bool,
    compute: impl Fn(&Problem) -> Result<run::Run, Failure>,
) -> (usize, Support) {
    let mut support = Support::new();
    let (mut count, mut index) = (0, 0usize);
    let mut worst = (0.0, String::new());
    for &(dims, groups) in SHAPES {
        let mut members = norms(dims[1], groups);
        if dims.len() > 2 {
            members.push(("weight_standardization", NormDesc::weight_standardization()));
        }
        for (name, norm) in members {
            for mode in MODES {
                for dtype in DTYPES {
                    for layout in LAYOUTS {
                        for fusion in fusions() {
                            index += 1;
                            if !pick(index, dtype) {
                                continue;
                            }
                            let dims = match norm.kind {
                                NormKind::WeightStandardization => {
                                    vec![dims[0], 1, dims[1..].iter().product()]
                                }
                                _ => dims.to_vec(),
                            };
                            let problem = Problem::random_of(norm, &dims, index as u64)
                                .with_mode(mode)
                                .with_dtype(dtype)
                                .with_layout(layout)
                                .with_fusion(fusion);
                            let what = format!(
                                "{what}: {name} {mode:?} {dims:?} {} {} {fusion:?}",
                                dtype.name(),
                                layout.name()
                            );
                            let outputs = match compute(&problem) {
                                Ok(run) => run.outputs,
                                Err(Failure::Library(Error::OneValuePerChannel { .. })) => continue,
                                Err(failure) => panic!("{what}: {failure}"),
                            };
                            let expected = run::expected_beside(&problem, &outputs, BAR);
                            let found = compare::assert_problem(
                                &what,
                                &problem,
                                &outputs,
                                &expected,
                                |_| BAR,
                            );
                            if found.0 > worst.0 {
                                worst = found;
                            }
                            count += 1;
                            let passed = support.entry(norm.kind.name()).or_default();
                            passed.dtypes.insert(dtype.name());
                            passed.layouts.insert(layout.name());
                            let activation = match fusion.activation {
                                Activation::Relu => "ReLU",
                                Activation::Silu => "SiLU",
                                _ => "",
                            };
                            passed.fusions.insert(activation);
                            passed
                                .fusions
                                .insert(if fusion.residual { "residual" } else { "" });
                            passed
                                .combinations
                                .insert(format!("{mode:?} {dtype:?} {layout:?} {fusion:?}"));
                        }
                    }
                }
            }
        }
    }
    println!(
        "{what}: {count} combinations, the worst took {:.2} of its bar ({})",
        worst.0, worst.1
    );
    (count, support)
}

/// The README's rows, from what passed and what the planner says of transfers.
fn rows(support: &Support) -> Vec<String> {
    let described: &[(&str, &str, NormDesc)] = &[
        (
            "batch_norm(C)",
            "`nn.BatchNorm1d`, `2d`, `3d`",
            NormDesc::batch_norm(4),
        ),
        ("est_bn(C)", "the authors' `EstBN`", NormDesc::est_bn(4)),
        (
            "group_norm(G, C)",
            "`nn.GroupNorm`",
            NormDesc::group_norm(2, 4),
        ),
        (
            "instance_norm(C)",
            "`nn.InstanceNorm1d`, `2d`, `3d`",
            NormDesc::instance_norm(4),
        ),
        (
            "layer_norm(C)",
            "layer norm over (C, *spatial)",
            NormDesc::layer_norm(4),
        ),
        (
            "bc_norm(C, G)",
            "the authors' `BCNorm`",
            NormDesc::bc_norm(4, 2),
        ),
        (
            "weight_standardization()",
            "the authors' `Conv2d` filters",
            NormDesc::weight_standardization(),
        ),
    ];
    // A kind without a row here would be missing in the README.
    assert_eq!(described.len(), NormKind::ALL.len());
    let tuning = Tuning::GPU;
    let list = |names: &BTreeSet<&'static str>| {
        let names: Vec<&str> = names
            .iter()
            .copied()
            .filter(|name| !name.is_empty())
            .collect();
        names.join(", ").replace("channels_", "")
    };
    let row = |&(descriptor, torch, norm): &(&str, &str, NormDesc)| {
        let passed = &support[norm.kind.name()];
        // Modes, types, layouts, activations with and without a residual: all of them, in all
        // combinations.
        assert_eq!(passed.combinations.len(), 2 * 3 * 2 * 6, "{descriptor}");
        let tensor = TensorDesc::new(&[2, norm.num_channels, 5, 5]).unwrap();
        let transfers = |plan: Plan| plan.tensor_bytes() / tensor.bytes();
        let forward = MODES.map(|mode| {
            let plan = Plan::forward(&norm, &tensor, mode, Default::default(), &tuning);
            transfers(plan.unwrap())
        });
        let backward = MODES.map(|mode| {
            let plan = Plan::backward(&norm, &tensor, mode, Default::default(), &tuning);
            transfers(plan.unwrap())
        });
        format!(
            "| `{descriptor}` | {torch} | {} | {} | {} | {} / {} | {} / {} |",
            list(&passed.dtypes),
            list(&passed.layouts),
            list(&passed.fusions),
            forward[0],
            forward[1],
            backward[0],
            backward[1],
        )
    };
    described.iter().map(row).collect()
}

#[test]
fn family_on_the_cpu_executor() {
    let executor = Executor::new();
    let (count, support) = sweep("cpu", |_, _| true, |problem| run::cpu(&executor, problem));
    assert!(count > 5_000, "{count}");
    let rows = rows(&support).join("\n");
    let readme = include_str!("../../README.md");
    assert!(
        readme.contains(&format!("\n{rows}\n\n")),
        "README.md's table of what is supported must be:\n{rows}"
    );
}

/// A part of the combinations of a type, by a step that is prime to the number of fusions, layouts and types,
/// so that each value of each comes often. The second step is taken where tests take their time: nearly every
/// combination has kernels of its own to compile.
fn on_a_gpu(what: &str, gpu: &Gpu, tuning: Tuning, dtype: DType, steps: [usize; 2]) {
    let step = steps[usize::from(adapters::long())];
    let pipelines = Pipelines::with_tuning(&gpu.device, tuning);
    let what = format!("{what}, {:?}", tuning.class);
    let compute = |problem: &Problem| run::gpu(gpu, &pipelines, problem);
    let pick = |index: usize, other| index.is_multiple_of(step) && other == dtype;
    let (count, _) = sweep(&what, pick, compute);
    assert!(count > 2_000 / step, "{count}");
}

fn family_on_the_first_adapter(dtype: DType) {
    let (name, gpu) = adapters::gpus(DeviceLimits::Default).swap_remove(0);
    on_a_gpu(&name, &gpu, Tuning::for_device(&gpu.device), dtype, [37, 7]);
}

fn family_on_every_adapter(dtype: DType) {
    for (name, gpu) in adapters::gpus(DeviceLimits::Default) {
        let own = Tuning::for_device(&gpu.device);
        on_a_gpu(&name, &gpu, own, dtype, [241, 59]);
    }
}

fn family_with_the_tuning_for_gpus(dtype: DType) {
    for (name, gpu) in adapters::gpus(DeviceLimits::Default) {
        on_a_gpu(&name, &gpu, Tuning::GPU, dtype, [401, 101]);
    }
}

// Types share no kernel that reads or writes a tensor.
of_each_type! {
    family_on_the_first_adapter
    family_on_every_adapter
    family_with_the_tuning_for_gpus
}
