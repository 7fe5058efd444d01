//! What forward saves for backward: many in flight, in any order, of tables that come from a pool and return to it.
#![allow(missing_docs)]

use crate::common;

use bcnorm::gpu::headless::{DeviceLimits, Gpu};
use bcnorm::gpu::{Pipelines, Target, transfer};
use bcnorm::layer::{Memory, StateDict};
use bcnorm::{
    Activation, Backward, ChannelStats, Error, Forward, Gradients, Norm, NormDesc, Role, Saved,
    Tensor,
};
use common::adapters;
use common::compare::{assert_close, assert_same_bits};
use common::conditioning;
use common::problem::Problem;
use common::run;
use common::watch::Watched;
use pollster::block_on;

const DIMS: [usize; 3] = [3, 6, 8];
const GRADIENTS: [Role; 4] = [
    Role::GradBnWeight,
    Role::GradBnBias,
    Role::GradWeight,
    Role::GradBias,
];

fn encoder(gpu: &Gpu) -> wgpu::CommandEncoder {
    gpu.device.create_command_encoder(&Default::default())
}

fn problem(seed: u64) -> Problem {
    Problem::random(&DIMS, 3, seed)
}

fn tensor(gpu: &Gpu, values: &[f32]) -> Tensor {
    Tensor::from_slice(&gpu.device, &DIMS, values).unwrap()
}

fn read(gpu: &Gpu, tensor: &Tensor) -> Vec<f32> {
    block_on(tensor.read(&gpu.device, &gpu.queue)).unwrap()
}

fn state(gpu: &Gpu, layer: &Norm) -> StateDict {
    block_on(layer.state_dict(&gpu.queue)).unwrap()
}

/// The gradients of a layer's parameters, those that it has.
fn gradients(gpu: &Gpu, layer: &Norm) -> Vec<Vec<f32>> {
    let buffers = GRADIENTS.iter().filter_map(|role| layer.buffer(*role));
    let read = |buffer: &wgpu::Buffer| {
        let len = buffer.size() as usize / 4;
        block_on(transfer::read(&gpu.device, &gpu.queue, buffer, 0, len)).unwrap()
    };
    buffers.map(read).collect()
}

fn layer(gpu: &Gpu) -> Norm {
    Norm::new(&Pipelines::new(&gpu.device), NormDesc::bc_norm(6, 3)).unwrap()
}

/// Forward and backward of norm(norm(x)): of two layers, or of one that is in both places.
fn twice(
    layers: &mut [Norm],
    target: &mut impl Target,
    x: &Tensor,
    grad_y: &Tensor,
) -> [Tensor; 4] {
    let last = layers.len() - 1;
    let (between, first) = layers[0].record_forward(target, x).unwrap();
    let (y, second) = layers[last].record_forward(target, &between).unwrap();
    let backward = layers[last].record_backward(target, second, grad_y);
    let grad_between = backward.unwrap().x;
    let backward = layers[0].record_backward(target, first, &grad_between);
    [between, y, grad_between, backward.unwrap().x]
}

