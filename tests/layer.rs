//! The layer in the manner of torch.nn, step by step against the oracle.
#![allow(missing_docs)]

mod common;

use bcnorm::gpu::Pipelines;
use bcnorm::gpu::headless::{DeviceLimits, Gpu};
use bcnorm::layer::{StateDict, StateValue};
use bcnorm::{BcNorm, BcNormDesc, ChannelStats, Mode, Role, Tensor};
use common::adapters;
use common::compare::{assert_close, assert_same_bits};
use common::conditioning;
use common::problem::{Problem, Random};
use common::run;
use common::watch::Watched;
use pollster::block_on;

const ESTIMATE: ChannelStats = ChannelStats::Estimate { moving_speed: 0.25 };

/// Gradients of the parameters, by role and the oracle's name.
const GRADIENTS: [(Role, &str); 4] = [
    (Role::GradBnWeight, "grad_bn.weight"),
    (Role::GradBnBias, "grad_bn.bias"),
    (Role::GradWeight, "grad_weight"),
    (Role::GradBias, "grad_bias"),
];

/// A layer, and the problem that the oracle is given for its next call: parameters and state.
struct Twin {
    gpu: Gpu,
    layer: BcNorm,
    next: Problem,
}

fn read(gpu: &Gpu, tensor: &Tensor) -> Vec<f32> {
    block_on(tensor.read(&gpu.device, &gpu.queue)).unwrap()
}

fn f32s(state: &StateDict, name: &str) -> Vec<f32> {
    match &state[name] {
        StateValue::F32 { values, .. } => values.clone(),
        other => panic!("{name} is {other:?}"),
    }
}

/// A state dict with the parameters and the state of a problem.
fn dict(problem: &Problem) -> StateDict {
    let (channels, groups) = (problem.norm.num_channels, problem.norm.num_groups);
    let f32 = |dims: &[usize], values: &[f32]| StateValue::F32 {
        dims: dims.to_vec(),
        values: values.to_vec(),
    };
    let count = i64::from(problem.num_batches_tracked);
    let mut state = StateDict::from([
        ("weight".into(), f32(&[1, groups, 1], &problem.weight)),
        ("bias".into(), f32(&[1, groups, 1], &problem.bias)),
        ("bn.weight".into(), f32(&[channels], &problem.bn_weight)),
        ("bn.bias".into(), f32(&[channels], &problem.bn_bias)),
        (
            "bn.running_mean".into(),
            f32(&[channels], &problem.running_mean),
        ),
        (
            "bn.running_var".into(),
            f32(&[channels], &problem.running_var),
        ),
        ("bn.num_batches_tracked".into(), StateValue::I64(count)),
    ]);
    if let ChannelStats::Estimate { moving_speed } = problem.norm.stats {
        state.insert("bn.estbn_moving_speed".into(), f32(&[1], &[moving_speed]));
    }
    state
}

impl Twin {
    fn new(gpu: &Gpu, stats: ChannelStats) -> Self {
        let next = Problem::random(&[1, 6, 2], 3, 12).with_stats(stats);
        let pipelines = Pipelines::new(&gpu.device);
        let mut layer = BcNorm::new(&pipelines, next.norm).unwrap();
        layer.load_state_dict(&gpu.queue, &dict(&next)).unwrap();
        Self {
            gpu: gpu.clone(),
            layer,
            next,
        }
    }

    fn tensor(&self, dims: &[usize], values: &[f32]) -> Tensor {
        Tensor::from_slice(&self.gpu.device, dims, values).unwrap()
    }

    /// Gives both the same new input of a shape, in the layer's mode.
    fn draw(&mut self, dims: &[usize], seed: u64) {
        let drawn = Problem::random(dims, self.next.norm.num_groups, seed);
        self.next.dims = drawn.dims;
        self.next.x = drawn.x;
        self.next.grad_y = drawn.grad_y;
        self.next.mode = self.layer.mode();
        self.next.norm = *self.layer.desc();
    }

