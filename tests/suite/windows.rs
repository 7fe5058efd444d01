//! Tensors beyond the binding limit: forward and backward in windows. Bit for bit what one window gives,
//! where both fit; and, at 129 MiB under WebGPU's default limits, right.
#![allow(missing_docs)]

use crate::common;

use bcnorm::cpu::Executor;
use bcnorm::gpu::Pipelines;
use bcnorm::gpu::headless::DeviceLimits;
use bcnorm::{Activation, BackwardOptions, DType, Error, Fusion, Layout, Mode, NormDesc, Plan};
use bcnorm::{ForwardOptions, TensorDesc, Tuning};
use bcnorm_testkit::problem::Problem;
use bcnorm_testkit::run::{self, GpuProblem, Outputs};
use common::adapters;
use std::collections::{BTreeMap, BTreeSet};

/// The number of windows of the most divided kernel.
fn windows(plans: &[Plan]) -> usize {
    let of_plan = |plan: &Plan| {
        let mut counts = BTreeMap::new();
        for step in plan.steps() {
            if let Some(window) = step.window {
                let of_kernel: &mut BTreeSet<u64> = counts.entry(step.spec.kernel).or_default();
                of_kernel.insert(window.offset);
            }
        }
        let counts = counts.into_values().map(|offsets| offsets.len());
        counts.max().unwrap_or(0)
    };
    plans.iter().map(of_plan).max().unwrap_or(0)
}

fn plans(problem: &Problem, tuning: &Tuning) -> Vec<Plan> {
    let (forward, backward) = problem.plans(tuning).unwrap();
    std::iter::once(forward).chain(backward).collect()
}

/// Small tensors with a small limit: rows that begin within words, odd sizes, parts of rows, channels
/// last with and without whole words.
fn problems() -> Vec<(String, Problem)> {
    let shapes: &[&[usize]] = &[
        &[3, 6, 61],
        &[2, 8, 64],
        &[1, 3, 1001],
        &[5, 5, 27],
        &[40, 12],
        // An invocation may have several words.
        &[3, 64, 3],
    ];
    let mut problems = Vec::new();
    let fusion = Fusion::NONE
        .with_activation(Activation::Silu)
        .with_residual(true);
    for (index, dims) in shapes.iter().enumerate() {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            for layout in [Layout::ChannelsFirst, Layout::ChannelsLast] {
                let norms = [NormDesc::bc_norm(dims[1], 1), NormDesc::batch_norm(dims[1])];
                // A part of a batch of many channels is more than a window.
                let count = if dims[1] > 32 { 1 } else { 2 };
                for norm in norms.into_iter().take(count) {
                    let problem = Problem::random_of(norm, dims, index as u64)
                        .with_dtype(dtype)
                        .with_layout(layout)
                        .with_fusion(fusion);
                    let what = format!("{dims:?} {} {}", dtype.name(), layout.name());
                    problems.push((format!("{what} {}", norm.kind.name()), problem));
                }
            }
        }
    }
    problems
}

fn assert_same(what: &str, windowed: &Outputs, whole: &Outputs) {
    assert_eq!(
        windowed.keys().collect::<Vec<_>>(),
        whole.keys().collect::<Vec<_>>()
    );
    for (name, values) in windowed {
        assert!(
            run::same_bits(values, &whole[name]),
            "{what}: {name} differs"
        );
    }
}

/// Without windows and with them. Short parts, so that windows are cut within rows, too; what lanes share lies in one
/// window.
fn tunings(own: Tuning) -> [Tuning; 2] {
    let whole = own.with(|t| {
        t.parts.max_words_per_lane = 8;
        t.parts.max_column_bytes = 512;
        t.reduction.lanes = t.reduction.lanes.min(4);
        t.map.lanes = t.map.lanes.min(4);
    });
    [whole, whole.with(|t| t.limits.max_binding_bytes = 1024)]
}