/// One layer in two places of a network has the gradients of two layers with the same parameters, added up, and those
/// of the oracle; in an encoder and in a compute pass, to the bit.
#[test]
fn a_layer_used_twice() {
    for (name, gpu) in adapters::gpus(DeviceLimits::Default) {
        println!("{name}");
        let problem = problem(1).with_fresh_state();
        let (x, grad_y) = (tensor(&gpu, &problem.x), tensor(&gpu, &problem.grad_y));
        let mut two = [layer(&gpu), layer(&gpu)];
        let [mut one, mut in_pass] = [(); 2].map(|()| [layer(&gpu)]);

        let mut e = encoder(&gpu);
        let expected = twice(&mut two, &mut e, &x, &grad_y);
        let got = twice(&mut one, &mut e, &x, &grad_y);
        let mut pass = e.begin_compute_pass(&Default::default());
        let passed = twice(&mut in_pass, &mut pass, &x, &grad_y);
        drop(pass);
        gpu.queue.submit([e.finish()]);
        let values = |tensors: &[Tensor; 4]| tensors.each_ref().map(|tensor| read(&gpu, tensor));
        let expected = values(&expected);
        assert_eq!(values(&got), expected);
        assert_eq!(values(&passed), expected);
        let sums: Vec<Vec<f32>> = gradients(&gpu, &two[1])
            .iter()
            .zip(gradients(&gpu, &two[0]))
            .map(|(a, b)| a.iter().zip(b).map(|(a, b)| a + b).collect())
            .collect();
        assert_eq!(gradients(&gpu, &one[0]), sums);
        assert_eq!(gradients(&gpu, &in_pass[0]), sums);

        // Each place by itself, given what the other one left.
        let [between, y, grad_between, grad_x] = expected;
        for (x, grad_y, y, grad_x) in [
            (&problem.x, &grad_between, &between, &grad_x),
            (&between, &problem.grad_y, &y, &grad_between),
        ] {
            let mut problem = problem.clone();
            (problem.x, problem.grad_y) = (x.clone(), grad_y.clone());
            let expected = run::expected(&problem);
            let bounds = conditioning::bounds(&problem, &expected);
            for (name, got) in [("y", y), ("grad_x", grad_x)] {
                let (values, scale) = &expected[name];
                assert_close(name, got, values, *scale, bounds[name]);
            }
        }
    }
}

/// Micro-batches in flight: all forwards, then their backwards in either order. Gradients add up to those of one after the
/// other, and the second step takes no more memory than the first.
#[test]
fn micro_batches_in_flight() {
    let watched = Watched::new();
    let gpu = &watched.gpu;
    let drawn: Vec<Problem> = (0..3).map(problem).collect();
    let batches: Vec<[Tensor; 4]> = drawn
        .iter()
        .map(|p| [&p.x, &p.grad_y, &p.x, &p.x].map(|values| tensor(gpu, values)))
        .collect();
    for reversed in [false, true] {
        let order: Vec<usize> = match reversed {
            false => (0..3).collect(),
            true => (0..3).rev().collect(),
        };
        let mut alone = layer(gpu);
        let mut e = encoder(gpu);
        let mut expected = vec![Vec::new(); 3];
        for &i in &order {
            let [x, grad_y, ..] = &batches[i];
            let (_, saved) = alone.record_forward(&mut e, x).unwrap();
            let grad_x = alone.record_backward(&mut e, saved, grad_y).unwrap().x;
            expected[i].push(grad_x);
        }
        gpu.queue.submit([e.finish()]);

        let mut layer = layer(gpu);
        let mut steady = None;
        for _ in 0..3 {
            layer.zero_grad(&gpu.queue).unwrap();
            let mut e = encoder(gpu);
            let mut held: Vec<Option<Saved>> = Vec::new();
            for [x, _, y, _] in &batches {
                let before = layer.memory();
                let args = Forward::new(x).with_y(y);
                held.push(Some(layer.record_forward(&mut e, args).unwrap().1));
                assert!(layer.memory().saved > before.saved);
            }
            // Backward is another submission: the tables are not to be touched in between.
            layer.eval();
            layer.record_forward(&mut e, &batches[0][0]).unwrap();
            layer.train();
            gpu.queue.submit([e.finish()]);
            let mut e = encoder(gpu);
            for &i in &order {
                let [_, grad_y, _, grad_x] = &batches[i];
                let args = Backward::new(grad_y).with_grad_x(grad_x);
                let saved = held[i].take().unwrap();
                layer.record_backward(&mut e, saved, args).unwrap();
            }
            gpu.queue.submit([e.finish()]);
            for (i, [_, _, _, grad_x]) in batches.iter().enumerate() {
                let what = format!("batch {i}, reversed {reversed}");
                assert_same_bits(&what, &read(gpu, grad_x), &read(gpu, &expected[i][0]));
            }
            assert_eq!(gradients(gpu, &layer), gradients(gpu, &alone));
            let memory = layer.memory();
            assert_eq!(memory.saved, 0);
            assert_eq!(*steady.get_or_insert(memory), memory);
        }
    }
    watched.assert_no_errors();
}