    /// A step of both: forward and backward in one submission, everything compared but gradients
    /// of parameters, which the caller accumulates. `steps` is how many roundings of the state
    /// there have been.
    fn step(&mut self, dims: &[usize], seed: u64, steps: usize) -> run::Outputs {
        self.draw(dims, seed);
        let mut encoder = self.gpu.device.create_command_encoder(&Default::default());
        let x = self.tensor(dims, &self.next.x);
        let grad_y = self.tensor(dims, &self.next.grad_y);
        let y = self.layer.forward(&mut encoder, &x).unwrap();
        let grad_x = self.layer.backward(&mut encoder, &grad_y).unwrap();
        self.gpu.queue.submit([encoder.finish()]);
        assert_eq!((y.dims(), grad_x.dims()), (dims, dims));
        let state = block_on(self.layer.state_dict(&self.gpu.queue)).unwrap();
        let outputs = run::Outputs::from([
            ("y", read(&self.gpu, &y)),
            ("grad_x", read(&self.gpu, &grad_x)),
            ("bn.running_mean_after", f32s(&state, "bn.running_mean")),
            ("bn.running_var_after", f32s(&state, "bn.running_var")),
        ]);
        let expected = run::expected(&self.next);
        let bounds = conditioning::bounds(&self.next, &expected);
        for (name, values) in &outputs {
            let (right, scale) = &expected[name];
            let what = format!("{dims:?}, after {steps} steps: {name}");
            assert_close(
                &what,
                values,
                right,
                *scale,
                bounds[name] * (1.0 + steps as f64),
            );
        }
        let after = self.next.oracle();
        let count = after.num_batches_tracked;
        assert_eq!(
            state["bn.num_batches_tracked"],
            StateValue::I64(count as i64)
        );
        self.next.running_mean = after.running_mean.iter().map(|&v| v as f32).collect();
        self.next.running_var = after.running_var.iter().map(|&v| v as f32).collect();
        self.next.num_batches_tracked = count as u32;
        outputs
    }

    fn gradient(&self, role: Role) -> Vec<f32> {
        let buffer = self.layer.buffer(role).unwrap();
        let len = buffer.size() as usize / 4;
        let gpu = &self.gpu;
        let values = bcnorm::gpu::transfer::read(&gpu.device, &gpu.queue, buffer, 0, len);
        block_on(values).unwrap()
    }
}

/// As a fresh module of PyTorch's: names, shapes, values, training mode.
#[test]
fn initial_state() {
    let gpu = adapters::first();
    let pipelines = Pipelines::new(&gpu.device);
    for stats in [ChannelStats::default(), ESTIMATE] {
        let norm = BcNormDesc::new(6, 3).with_stats(stats);
        let layer = BcNorm::new(&pipelines, norm).unwrap();
        assert_eq!(layer.mode(), Mode::Train);
        assert_eq!(*layer.desc(), norm);
        let fresh = Problem::random(&[1, 6, 1], 3, 0)
            .with_stats(stats)
            .with_fresh_state();
        let state = block_on(layer.state_dict(&gpu.queue)).unwrap();
        assert_eq!(state, dict(&fresh));
        let buffers = Role::ALL
            .iter()
            .filter(|role| layer.buffer(**role).is_some());
        assert_eq!(buffers.count(), 6 + 1 + 4);
        for (role, _) in GRADIENTS {
            let buffer = layer.buffer(role).unwrap();
            let len = buffer.size() as usize / 4;
            let values = bcnorm::gpu::transfer::read(&gpu.device, &gpu.queue, buffer, 0, len);
            assert_eq!(block_on(values), Ok(vec![0.0f32; len]), "{role}");
        }
    }
}

