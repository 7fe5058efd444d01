//! Where a NaN or an Inf does not go: from the padding behind an odd number of 16-bit elements nowhere, from an
//! element of x or dy into no statistics but those that it is part of, whichever elements share a word with it.
//! Every type and layout, rows that begin within words, on every adapter and on the CPU executor. What such a value
//! does reach is `cases.rs`.
#![allow(missing_docs)]

use crate::common;

use bcnorm::cpu::Executor;
use bcnorm::{
    Activation, BackwardOptions, DType, Fusion, Layout, Mode, NormDesc, NormKind, Tuning,
};
use common::compare;
use common::problem::Problem;
use common::run::{self, GpuProblem, Outputs};
use common::targets::{self, Target};

const LAYOUTS: [Layout; 2] = [Layout::ChannelsFirst, Layout::ChannelsLast];

/// The adapters with their own tuning, the fastest with that of GPUs, and the CPU executor.
fn everywhere() -> Vec<Target> {
    let gpu = targets::with_tuning(Tuning::GPU).swap_remove(0);
    targets::all().into_iter().chain([gpu]).collect()
}

/// Norms whose statistics are those of a channel, a group, both; the number of groups, if there are any.
fn norms([_, channels, len]: [usize; 3], groups: usize) -> Vec<(NormDesc, Option<usize>)> {
    let mut norms = vec![
        (NormDesc::batch_norm(channels), None),
        (NormDesc::group_norm(groups, channels), Some(groups)),
        (NormDesc::bc_norm(channels, groups), Some(groups)),
    ];
    // One value has no spread: it is refused.
    if len > 1 {
        norms.push((NormDesc::instance_norm(channels), Some(channels)));
    }
    norms
}

/// Rows of all kinds: within words, of several words, parts and lanes, of a single element.
const SHAPES: [([usize; 3], usize); 4] = [
    ([3, 6, 7], 2),
    ([2, 3, 1], 3),
    ([2, 3, 257], 3),
    ([5, 9, 3], 3),
];

/// What a run leaves where the padding of all tensors that it reads holds `padding`.
fn with_padding(target: &Target, problem: &Problem, padding: u16) -> Outputs {
    let plans = run::plans(problem, backward(problem), &target.tuning()).unwrap();
    let inputs = problem.inputs().into_iter();
    let tensors = inputs.filter(|(role, _)| role.is_tensor());
    let spoiled = tensors.map(|(role, values)| {
        let mut words = problem.words(role, values);
        let last = words.last_mut().unwrap();
        *last = *last & 0xffff | u32::from(padding) << 16;
        (role, words)
    });
    match &target.device {
        Some((gpu, pipelines)) => {
            let bench = GpuProblem::new(gpu, problem, &plans);
            for (role, words) in spoiled {
                let words = bytemuck::cast_slice(&words);
                gpu.queue.write_buffer(&bench.buffers[&role], 0, words);
            }
            bench.run(pipelines);
            bench.outputs()
        }
        None => {
            let mut buffers = run::host_buffers(problem, &plans);
            for (role, words) in spoiled {
                buffers.set_u32(role, words);
            }
            for plan in &plans {
                Executor::new().run(plan, &mut buffers).unwrap();
            }
            run::host_outputs(problem, &plans, &buffers)
        }
    }
}

fn backward(problem: &Problem) -> BackwardOptions {
    BackwardOptions::default().with_fusion(problem.fusion)
}