/// A checkpointed block forgets its first forward, and computes it again before it goes back: as one forward and one
/// backward, with the running statistics moved once. By the batch's statistics it is the same to the bit; by estimates to the
/// rounding of these, which are stored in f32.
#[test]
fn a_checkpointed_block() {
    let watched = Watched::new();
    let gpu = &watched.gpu;
    let pipelines = Pipelines::new(&gpu.device);
    let bc = NormDesc::bc_norm(6, 3);
    let norms = [
        bc,
        bc.with_momentum(None),
        bc.with_moving_speed(0.25),
        bc.with_track_running_stats(false),
        NormDesc::batch_norm(6),
        NormDesc::est_bn(6).with_moving_speed(0.25),
        NormDesc::group_norm(3, 6),
        NormDesc::instance_norm(6),
        NormDesc::instance_norm(6).with_track_running_stats(true),
        NormDesc::layer_norm(6),
    ];
    let problem = problem(4);
    let [x, residual, grad_y] =
        [&problem.x, &problem.grad_y, &problem.grad_y].map(|values| tensor(gpu, values));
    let args = Forward::new(&x).with_residual(&residual);
    for norm in norms {
        let made = || {
            let layer = Norm::new(&pipelines, norm).unwrap();
            layer.with_activation(Activation::Silu)
        };
        let [mut plain, mut checkpointed, mut moved] = [(); 3].map(|()| made());
        for eval in [false, true] {
            for layer in [&mut plain, &mut checkpointed, &mut moved] {
                if eval {
                    layer.eval();
                }
                layer.zero_grad(&gpu.queue).unwrap();
            }
            let queue = &gpu.queue;
            let (expected_y, saved) = plain.forward(queue, args).unwrap();
            let expected = plain.backward(queue, saved, &grad_y).unwrap();

            let (first_y, saved) = checkpointed.forward(queue, args).unwrap();
            drop(saved);
            assert_eq!(checkpointed.memory().saved, 0);
            let (y, saved) = checkpointed.forward(queue, args.recompute()).unwrap();
            let got = checkpointed.backward(queue, saved, &grad_y).unwrap();

            let what = format!("{norm:?}, eval {eval}");
            let bound = match norm.stats {
                ChannelStats::Estimate { .. } if !eval => 16.0 * f32::EPSILON,
                _ => 0.0,
            };
            let close = |a: &[f32], b: &[f32]| {
                let scale = b.iter().fold(0.0f32, |most, b| most.max(b.abs()));
                let close = |(a, b): (&f32, &f32)| (a - b).abs() <= bound * scale;
                assert!(a.len() == b.len() && a.iter().zip(b).all(close), "{what}");
            };
            let all = |y: &Tensor, Gradients { x, residual, .. }: &Gradients| {
                [y, x, residual.as_ref().unwrap()].map(|tensor| read(gpu, tensor))
            };
            assert_same_bits(&what, &read(gpu, &first_y), &read(gpu, &expected_y));
            for (a, b) in all(&y, &got).iter().zip(all(&expected_y, &expected)) {
                close(a, &b);
            }
            let sums = gradients(gpu, &checkpointed).into_iter();
            for (a, b) in sums.zip(gradients(gpu, &plain)) {
                close(&a, &b);
            }
            assert_eq!(state(gpu, &checkpointed), state(gpu, &plain), "{what}");

            // Without the word, they move twice.
            for _ in 0..2 {
                moved.forward(queue, args).unwrap();
            }
            let moves = !eval && norm.has_running_stats();
            if moves {
                assert_ne!(state(gpu, &moved), state(gpu, &plain), "{what}");
            }
        }
    }
    watched.assert_no_errors();
}

