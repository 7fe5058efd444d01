//! The golden vectors: every output of every case, in both layouts, on every adapter and on the CPU
//! executor, within max(1e-6, PyTorch's own f32 error); 16-bit tensors within a unit in the last place.
#![allow(missing_docs)]

use crate::common;

use bcnorm::cpu::Executor;
use bcnorm::gpu::Pipelines;
use bcnorm::gpu::headless::DeviceLimits;
use bcnorm::{DType, Layout};
use bcnorm_testkit::golden::File;
use bcnorm_testkit::golden::chain::Chain;
use bcnorm_testkit::oracle::Stats;
use bcnorm_testkit::run::Run;
use common::problem::Problem;
use common::{adapters, compare, golden, run};
use std::collections::BTreeMap;

const LAYOUTS: [Layout; 2] = [Layout::ChannelsFirst, Layout::ChannelsLast];

/// What was compared, and how it went.
#[derive(Default)]
struct Report {
    compared: usize,
    /// The largest share of a bar that was taken, and where.
    worst: (f64, String),
    failures: Vec<String>,
}

impl Report {
    /// Compares all outputs of a case; what did not come out, or was not expected, is a failure.
    fn take(
        &mut self,
        what: &str,
        dtype: DType,
        got: &run::Outputs,
        expected: &BTreeMap<String, Vec<f64>>,
        scale: &BTreeMap<String, f64>,
        bar: impl Fn(&str) -> f64,
    ) {
        for name in got.keys() {
            if !expected.contains_key(*name) {
                self.failures
                    .push(format!("{what}: {name} is not expected"));
            }
        }
        for (name, values) in expected {
            let Some(got) = got.get(name.as_str()) else {
                self.failures
                    .push(format!("{what}: {name} did not come out"));
                continue;
            };
            self.compared += 1;
            let finding = compare::judge(dtype, name, got, values, scale[name], bar(name));
            if finding.fraction() > self.worst.0 {
                let place = format!("{what} {name}: {:.2e}", finding.error);
                self.worst = (finding.fraction(), place);
            }
            self.failures
                .extend(finding.wrong.map(|wrong| format!("{what}: {wrong}")));
        }
    }

    fn finish(self, what: &str) {
        let (fraction, place) = &self.worst;
        println!(
            "{what}: {} tensors, the worst error is {fraction:.2} of its bar ({place})",
            self.compared
        );
        assert!(
            self.failures.is_empty(),
            "{what}:\n{}",
            self.failures.join("\n")
        );
    }
}

fn check(what: &str, mut compute: impl FnMut(&Problem) -> run::Outputs) {
    let paths = golden::paths();
    assert!(paths.len() >= 48 + 131, "golden files are missing");
    let mut report = Report::default();
    for path in paths {
        let golden = golden::load(&path).unwrap();
        for layout in LAYOUTS {
            let problem = golden.problem().with_layout(layout);
            let place = format!("{} {}", golden.name, layout.name());
            let (expected, scale) = (&golden.expected, &golden.scale);
            let bar = |name: &str| golden.bar(name);
            report.take(
                &place,
                golden.dtype,
                &compute(&problem),
                expected,
                scale,
                bar,
            );
        }
    }
    for path in golden::chain_paths() {
        let File::Chain(chain) = golden::read(&path).unwrap() else {
            panic!("{} holds no chain", path.display());
        };
        for layout in LAYOUTS {
            let outputs = run_chain(&chain, layout, &mut compute);
            let place = format!("{} {}", chain.name, layout.name());
            let bar = |name: &str| chain.bar(name);
            report.take(
                &place,
                DType::F32,
                &outputs,
                &chain.expected,
                &chain.scale,
                bar,
            );
        }
    }
    report.finish(what);
}

fn run_chain(
    chain: &Chain,
    layout: Layout,
    mut compute: impl FnMut(&Problem) -> run::Outputs,
) -> run::Outputs {
    let run = chain.run(layout, |problem| {
        Ok::<_, std::convert::Infallible>(Run {
            outputs: compute(problem),
            num_batches_tracked: 0,
        })
    });
    let Ok(run) = run;
    run.outputs
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

/// num_batches_tracked is no tensor of the files, but known.
#[test]
fn batches_are_counted() {
    let executor = Executor::new();
    for path in golden::paths() {
        let golden = golden::load(&path).unwrap();
        let run = run::cpu(&executor, &golden.problem()).unwrap();
        let kind = golden.norm.kind.name();
        let counts = golden.training
            && matches!(golden.stats, Stats::Batch { .. })
            && matches!(kind, "batch_norm" | "bc_norm")
            && golden.norm.has_running_stats();
        let expected = golden.num_batches_tracked + u32::from(counts);
        assert_eq!(run.num_batches_tracked, expected, "{}", golden.name);
    }
}

/// The oracle is the 16-bit comparisons' judge elsewhere: here PyTorch judges it.
#[test]
fn the_oracle_gives_what_the_files_hold() {
    for path in golden::paths() {
        let golden = golden::load(&path).unwrap();
        let problem = golden.problem();
        let expected = run::expected(&problem);
        let names: Vec<&str> = expected.keys().copied().collect();
        let files: Vec<&str> = golden.expected.keys().map(String::as_str).collect();
        assert_eq!(names, files, "{}", golden.name);
        for (name, (values, _)) in &expected {
            let what = format!("{} {name}", golden.name);
            // eps, momentum and speed go into the oracle in f32 here, as the library takes them.
            let (theirs, scale) = (&golden.expected[*name], golden.scale[*name]);
            compare::assert_close(&what, values, theirs, scale, golden.bar(name));
        }
    }
}