fn padding_reaches_nothing(dtype: DType) {
    let silu = Fusion::NONE
        .with_activation(Activation::Silu)
        .with_residual(true);
    let specials: [u16; 3] = match dtype {
        DType::BF16 => [0x7fc1, 0x7f80, 0xff80],
        _ => [0x7e01, 0x7c00, 0xfc00],
    };
    for target in everywhere() {
        for (dims, groups) in [
            ([1, 3, 7], 3),
            ([1, 3, 257], 1),
            ([3, 5, 1], 5),
            ([5, 9, 3], 3),
        ] {
            for layout in LAYOUTS {
                for fusion in [Fusion::default(), silu] {
                    for (norm, _) in norms(dims, groups) {
                        if fusion == silu && norm.kind != NormKind::BcNorm {
                            continue;
                        }
                        let problem = Problem::random_of(norm, &dims, 3)
                            .with_dtype(dtype)
                            .with_layout(layout)
                            .with_fusion(fusion);
                        assert_eq!(problem.x.len() % 2, 1);
                        let clean = with_padding(&target, &problem, 0);
                        for padding in specials {
                            let outputs = with_padding(&target, &problem, padding);
                            for (name, values) in &outputs {
                                let what = format!(
                                    "{}: {} {dims:?} {layout:?} {fusion:?}, padding {padding:#x}: {name}",
                                    target.name,
                                    norm.kind.name()
                                );
                                compare::assert_same_bits(&what, values, &clean[name]);
                            }
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn padding_of_f16() {
    padding_reaches_nothing(DType::F16);
}

#[test]
fn padding_of_bf16() {
    padding_reaches_nothing(DType::BF16);
}

/// The elements whose statistics a special value at (n, c) is part of, and the channels.
fn hit(problem: &Problem, groups: Option<usize>, (n, c): (usize, usize)) -> Vec<bool> {
    let (channels, len) = (problem.dims[1], problem.dims[2]);
    let batch = [NormKind::BatchNorm, NormKind::BcNorm];
    let over_samples = batch.contains(&problem.norm.kind) && problem.mode == Mode::Train;
    let size = groups.map_or(1, |groups| channels / groups);
    let elements = (0..problem.x.len()).map(|i| (i / len / channels, i / len % channels));
    elements
        .map(|(sample, channel)| (over_samples || sample == n) && channel / size == c / size)
        .collect()
}

fn neighbours_stay_clean(dtype: DType) {
    for target in everywhere() {
        for (dims, groups) in SHAPES {
            for layout in LAYOUTS {
                for (norm, num_groups) in norms(dims, groups) {
                    for mode in [Mode::Train, Mode::Eval] {
                        let problem = Problem::random_of(norm, &dims, 4)
                            .with_dtype(dtype)
                            .with_layout(layout)
                            .with_mode(mode);
                        let clean = target.run(&problem);
                        let what = format!(
                            "{}: {} {dims:?} {layout:?} {mode:?}",
                            target.name,
                            norm.kind.name()
                        );
                        check_neighbours(&what, &target, &problem, num_groups, &clean);
                    }
                }
            }
        }
    }
}

fn check_neighbours(
    what: &str,
    target: &Target,
    problem: &Problem,
    groups: Option<usize>,
    clean: &Outputs,
) {
    let [samples, channels, len] = [0, 1, 2].map(|i| problem.dims[i]);
    // A row's first element, its last, and all of it: pivots, what shares a word with the next row, whole words.
    for (special, n, c, from, to) in [
        (f32::NAN, 0, 1, 0, 1),
        (f32::INFINITY, 1, 0, len - 1, len),
        (f32::NEG_INFINITY, samples - 1, channels - 1, 0, len),
        (f32::NAN, 0, channels - 1, 0, len),
    ] {
        for in_x in [true, false] {
            let mut spoiled = problem.clone();
            let values = if in_x {
                &mut spoiled.x
            } else {
                &mut spoiled.grad_y
            };
            let row = (n * channels + c) * len;
            values[row + from..row + to].fill(special);
            let outputs = target.run(&spoiled);
            let hit = hit(problem, groups, (n, c));
            let place = format!(
                "{what}, {special} in {} of ({n}, {c}) from {from} to {to}",
                if in_x { "x" } else { "dy" }
            );
            for name in ["y", "grad_x"] {
                let beside = |values: &[f32]| -> Vec<f32> {
                    let clean = values.iter().zip(&hit).filter(|(_, hit)| !**hit);
                    clean.map(|(value, _)| *value).collect()
                };
                let (got, expected) = (beside(&outputs[name]), beside(&clean[name]));
                compare::assert_same_bits(&format!("{place}: {name}"), &got, &expected);
            }
            if !in_x {
                compare::assert_same_bits(&format!("{place}: y"), &outputs["y"], &clean["y"]);
            }
            // Parameters' gradients and statistics, one a channel or a group: those of others.
            for (name, values) in &outputs {
                if values.len() == problem.x.len() {
                    continue;
                }
                let size = channels / values.len();
                let group = groups.map_or(1, |groups| channels / groups);
                for (i, (got, expected)) in values.iter().zip(&clean[name]).enumerate() {
                    if i * size / group != c / group {
                        let what = format!("{place}: {name}[{i}]");
                        compare::assert_same_bits(&what, &[*got], &[*expected]);
                    }
                }
            }
        }
    }
}

#[test]
fn neighbours_in_f32() {
    neighbours_stay_clean(DType::F32);
}

#[test]
fn neighbours_in_f16() {
    neighbours_stay_clean(DType::F16);
}

#[test]
fn neighbours_in_bf16() {
    neighbours_stay_clean(DType::BF16);
}