/// Several steps of training, of changing shape, with the state of each in the next; gradients of
/// the parameters add up until they are cleared.
#[test]
fn training() {
    for (name, gpu) in adapters::gpus(DeviceLimits::Default) {
        for stats in [
            ChannelStats::default(),
            ChannelStats::Batch { momentum: None },
            ESTIMATE,
        ] {
            println!("{name}, {stats:?}");
            let mut twin = Twin::new(&gpu, stats);
            let mut sums = GRADIENTS.map(|_| (Vec::<f64>::new(), 0.0, 0.0));
            let shapes: [&[usize]; 5] = [
                &[4, 6, 5, 7],
                &[4, 6, 5, 7],
                // The tables of a larger shape, then of a smaller one.
                &[300, 6, 3],
                &[2, 6, 2, 2, 3],
                &[4, 6, 5, 7],
            ];
            for (i, dims) in shapes.into_iter().enumerate() {
                let mut before = twin.next.clone();
                twin.step(dims, i as u64, i);
                before = Problem {
                    dims: twin.next.dims.clone(),
                    x: twin.next.x.clone(),
                    grad_y: twin.next.grad_y.clone(),
                    ..before
                };
                let expected = run::expected(&before);
                let bounds = conditioning::bounds(&before, &expected);
                for ((role, name), (sum, scale, bound)) in GRADIENTS.iter().zip(&mut sums) {
                    let (values, own_scale) = &expected[name];
                    sum.resize(values.len(), 0.0);
                    sum.iter_mut().zip(values).for_each(|(sum, v)| *sum += v);
                    // Terms add up, and so do their errors, those of the state among them.
                    *scale += own_scale;
                    *bound += bounds[name] * own_scale * (1.0 + i as f64);
                    let got = twin.gradient(*role);
                    let what = format!("{stats:?}, step {i}: {name}");
                    assert_close(&what, &got, sum, *scale, *bound / *scale);
                }
            }
            // Cleared: the next step's alone.
            let mut encoder = gpu.device.create_command_encoder(&Default::default());
            twin.layer.zero_grad(&mut encoder);
            gpu.queue.submit([encoder.finish()]);
            for (role, _) in GRADIENTS {
                assert!(twin.gradient(role).iter().all(|v| *v == 0.0), "{role}");
            }
            let before = twin.next.clone();
            twin.step(shapes[0], 9, shapes.len());
            let last = Problem {
                running_mean: before.running_mean,
                running_var: before.running_var,
                num_batches_tracked: before.num_batches_tracked,
                ..twin.next.clone()
            };
            let expected = run::expected(&last);
            let bounds = conditioning::bounds(&last, &expected);
            for (role, name) in GRADIENTS {
                let (values, scale) = &expected[name];
                let bound = bounds[name] * (1.0 + shapes.len() as f64);
                assert_close(name, &twin.gradient(role), values, *scale, bound);
            }
        }
    }
}

/// `zero_grad` within the submission of a step clears what was before it and nothing after it.
#[test]
fn zero_grad_is_recorded_in_order() {
    let gpu = adapters::first();
    let mut twin = Twin::new(&gpu, ChannelStats::default());
    let dims = [3, 6, 8];
    twin.draw(&dims, 1);
    let x = twin.tensor(&dims, &twin.next.x);
    let grad_y = twin.tensor(&dims, &twin.next.grad_y);
    let mut once = None;
    for backwards_before_zero in [0, 1, 3] {
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        twin.layer.forward(&mut encoder, &x).unwrap();
        for _ in 0..backwards_before_zero {
            twin.layer.backward(&mut encoder, &grad_y).unwrap();
        }
        twin.layer.zero_grad(&mut encoder);
        twin.layer.backward(&mut encoder, &grad_y).unwrap();
        gpu.queue.submit([encoder.finish()]);
        let gradients = GRADIENTS.map(|(role, _)| twin.gradient(role));
        assert!(gradients.iter().flatten().any(|v| *v != 0.0));
        let expected = once.get_or_insert_with(|| gradients.clone());
        assert_eq!(&gradients, expected);
    }
}

/// Eval: running statistics normalize and stay, to the bit; training goes on where it was.
#[test]
fn eval_keeps_the_state() {
    for (name, gpu) in adapters::gpus(DeviceLimits::Default) {
        for stats in [ChannelStats::default(), ESTIMATE] {
            println!("{name}, {stats:?}");
            let mut twin = Twin::new(&gpu, stats);
            twin.step(&[4, 6, 5, 7], 1, 0);
            let before = block_on(twin.layer.state_dict(&gpu.queue)).unwrap();
            twin.layer.eval();
            assert_eq!(twin.layer.mode(), Mode::Eval);
            // One value per channel is fine here.
            for dims in [&[4, 6, 5, 7][..], &[1, 6], &[1, 6, 1, 1], &[2, 6, 9]] {
                let outputs = twin.step(dims, 2, 1);
                let means = f32s(&before, "bn.running_mean");
                assert_same_bits(&name, &outputs["bn.running_mean_after"], &means);
            }
            assert_eq!(block_on(twin.layer.state_dict(&gpu.queue)).unwrap(), before);
            twin.layer.train();
            assert_eq!(twin.layer.mode(), Mode::Train);
            twin.step(&[4, 6, 5, 7], 3, 1);
            let after = block_on(twin.layer.state_dict(&gpu.queue)).unwrap();
            assert_ne!(after["bn.running_mean"], before["bn.running_mean"]);
        }
    }
}

