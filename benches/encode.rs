//! What the CPU pays to record a pass again and again, on the first adapter found (`BCNORM_ADAPTER` narrows
//! the choice). Nothing is submitted, and no kernel runs: the command buffers are dropped as they are.
//!
//! What a training loop pays per step is `again`: a plan that was bound once. `by hand` is the same with
//! nothing but wgpu's calls, so the difference is the library's. Natively wgpu only notes down what is
//! recorded into a pass, and checks and translates it when the encoder is finished. Hence three figures:
//!
//! - `in pass`: recorded into a pass that is open. What the library itself does, and wgpu's notes.
//! - `own pass`: with the beginning and end of a pass.
//! - `finished`: own pass, and its share of `CommandEncoder::finish`, the whole CPU cost before submission.
//!   Many passes are recorded into an encoder, so that making one does not show; `empty encoder` is that.
//!
//! `layer` is `Norm::record_forward` and `record_backward` into tensors of the caller's, finished: with the tensors of the last call, and with
//! tensors that it has not seen (checks, bind groups, dropped again).
#![allow(missing_docs)]

#[path = "../tests/suite/common/adapters.rs"]
#[allow(dead_code)]
mod adapters;
#[path = "../tests/suite/common/by_hand.rs"]
mod by_hand;

use bcnorm::gpu::headless::Gpu;
use bcnorm::gpu::{Pipelines, transfer};
use bcnorm::{Backward, Forward, Norm, NormDesc, Role, Tensor, TensorDesc};
use bcnorm_testkit::problem::Problem;
use bcnorm_testkit::run::{self, GpuProblem};
use by_hand::ByHand;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main};
use std::time::{Duration, Instant};

const DIMS: [usize; 4] = [8, 64, 56, 56];

/// Recordings in an encoder.
const RECORDINGS: u64 = 64;

/// Times `record`, many times over in an encoder that is made outside the clock, and finished within it
/// if asked for.
fn in_encoders(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    gpu: &Gpu,
    finish: bool,
    mut record: impl FnMut(&mut wgpu::CommandEncoder),
) {
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|iterations| {
            batches(iterations, |now| {
                let mut encoder = gpu.device.create_command_encoder(&Default::default());
                let start = Instant::now();
                for _ in 0..now {
                    record(&mut encoder);
                }
                if finish {
                    let commands = encoder.finish();
                    let spent = start.elapsed();
                    drop(commands);
                    return spent;
                }
                start.elapsed()
            })
        });
    });
}

/// Times `record`, many times over in a pass whose beginning and end are outside the clock.
fn in_passes(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    gpu: &Gpu,
    mut record: impl FnMut(&mut wgpu::ComputePass<'_>),
) {
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|iterations| {
            batches(iterations, |now| {
                let mut encoder = gpu.device.create_command_encoder(&Default::default());
                let mut pass = encoder.begin_compute_pass(&Default::default());
                let start = Instant::now();
                for _ in 0..now {
                    record(&mut pass);
                }
                start.elapsed()
            })
        });
    });
}

/// `iterations` in batches of at most [`RECORDINGS`].
fn batches(iterations: u64, mut batch: impl FnMut(u64) -> Duration) -> Duration {
    let (full, rest) = (iterations / RECORDINGS, iterations % RECORDINGS);
    let sizes = (0..full)
        .map(|_| RECORDINGS)
        .chain((rest > 0).then_some(rest));
    sizes.map(&mut batch).sum()
}

fn plans(criterion: &mut Criterion, gpu: &Gpu, pipelines: &Pipelines) {
    let mut group = criterion.benchmark_group("encode");
    group.bench_function("empty encoder, finished", |bencher| {
        bencher.iter(|| {
            let encoder = gpu.device.create_command_encoder(&Default::default());
            encoder.finish()
        });
    });
    let elements = DIMS.iter().product();
    let problem = Problem::new(NormDesc::bc_norm(DIMS[1], 32), &DIMS, vec![0.5; elements]);
    let problem = problem.with_grad_y(vec![0.5; elements]);
    let plans = run::plans(&problem, Default::default(), pipelines.tuning()).expect("plans");
    let bench = GpuProblem::new(gpu, &problem, &plans);
    let prepared = bench.prepare(pipelines).expect("the device takes them");
    let bindings = bench.bindings();
    for (direction, prepared) in ["forward", "backward"].into_iter().zip(&prepared) {
        let plan = prepared.plan();
        let name = format!("{direction}, {} dispatches", plan.steps().len());
        let bound = prepared.bind(&bindings).expect("buffers fit");
        let by_hand = ByHand::new(&gpu.device, plan, |role| bench.buffers[&role].clone());
        group.bench_function(format!("bind {name}"), |bencher| {
            bencher.iter(|| prepared.bind(&bindings));
        });
        let group = &mut group;
        in_passes(group, &format!("again {name}, in pass"), gpu, |pass| {
            bound.encode(pass);
        });
        in_passes(group, &format!("by hand {name}, in pass"), gpu, |pass| {
            by_hand.encode_in_pass(pass);
        });
        for (finish, what) in [(false, "own pass"), (true, "finished")] {
            let again = format!("again {name}, {what}");
            in_encoders(group, &again, gpu, finish, |encoder| bound.encode(encoder));
            let raw = format!("by hand {name}, {what}");
            in_encoders(group, &raw, gpu, finish, |encoder| by_hand.encode(encoder));
        }
    }
    group.finish();
}

fn layer(criterion: &mut Criterion, gpu: &Gpu, pipelines: &Pipelines) {
    let mut group = criterion.benchmark_group("layer");
    let desc = TensorDesc::new(&DIMS).expect("a shape");
    // Six sets of tensors: more than the layer keeps, so that taken in turn each is new to it.
    let tensor = || {
        let buffer = transfer::zeroed(&gpu.device, Role::X.name(), desc.buffer_bytes()).unwrap();
        Tensor::from_buffer(&gpu.device, &buffer, 0, desc.clone())
    };
    let sets: Vec<[Tensor; 4]> = (0..6).map(|_| [(); 4].map(|()| tensor())).collect();
    let norm = NormDesc::bc_norm(DIMS[1], 32);
    let mut layer = Norm::new(pipelines, norm).expect("a norm");
    let mut step = |encoder: &mut wgpu::CommandEncoder, index: usize, backward: bool| {
        let [x, y, grad_y, grad_x] = &sets[index % sets.len()];
        let args = Forward::new(x).with_y(y);
        let (_, saved) = layer.record_forward(encoder, args).expect("tensors fit");
        if backward {
            let args = Backward::new(grad_y).with_grad_x(grad_x);
            let recorded = layer.record_backward(encoder, saved, args);
            recorded.expect("tensors fit");
        }
    };
    for (name, backward) in [("forward", false), ("forward and backward", true)] {
        in_encoders(
            &mut group,
            &format!("{name}, the same tensors"),
            gpu,
            true,
            |encoder| {
                step(encoder, 0, backward);
            },
        );
        let mut index = 0;
        in_encoders(
            &mut group,
            &format!("{name}, other tensors"),
            gpu,
            true,
            |encoder| {
                index += 1;
                step(encoder, index, backward);
            },
        );
    }
    group.finish();
}

fn encode(criterion: &mut Criterion) {
    let gpu = adapters::first();
    let pipelines = Pipelines::new(&gpu.device);
    println!("on {}", gpu.describe());
    plans(criterion, &gpu, &pipelines);
    layer(criterion, &gpu, &pipelines);
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600))
        .sample_size(20);
    targets = encode
}
criterion_main!(benches);
