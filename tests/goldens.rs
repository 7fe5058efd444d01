//! The golden vectors: every output of every case, on every adapter and on the CPU executor, within
//! max(1e-6, PyTorch's own f32 error).
#![allow(missing_docs)]

mod common;

use bcnorm::cpu::Executor;
use bcnorm::gpu::Pipelines;
use bcnorm::gpu::headless::DeviceLimits;
use common::problem::Problem;
use common::{adapters, compare, golden, run};

fn check(what: &str, compute: impl Fn(&Problem) -> run::Outputs) {
    let paths = golden::paths();
    assert!(paths.len() >= 12, "golden files are missing");
    let (mut worst, mut worst_case, mut failures) = (0.0f64, String::new(), Vec::new());
    for path in paths {
        let golden = golden::load(&path).unwrap();
        let outputs = compute(&Problem::from_golden(&golden));
        for (name, values) in &golden.expected {
            let got = &outputs[name.as_str()];
            let bar = golden.pytorch_f32_error[name].max(1e-6);
            let error = compare::error(got, values, golden.scale[name]).unwrap();
            if error / bar > worst {
                worst = error / bar;
                worst_case = format!("{} {name}: {error:.2e}", golden.name);
            }
            // A NaN is no pass.
            if error.is_nan() || error > bar {
                failures.push(format!("{} {name}: {error:.3e} > {bar:.3e}", golden.name));
            }
        }
    }
    println!("{what}: the worst error is {worst:.2} of its bar ({worst_case})");
    assert!(failures.is_empty(), "{what}:\n{}", failures.join("\n"));
}

#[test]
fn goldens_on_every_adapter() {
    for (name, gpu) in adapters::gpus(DeviceLimits::Default) {
        let pipelines = Pipelines::new(&gpu.device);
        check(&name, |problem| run::on_gpu(&gpu, &pipelines, problem));
    }
}

#[test]
fn goldens_on_every_adapter_with_its_own_limits() {
    for (name, gpu) in adapters::gpus(DeviceLimits::Adapter) {
        let pipelines = Pipelines::new(&gpu.device);
        check(&name, |problem| run::on_gpu(&gpu, &pipelines, problem));
    }
}

/// The tuning for real GPUs: shared reductions over many lanes, on the software adapters too.
#[test]
fn goldens_with_the_tuning_for_gpus() {
    for (name, gpu) in adapters::gpus(DeviceLimits::Default) {
        let pipelines = Pipelines::with_tuning(&gpu.device, bcnorm::Tuning::GPU);
        check(&name, |problem| run::on_gpu(&gpu, &pipelines, problem));
    }
}

#[test]
fn goldens_on_the_cpu_executor() {
    for threads in [1, 3] {
        let executor = Executor::with_threads(threads);
        check(&format!("cpu, {threads} threads"), |problem| {
            run::on_cpu(&executor, problem)
        });
    }
}