/// Momentum and moving speed, changed in the middle of a training.
#[test]
fn statistics_change_during_training() {
    for (name, gpu) in adapters::gpus(DeviceLimits::Default) {
        println!("{name}");
        let batch = |momentum| ChannelStats::Batch { momentum };
        let estimate = |moving_speed| ChannelStats::Estimate { moving_speed };
        let schedules = [
            // The recipe of the paper: estimates stand still at first.
            [0.0, 0.0, 0.01, 0.1, 0.5, 1.0].map(estimate),
            [Some(0.1), Some(0.5), None, None, Some(0.0), Some(1.0)].map(batch),
            [
                batch(Some(0.1)),
                estimate(0.0),
                estimate(0.3),
                batch(None),
                estimate(1.0),
                batch(Some(0.1)),
            ],
        ];
        for schedule in schedules {
            let mut twin = Twin::new(&gpu, schedule[0]);
            for (i, stats) in schedule.into_iter().enumerate() {
                twin.layer.set_stats(stats).unwrap();
                assert_eq!(twin.layer.desc().stats, stats);
                twin.step(&[4, 6, 5], i as u64, i);
            }
        }
    }
}

/// Backward belongs to the forward before it: its mode and its statistics, whatever was set since.
#[test]
fn backward_after_a_change() {
    for (name, gpu) in adapters::gpus(DeviceLimits::Default) {
        let dims = [3, 6, 8];
        type Change<'a> = (&'a str, &'a dyn Fn(&mut BcNorm));
        let changes: [Change; 4] = [
            ("to eval", &|layer| layer.eval()),
            ("to training", &|layer| layer.train()),
            ("to estimates", &|layer| layer.set_stats(ESTIMATE).unwrap()),
            ("of momentum", &|layer| {
                let stats = ChannelStats::Batch {
                    momentum: Some(0.5),
                };
                layer.set_stats(stats).unwrap();
            }),
        ];
        for (what, change) in changes {
            for mode in [Mode::Train, Mode::Eval] {
                let mut twin = Twin::new(&gpu, ChannelStats::default());
                match mode {
                    Mode::Train => twin.layer.train(),
                    Mode::Eval => twin.layer.eval(),
                }
                twin.draw(&dims, 4);
                let x = twin.tensor(&dims, &twin.next.x);
                let grad_y = twin.tensor(&dims, &twin.next.grad_y);
                let mut encoder = gpu.device.create_command_encoder(&Default::default());
                twin.layer.forward(&mut encoder, &x).unwrap();
                change(&mut twin.layer);
                let grad_x = twin.layer.backward(&mut encoder, &grad_y).unwrap();
                gpu.queue.submit([encoder.finish()]);
                let expected = run::expected(&twin.next);
                let bounds = conditioning::bounds(&twin.next, &expected);
                let what = format!("{name}: change {what} after a forward in {mode:?}");
                let (values, scale) = &expected["grad_x"];
                let got = read(&gpu, &grad_x);
                assert_close(&what, &got, values, *scale, bounds["grad_x"]);
                // The two modes' gradients do differ.
                let mut other = twin.next.clone();
                other.mode = match mode {
                    Mode::Train => Mode::Eval,
                    Mode::Eval => Mode::Train,
                };
                let (values, scale) = &run::expected(&other)["grad_x"];
                let error = common::compare::error(&got, values, *scale).unwrap();
                assert!(error > 1e-3, "{what}: {error}");
            }
        }
    }
}