/// Tables are the pool's again when a `Saved` is dropped, whichever way; what is idle can be released.
#[test]
fn memory_returns() {
    let watched = Watched::new();
    let gpu = &watched.gpu;
    let (x, grad_y) = (tensor(gpu, &problem(1).x), tensor(gpu, &problem(1).grad_y));
    let mut layer = layer(gpu);
    let Memory { state, saved, .. } = layer.memory();
    // Two parameters and two running statistics of 6 channels, two parameters of 3 groups, gradients, the count.
    assert_eq!((state, saved), (4 * (6 * 6 + 3 * 4 + 1), 0));
    assert_eq!(layer.memory().idle, 0);

    let (_, first) = layer.forward(&gpu.queue, &x).unwrap();
    let one = layer.memory().saved;
    assert!(one > 0 && layer.memory().idle == 0);
    let (_, second) = layer.forward(&gpu.queue, &x).unwrap();
    assert_eq!((layer.memory().saved, layer.memory().idle), (2 * one, 0));
    drop(first);
    assert_eq!((layer.memory().saved, layer.memory().idle), (one, one));
    // The tables that returned serve the next forward.
    let (_, third) = layer.forward(&gpu.queue, &x).unwrap();
    assert_eq!((layer.memory().saved, layer.memory().idle), (2 * one, 0));
    // A backward returns them; one that is refused, too.
    let (_, fourth) = layer.forward(&gpu.queue, &x).unwrap();
    layer.backward(&gpu.queue, fourth, &grad_y).unwrap();
    let other = Tensor::from_slice(&gpu.device, &[3, 6, 9], &[0.0; 162]).unwrap();
    let refused = layer.backward(&gpu.queue, third, &other);
    assert!(matches!(refused, Err(Error::Shape { .. })));
    assert_eq!(layer.memory().saved, one);
    assert!(layer.memory().idle > one);
    // A forward that saves nothing holds nothing.
    layer.set_grad_enabled(false);
    let (_, nothing) = layer.forward(&gpu.queue, &x).unwrap();
    assert_eq!(layer.memory().saved, one);
    layer.set_grad_enabled(true);
    // What lives is left alone, and goes back.
    layer.release();
    assert_eq!((layer.memory().saved, layer.memory().idle), (one, 0));
    let mut alone = self::layer(gpu);
    let (_, saved) = alone.forward(&gpu.queue, &x).unwrap();
    let expected = alone.backward(&gpu.queue, saved, &grad_y).unwrap().x;
    let got = layer.backward(&gpu.queue, second, &grad_y).unwrap().x;
    assert_same_bits("grad_x", &read(gpu, &got), &read(gpu, &expected));
    layer.release();
    assert_eq!((layer.memory().saved, layer.memory().idle), (0, 0));
    assert_eq!(layer.memory().state, state);

    // It may outlive its layer.
    let (_, last) = layer.forward(&gpu.queue, &x).unwrap();
    drop(layer);
    drop(last);
    drop(nothing);
    watched.assert_no_errors();
}

/// Threads may hold and drop what a layer on another one saved.
#[test]
fn on_any_thread() {
    fn sends<T: Send + Sync>(value: T) -> T {
        value
    }
    let gpu = adapters::first();
    let mut layer = sends(layer(&gpu));
    let x = tensor(&gpu, &problem(1).x);
    let (_, saved) = layer.forward(&gpu.queue, &x).unwrap();
    let saved = sends(saved);
    assert!(layer.memory().saved > 0);
    std::thread::spawn(move || drop(saved)).join().unwrap();
    assert_eq!(layer.memory().saved, 0);
}

/// Another layer's `Saved` is refused, and is the other layer's again.
#[test]
fn of_another_layer() {
    let watched = Watched::new();
    let gpu = &watched.gpu;
    let (x, grad_y) = (tensor(gpu, &problem(1).x), tensor(gpu, &problem(1).grad_y));
    let [mut one, mut other] = [(); 2].map(|()| layer(gpu));
    let mut e = encoder(gpu);
    let (_, saved) = one.record_forward(&mut e, &x).unwrap();
    assert!(one.memory().saved > 0);
    let refused = other.record_backward(&mut e, saved, &grad_y);
    assert_eq!(refused, Err(Error::ForeignSaved));
    assert_eq!((one.memory().saved, other.memory().saved), (0, 0));
    // One that saved nothing is another layer's all the same.
    one.set_grad_enabled(false);
    let (_, saved) = one.record_forward(&mut e, &x).unwrap();
    let refused = other.record_backward(&mut e, saved, &grad_y);
    assert_eq!(refused, Err(Error::ForeignSaved));
    gpu.queue.submit([e.finish()]);
    for layer in [&one, &other] {
        assert!(gradients(gpu, layer).iter().flatten().all(|g| *g == 0.0));
    }
    watched.assert_no_errors();
}

