//! Recording again what was recorded before: no allocation of the library's, no checks, no bind groups.
//!
//! wgpu itself allocates while it records (its own lists of commands), so the library is compared with the
//! same calls made by hand: the numbers of allocations are equal.
#![allow(missing_docs)]

use crate::common;

use allocation_counter::measure;
use bcnorm::gpu::Pipelines;
use bcnorm::gpu::headless::Gpu;
use bcnorm::{Activation, Backward, Forward, Norm, Role, Tensor};
use common::adapters;
use common::by_hand::ByHand;
use common::problem::Problem;
use common::run::{self, GpuProblem};

/// Allocations of this thread while something is recorded, at its second recording: what is set up once
/// is there then.
fn allocations(gpu: &Gpu, record: &mut dyn FnMut(&mut wgpu::CommandEncoder)) -> u64 {
    let mut count = 0;
    for _ in 0..2 {
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        count = measure(|| record(&mut encoder)).count_total;
        gpu.queue.submit([encoder.finish()]);
    }
    count
}

/// A counter that counts nothing would find everything equal.
#[test]
fn the_counter_counts() {
    assert_eq!(
        measure(|| drop(std::hint::black_box(vec![1u8]))).count_total,
        1
    );
    assert_eq!(measure(|| ()).count_total, 0);
}

/// Bound plans, forward and backward, in an encoder and in a pass of the caller's.
#[test]
fn a_bound_plan_allocates_what_wgpu_does() {
    let gpu = adapters::first();
    let pipelines = Pipelines::new(&gpu.device);
    // Rows in parts, and a batch in segments: every kernel of BCNorm's.
    for dims in [&[4, 6, 5, 7][..], &[2, 4, 70_001], &[600, 6, 3]] {
        let problem = Problem::random(dims, 2, 1);
        let plans = run::plans(&problem, Default::default(), pipelines.tuning()).unwrap();
        let bench = GpuProblem::new(&gpu, &problem, &plans);
        for prepared in bench.prepare(&pipelines).unwrap() {
            let what = format!("{dims:?} {:?}", prepared.plan().direction());
            let by_hand = ByHand::new(&gpu.device, prepared.plan(), |role| {
                bench.buffers[&role].clone()
            });
            let bound = prepared.bind(&bench.bindings()).unwrap();
            // It owns what it needs.
            drop(prepared);
            let raw = allocations(&gpu, &mut |encoder| by_hand.encode(encoder));
            let ours = allocations(&gpu, &mut |encoder| bound.encode(encoder));
            assert_eq!(ours, raw, "{what}");

            let in_pass = |record: &dyn Fn(&mut wgpu::ComputePass<'_>)| {
                allocations(&gpu, &mut |encoder| {
                    let mut pass = encoder.begin_compute_pass(&Default::default());
                    record(&mut pass);
                    record(&mut pass);
                })
            };
            let raw = in_pass(&|pass| by_hand.encode_in_pass(pass));
            let ours = in_pass(&|pass| bound.encode(pass));
            assert_eq!(ours, raw, "{what}, in a pass");
            assert!(
                raw > 0,
                "wgpu allocates its commands: is the counter at work?"
            );
        }
    }
}

/// The layer's training step into tensors of the caller's, with and without a residual: a step with new
/// tensors allocates, the same step again does not.
#[test]
fn a_layer_allocates_what_wgpu_does() {
    let gpu = adapters::first();
    let pipelines = Pipelines::new(&gpu.device);
    let problem = Problem::random(&[4, 6, 5, 7], 2, 1);
    let plans = run::plans(&problem, Default::default(), pipelines.tuning()).unwrap();
    let bench = GpuProblem::new(&gpu, &problem, &plans);
    let [forward, backward] = plans
        .each_ref()
        .map(|plan| ByHand::new(&gpu.device, plan, |role| bench.buffers[&role].clone()));
    let raw = allocations(&gpu, &mut |encoder| {
        forward.encode(encoder);
        backward.encode(encoder);
    });

    let tensor = |values: &[f32]| Tensor::from_slice(&gpu.device, &problem.dims, values).unwrap();
    let tensors = || [&problem.x, &problem.grad_y, &problem.x, &problem.x].map(|v| tensor(v));
    let mut layer = Norm::new(&pipelines, problem.norm).unwrap();
    let mut step = |[x, grad_y, y, grad_x]: &[Tensor; 4]| {
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        let counted = measure(|| {
            let args = Forward::new(x).with_y(y);
            let (_, saved) = layer.record_forward(&mut encoder, args).unwrap();
            let args = Backward::new(grad_y).with_grad_x(grad_x);
            layer.record_backward(&mut encoder, saved, args).unwrap();
        });
        gpu.queue.submit([encoder.finish()]);
        counted.count_total
    };
    // Two sets of tensors in turn, as of a double buffer.
    let sets = [tensors(), tensors()];
    for set in &sets {
        assert!(
            step(set) > raw,
            "a new binding allocates: is the counter at work?"
        );
    }
    for set in sets.iter().chain(&sets) {
        assert_eq!(step(set), raw);
    }

    // Both sets in flight, into a pass of the caller's.
    let in_pass = allocations(&gpu, &mut |encoder| {
        let mut pass = encoder.begin_compute_pass(&Default::default());
        for plan in [&forward, &forward, &backward, &backward] {
            plan.encode_in_pass(&mut pass);
        }
    });
    let mut layer = Norm::new(&pipelines, problem.norm).unwrap();
    let again = allocations(&gpu, &mut |encoder| {
        let mut pass = encoder.begin_compute_pass(&Default::default());
        let [first, second] = sets.each_ref().map(|[x, _, y, _]| {
            let args = Forward::new(x).with_y(y);
            layer.record_forward(&mut pass, args).unwrap().1
        });
        for (saved, [_, grad_y, _, grad_x]) in [first, second].into_iter().zip(&sets) {
            let args = Backward::new(grad_y).with_grad_x(grad_x);
            layer.record_backward(&mut pass, saved, args).unwrap();
        }
    });
    assert_eq!(again, in_pass);

    // A residual and an activation, and evaluation in place between the steps.
    let [x, grad_y, y, grad_x] = &sets[0];
    let [residual, grad_residual, other, _] = &sets[1];
    let mut layer = Norm::new(&pipelines, problem.norm)
        .unwrap()
        .with_activation(Activation::Relu);
    let mut counts = Vec::new();
    for _ in 0..3 {
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        let counted = measure(|| {
            let args = Forward::new(x).with_residual(residual).with_y(y);
            let (_, saved) = layer.record_forward(&mut encoder, args).unwrap();
            let args = Backward::new(grad_y).with_grad_x(grad_x);
            let args = args.with_grad_residual(grad_residual);
            layer.record_backward(&mut encoder, saved, args).unwrap();
            layer.eval();
            let args = Forward::new(other).in_place();
            layer.record_forward(&mut encoder, args).unwrap();
            layer.train();
        });
        gpu.queue.submit([encoder.finish()]);
        counts.push(counted.count_total);
    }
    assert!(
        counts[0] > counts[1] && counts[1] == counts[2],
        "{counts:?}"
    );
    assert!(layer.buffer(Role::GradWeight).is_some());
}