/// A second backward through the same forward gives the same gradient, and adds to the parameters'.
#[test]
fn backward_twice() {
    let gpu = adapters::first();
    let mut twin = Twin::new(&gpu, ChannelStats::default());
    let dims = [3, 6, 8];
    twin.draw(&dims, 4);
    let x = twin.tensor(&dims, &twin.next.x);
    let grad_y = twin.tensor(&dims, &twin.next.grad_y);
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    twin.layer.forward(&mut encoder, &x).unwrap();
    let first = twin.layer.backward(&mut encoder, &grad_y).unwrap();
    gpu.queue.submit([encoder.finish()]);
    let once = twin.gradient(Role::GradWeight);
    // In another submission, later.
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    let second = twin.layer.backward(&mut encoder, &grad_y).unwrap();
    gpu.queue.submit([encoder.finish()]);
    assert_same_bits("again", &read(&gpu, &second), &read(&gpu, &first));
    let twice: Vec<f32> = once.iter().map(|v| v + v).collect();
    assert_same_bits("twice", &twin.gradient(Role::GradWeight), &twice);
}

/// Forward and backward into tensors of the caller's, views into one buffer for what is read.
#[test]
fn into_tensors_of_the_caller() {
    let watched = Watched::new();
    let gpu = &watched.gpu;
    let mut twin = Twin::new(gpu, ChannelStats::default());
    let dims = [3, 6, 8];
    twin.draw(&dims, 4);
    let alignment = gpu.device.limits().min_storage_buffer_offset_alignment as usize;
    let begin = twin.next.x.len().next_multiple_of(alignment / 4);
    let mut arena = twin.next.x.clone();
    arena.resize(begin, f32::NAN);
    arena.extend(&twin.next.grad_y);
    let arena = bcnorm::gpu::transfer::upload(&gpu.device, "arena", &arena);
    let x = Tensor::from_buffer(&arena, 0, &dims);
    let grad_y = Tensor::from_buffer(&arena, 4 * begin as u64, &dims);
    assert_eq!(
        (grad_y.offset(), grad_y.buffer()),
        (4 * begin as u64, &arena)
    );
    let outputs = bcnorm::gpu::transfer::upload(&gpu.device, "outputs", &vec![f32::NAN; 3 * begin]);
    let y = Tensor::from_buffer(&outputs, 4 * begin as u64, &dims);
    let grad_x = Tensor::from_buffer(&outputs, 8 * begin as u64, &dims);
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    twin.layer.forward_into(&mut encoder, &x, &y).unwrap();
    twin.layer
        .backward_into(&mut encoder, &grad_y, &grad_x)
        .unwrap();
    gpu.queue.submit([encoder.finish()]);
    let expected = run::expected(&twin.next);
    let bounds = conditioning::bounds(&twin.next, &expected);
    for (name, tensor) in [("y", &y), ("grad_x", &grad_x)] {
        let (values, scale) = &expected[name];
        assert_close(name, &read(gpu, tensor), values, *scale, bounds[name]);
    }
    watched.assert_no_errors();
}

/// Saved and loaded: a layer with the dict of another does the same from there on, bit by bit.
#[test]
fn state_dict_round_trip() {
    for (name, gpu) in adapters::gpus(DeviceLimits::Default) {
        for stats in [ChannelStats::default(), ESTIMATE] {
            let mut twin = Twin::new(&gpu, stats);
            twin.step(&[4, 6, 5], 1, 0);
            let state = block_on(twin.layer.state_dict(&gpu.queue)).unwrap();
            let pipelines = Pipelines::new(&gpu.device);
            // Another speed: the dict brings its own.
            let mut norm = *twin.layer.desc();
            if stats == ESTIMATE {
                norm.stats = ChannelStats::Estimate { moving_speed: 0.0 };
            }
            let mut copy = BcNorm::new(&pipelines, norm).unwrap();
            copy.load_state_dict(&gpu.queue, &state).unwrap();
            assert_eq!(copy.desc().stats, stats, "{name}");
            assert_eq!(block_on(copy.state_dict(&gpu.queue)).unwrap(), state);
            let mut copy = Twin {
                gpu: gpu.clone(),
                layer: copy,
                next: twin.next.clone(),
            };
            let outputs = [&mut twin, &mut copy].map(|t| t.step(&[3, 6, 7], 2, 1));
            assert_eq!(outputs[0], outputs[1], "{name}");
            let states = [&twin, &copy].map(|t| block_on(t.layer.state_dict(&gpu.queue)).unwrap());
            assert_eq!(states[0], states[1], "{name}");
        }
    }
}