/// What was in force at forward counts: parameters, state, statistics, mode. Nothing that the layer is told in between
/// changes a bit of the gradients.
#[test]
fn whatever_comes_in_between() {
    let watched = Watched::new();
    let gpu = &watched.gpu;
    let p = problem(2);
    let [x, other, grad_y] = [&p.x, &problem(3).x, &p.grad_y].map(|values| tensor(gpu, values));
    let queue = &gpu.queue;
    let mut plain = layer(gpu);
    let (_, saved) = plain.forward(queue, &x).unwrap();
    let expected = plain.backward(queue, saved, &grad_y).unwrap().x;
    let (expected, expected_gradients) = (read(gpu, &expected), gradients(gpu, &plain));

    let mut trained = layer(gpu);
    let (_, saved) = trained.forward(queue, &other).unwrap();
    trained.backward(queue, saved, &grad_y).unwrap();
    let mut foreign = state(gpu, &trained);
    for (name, value) in &mut foreign {
        if let bcnorm::layer::StateValue::F32 { values, .. } = value {
            values.iter_mut().for_each(|value| *value += 0.5);
            assert!(!name.is_empty());
        }
    }
    type Change<'a> = (&'a str, &'a dyn Fn(&mut Norm));
    let changes: [Change; 6] = [
        ("a state dict", &|layer| {
            layer.load_state_dict(queue, &foreign).unwrap()
        }),
        ("estimates", &|layer| {
            let stats = ChannelStats::Estimate { moving_speed: 0.5 };
            layer.set_stats(stats).unwrap();
        }),
        ("evaluation", &|layer| layer.eval()),
        ("no gradients", &|layer| layer.set_grad_enabled(false)),
        ("a release", &|layer| layer.release()),
        ("a forward of another x", &|layer| {
            drop(layer.forward(queue, &other).unwrap());
        }),
    ];
    for which in (0..changes.len()).map(Some).chain([None]) {
        let mut layer = layer(gpu);
        let (_, saved) = layer.forward(queue, &x).unwrap();
        // One of them, or all.
        for (i, (_, change)) in changes.iter().enumerate() {
            if which.is_none_or(|which| which == i) {
                change(&mut layer);
            }
        }
        let what = which.map_or("all of it", |which| changes[which].0);
        let got = layer.backward(queue, saved, &grad_y).unwrap().x;
        assert_same_bits(what, &read(gpu, &got), &expected);
        assert_eq!(gradients(gpu, &layer), expected_gradients, "{what}");
    }
    watched.assert_no_errors();
}

/// Without a channel part backward reads weight again, where there is one: parameters that were loaded since make it an error.
#[test]
fn a_weight_that_was_loaded_over() {
    let watched = Watched::new();
    let gpu = &watched.gpu;
    let p = problem(4);
    let [x, grad_y] = [&p.x, &p.grad_y].map(|values| tensor(gpu, values));
    for (norm, refused) in [
        (NormDesc::group_norm(3, 6), true),
        (NormDesc::layer_norm(6), true),
        (NormDesc::group_norm(3, 6).with_weight(false), false),
        (NormDesc::instance_norm(6), false),
        (NormDesc::batch_norm(6), false),
        (NormDesc::bc_norm(6, 3).with_per_channel_affine(true), false),
    ] {
        let mut layer = Norm::new(&Pipelines::new(&gpu.device), norm).unwrap();
        let own = state(gpu, &layer);
        let (_, saved) = layer.forward(&gpu.queue, &x).unwrap();
        layer.load_state_dict(&gpu.queue, &own).unwrap();
        let result = layer.backward(&gpu.queue, saved, &grad_y);
        match result {
            Err(error @ Error::NothingSaved { .. }) if refused => {
                let says = "whose weight, which backward reads, was loaded over since: load parameters after backward";
                assert!(error.to_string().contains(says), "{error}");
            }
            result => assert!(result.is_ok() && !refused, "{norm:?}: {result:?}"),
        }
        // The next call has nothing to do with it.
        let (_, saved) = layer.forward(&gpu.queue, &x).unwrap();
        layer.backward(&gpu.queue, saved, &grad_y).unwrap();
        assert_eq!(layer.memory().saved, 0);
    }
    watched.assert_no_errors();
}