#[test]
fn windows_change_no_bit() {
    for (name, gpu) in adapters::gpus(DeviceLimits::Default) {
        let mut divided = 0;
        let [whole, windowed] = tunings(Tuning::for_device(&gpu.device));
        // Both tunings' plans run the same kernels.
        let pipelines = Pipelines::with_tuning(&gpu.device, whole);
        for (what, problem) in problems() {
            let what = format!("{name}: {what}");
            let count = windows(&plans(&problem, &windowed));
            divided += usize::from(count > 1);
            let outputs = |tuning| {
                let bench = GpuProblem::new(&gpu, &problem, &plans(&problem, &tuning));
                bench.run(&pipelines);
                let results = bench.results();
                results
                    .unwrap_or_else(|error| panic!("{what}: {error}"))
                    .outputs
            };
            assert_same(&what, &outputs(windowed), &outputs(whole));
        }
        assert!(divided > 40, "{divided}");
    }
}

#[test]
fn windows_change_no_bit_on_the_cpu_executor() {
    let executor = Executor::new();
    for own in [Tuning::CPU, Tuning::GPU] {
        let mut divided = 0;
        let [whole, windowed] = tunings(own);
        for (what, problem) in problems() {
            divided += usize::from(windows(&plans(&problem, &windowed)) > 1);
            let run = |tuning| {
                let plans = plans(&problem, &tuning);
                let mut buffers = run::host_buffers(&problem, &plans);
                for plan in &plans {
                    executor.run(plan, &mut buffers).unwrap();
                }
                run::host_outputs(&problem, &plans, &buffers)
            };
            assert_same(&what, &run(windowed), &run(whole));
        }
        assert!(divided > 40, "{divided}");
    }
}

/// 129 MiB a tensor under default limits, of which a binding takes 128: compared with the CPU executor,
/// which other tests hold to the oracle.
#[test]
fn more_than_a_binding_holds() {
    let gpu = adapters::first();
    let limits = gpu.device.limits();
    assert_eq!(limits.max_storage_buffer_binding_size, 128 << 20);
    let pipelines = Pipelines::new(&gpu.device);
    let dims = [2, 3, 2375, 2375];
    let problem = Problem::random_large(&dims, 1, 5);
    assert!(problem.tensor().bytes() > 129 << 20);
    assert_eq!(windows(&plans(&problem, pipelines.tuning())), 2);
    let got = run::on_gpu(&gpu, &pipelines, &problem);
    let expected = run::on_cpu(&Executor::new(), &problem);
    for (name, values) in &got {
        let expected: Vec<f64> = expected[name].iter().map(|&v| f64::from(v)).collect();
        let scale = bcnorm_testkit::oracle::scale(&expected);
        // Two f32 results, each within 1e-6 of the exact one; a gradient that is a sum of 17 million
        // terms has the sum of their magnitudes as its scale.
        let scale = if name.starts_with("grad_") && *name != "grad_x" {
            scale.max(values.len() as f64 * f64::from(dims[2] as u32).powi(2))
        } else {
            scale
        };
        bcnorm_testkit::compare::assert_close(name, values, &expected, scale, 5e-6);
    }
}

/// An item that needs more than a binding is refused with the way out.
#[test]
fn a_window_holds_an_item_at_least() {
    let tensor = TensorDesc::new(&[1, 2, 100_000]).unwrap();
    let tuning = Tuning::SOFTWARE.with(|t| t.limits.max_binding_bytes = 512);
    let norm = NormDesc::bc_norm(2, 1);
    let forward = ForwardOptions::default();
    let backward = BackwardOptions::default();
    let refused = [
        Plan::forward(&norm, &tensor, Mode::Train, forward, &tuning),
        Plan::backward(&norm, &tensor, Mode::Train, backward, &tuning),
    ];
    for plan in refused {
        match plan.unwrap_err() {
            Error::Limit { limit, way_out, .. } => {
                assert_eq!(limit, 512);
                assert!(way_out.contains("max_words_per_lane"));
            }
            other => panic!("{other}"),
        }
    }
}