/// Shapes that mean the same: (G) for (1, G, 1), and a count beyond 32 bits stays a large count.
#[test]
fn state_dicts_of_other_shapes() {
    let gpu = adapters::first();
    let mut twin = Twin::new(&gpu, ChannelStats::default());
    let mut state = block_on(twin.layer.state_dict(&gpu.queue)).unwrap();
    for name in ["weight", "bias"] {
        if let Some(StateValue::F32 { dims, values }) = state.get_mut(name) {
            assert_eq!(dims, &[1, 3, 1]);
            *dims = vec![3];
            values.reverse();
        }
    }
    state.insert("bn.num_batches_tracked".into(), StateValue::I64(1 << 40));
    twin.layer.load_state_dict(&gpu.queue, &state).unwrap();
    let loaded = block_on(twin.layer.state_dict(&gpu.queue)).unwrap();
    assert_eq!(f32s(&loaded, "weight"), f32s(&state, "weight"));
    let StateValue::F32 { dims, .. } = &loaded["bias"] else {
        panic!("{loaded:?}");
    };
    assert_eq!(dims, &[1, 3, 1]);
    let StateValue::I64(count) = loaded["bn.num_batches_tracked"] else {
        panic!("{loaded:?}");
    };
    assert_eq!(count, i64::from(u32::MAX));
    // One channel in one group: shapes of a single element.
    let pipelines = Pipelines::new(&gpu.device);
    let mut single = BcNorm::new(&pipelines, BcNormDesc::new(1, 1)).unwrap();
    let mut state = block_on(single.state_dict(&gpu.queue)).unwrap();
    for dims in [vec![1], vec![], vec![1, 1, 1]] {
        let values = vec![0.5];
        state.insert("weight".into(), StateValue::F32 { dims, values });
        single.load_state_dict(&gpu.queue, &state).unwrap();
    }
    let loaded = block_on(single.state_dict(&gpu.queue)).unwrap();
    assert_eq!(f32s(&loaded, "weight"), [0.5]);
}

/// More shapes than the layer keeps plans of, in random order, training and eval mixed.
#[test]
fn many_shapes() {
    let watched = Watched::new();
    let mut twin = Twin::new(
        &watched.gpu,
        ChannelStats::Batch {
            momentum: Some(0.0),
        },
    );
    let mut random = Random::new(3);
    for seed in 0..40 {
        match random.below(2) {
            0 => twin.layer.train(),
            _ => twin.layer.eval(),
        }
        let dims = [2 + random.below(5), 6, 1 + random.below(4)];
        // Momentum 0: the state does not move, and gathers no roundings.
        twin.step(&dims, seed, 0);
    }
    watched.assert_no_errors();
}

/// An empty batch: an empty output, no change of state, gradients as they were; training goes on.
#[test]
fn empty_batches() {
    let watched = Watched::new();
    let gpu = &watched.gpu;
    for stats in [ChannelStats::default(), ESTIMATE] {
        let mut twin = Twin::new(gpu, stats);
        twin.step(&[4, 6, 5], 1, 0);
        let state = block_on(twin.layer.state_dict(&gpu.queue)).unwrap();
        let gradients = GRADIENTS.map(|(role, _)| twin.gradient(role));
        for dims in [&[0, 6, 5][..], &[3, 6, 0], &[0, 6]] {
            let empty = twin.tensor(dims, &[]);
            let mut encoder = gpu.device.create_command_encoder(&Default::default());
            let y = twin.layer.forward(&mut encoder, &empty).unwrap();
            let grad_x = twin.layer.backward(&mut encoder, &empty).unwrap();
            gpu.queue.submit([encoder.finish()]);
            assert_eq!((y.dims(), grad_x.dims()), (dims, dims));
            assert!(read(gpu, &y).is_empty());
        }
        let after = block_on(twin.layer.state_dict(&gpu.queue)).unwrap();
        assert_eq!(after, state);
        assert_eq!(GRADIENTS.map(|(role, _)| twin.gradient(role)), gradients);
        twin.step(&[4, 6, 5], 2, 1);
    }
    watched.assert_no_errors();
}