/// A later call of the layer that writes over what a backward would read makes that backward an error.
#[test]
fn what_was_written_over() {
    let watched = Watched::new();
    let gpu = &watched.gpu;
    let p = problem(1);
    let made = || [&p.x, &p.grad_y, &p.x].map(|values| tensor(gpu, values));
    let says = "wrote over";
    for written in 0..2 {
        for by in 0..4 {
            let [x, residual, other] = made();
            let target = [&x, &residual][written];
            let mut layer = layer(gpu);
            let mut e = encoder(gpu);
            let args = Forward::new(&x).with_residual(&residual);
            let (_, saved) = layer.record_forward(&mut e, args).unwrap();
            let (_, unharmed) = layer.record_forward(&mut e, &other).unwrap();
            match by {
                0 => {
                    let args = Forward::new(&other).with_y(target);
                    layer.record_forward(&mut e, args).unwrap();
                }
                1 => {
                    layer.eval();
                    let args = Forward::new(target).in_place();
                    layer.record_forward(&mut e, args).unwrap();
                }
                2 => {
                    let (_, saved) = layer.record_forward(&mut e, &other).unwrap();
                    let args = Backward::new(&other).with_grad_x(target);
                    let refused = layer.record_backward(&mut e, saved, args);
                    refused.unwrap();
                }
                // Known calls write as well.
                _ => {
                    let args = Forward::new(&other).with_y(target);
                    layer.record_forward(&mut e, args).unwrap();
                    let args = Forward::new(&x).with_residual(&residual);
                    let (_, again) = layer.record_forward(&mut e, args).unwrap();
                    let args = Forward::new(&other).with_y(target);
                    layer.record_forward(&mut e, args).unwrap();
                    let error = layer.record_backward(&mut e, again, &other).unwrap_err();
                    assert!(error.to_string().contains(says), "{error}");
                }
            }
            let error = layer.record_backward(&mut e, saved, &other).unwrap_err();
            assert!(matches!(error, Error::NothingSaved { .. }), "{error}");
            assert!(error.to_string().contains(says), "{error}");
            layer.record_backward(&mut e, unharmed, &residual).unwrap();
            gpu.queue.submit([e.finish()]);
            assert_eq!(layer.memory().saved, 0);
        }
    }
    watched.assert_no_errors();
}

/// What is submitted in another order than it was recorded in needs tables of its own, which `release` makes the layer take.
#[test]
fn submitted_in_another_order() {
    let watched = Watched::new();
    let gpu = &watched.gpu;
    let [a, b, grad_y] = [1, 2, 3].map(|seed| tensor(gpu, &problem(seed).x));
    let mut alone = layer(gpu);
    let (_, saved) = alone.forward(&gpu.queue, &b).unwrap();
    let expected = alone.backward(&gpu.queue, saved, &grad_y).unwrap().x;

    let mut layer = layer(gpu);
    let mut e1 = encoder(gpu);
    let (_, saved) = layer.record_forward(&mut e1, &a).unwrap();
    layer.record_backward(&mut e1, saved, &grad_y).unwrap();
    layer.release();
    let mut e2 = encoder(gpu);
    let (_, saved) = layer.record_forward(&mut e2, &b).unwrap();
    let mut e3 = encoder(gpu);
    let got = layer.record_backward(&mut e3, saved, &grad_y).unwrap().x;
    gpu.queue
        .submit([e2, e1, e3].map(wgpu::CommandEncoder::finish));
    assert_same_bits("grad_x", &read(gpu, &got), &read(gpu, &expected));
    watched.assert_no_errors();
}
