//! The layer in the manner of torch.nn, step by step against the oracle.
#![allow(missing_docs)]

use crate::common;

use bcnorm::gpu::headless::{DeviceLimits, Gpu};
use bcnorm::gpu::transfer;
use bcnorm::gpu::{Pipelines, Target};
use bcnorm::layer::{StateDict, StateValue};
use bcnorm::{
    Activation, Backward, ChannelStats, DType, Error, Forward, Fusion, Layout, Mode, Norm,
    NormDesc, NormKind, Role, Tensor, TensorDesc,
};
use bcnorm_testkit::names::{input_name, output_name};
use bcnorm_testkit::storage;
use common::adapters;
use common::compare::{assert_close, assert_same_bits};
use common::conditioning;
use common::problem::Problem;
use common::random::Random;
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
    layer: Norm,
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
    let norm = &problem.norm;
    let f32 = |dims: &[usize], values: &[f32]| StateValue::F32 {
        dims: dims.to_vec(),
        values: values.to_vec(),
    };
    let mut state = StateDict::new();
    let inputs = problem.inputs().into_iter();
    for (role, values) in inputs.filter(|(role, _)| !role.is_tensor()) {
        let outer = matches!(role, Role::Weight | Role::Bias);
        let dims = match norm.kind {
            NormKind::BcNorm if outer => vec![1, values.len(), 1],
            _ => vec![values.len()],
        };
        let name = input_name(norm, role).unwrap();
        state.insert(name.into(), f32(&dims, values));
    }
    let inner = match norm.kind {
        NormKind::BcNorm => "bn.",
        _ => "",
    };
    if norm.has_running_stats() {
        let count = StateValue::I64(i64::from(problem.num_batches_tracked));
        state.insert(format!("{inner}num_batches_tracked"), count);
    }
    if let ChannelStats::Estimate { moving_speed } = norm.stats {
        let name = format!("{inner}estbn_moving_speed");
        state.insert(name, f32(&[1], &[moving_speed]));
    }
    state
}

impl Twin {
    fn new(gpu: &Gpu, stats: ChannelStats) -> Self {
        let next = Problem::random(&[1, 6, 2], 3, 12).with_stats(stats);
        let pipelines = Pipelines::new(&gpu.device);
        let mut layer = Norm::new(&pipelines, next.norm).unwrap();
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
        let (y, saved) = self.layer.record_forward(&mut encoder, &x).unwrap();
        let backward = self.layer.record_backward(&mut encoder, saved, &grad_y);
        let grad_x = backward.unwrap().x;
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
        let f32s = |values: Option<Vec<f64>>| values.unwrap().iter().map(|&v| v as f32).collect();
        self.next.running_mean = f32s(after.running_mean);
        self.next.running_var = f32s(after.running_var);
        self.next.num_batches_tracked = count as u32;
        outputs
    }

    fn gradient(&self, role: Role) -> Vec<f32> {
        let buffer = self.layer.buffer(role).unwrap();
        let len = buffer.size() as usize / 4;
        let gpu = &self.gpu;
        let values = transfer::read(&gpu.device, &gpu.queue, buffer, 0, len);
        block_on(values).unwrap()
    }
}

/// As a fresh module of PyTorch's: names, shapes, values, training mode.
#[test]
fn initial_state() {
    let gpu = adapters::first();
    let pipelines = Pipelines::new(&gpu.device);
    for stats in [ChannelStats::default(), ESTIMATE] {
        let norm = NormDesc::bc_norm(6, 3).with_stats(stats);
        let layer = Norm::new(&pipelines, norm).unwrap();
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
            let values = transfer::read(&gpu.device, &gpu.queue, buffer, 0, len);
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
            twin.layer.record_zero_grad(&mut encoder);
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
        for _ in 0..backwards_before_zero {
            back_and_forth(&mut twin.layer, &mut encoder, &x, &grad_y);
        }
        let (_, saved) = twin.layer.record_forward(&mut encoder, &x).unwrap();
        twin.layer.record_zero_grad(&mut encoder);
        let backward = twin.layer.record_backward(&mut encoder, saved, &grad_y);
        backward.unwrap();
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
        type Change<'a> = (&'a str, &'a dyn Fn(&mut Norm));
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
                    _ => twin.layer.eval(),
                }
                twin.draw(&dims, 4);
                let x = twin.tensor(&dims, &twin.next.x);
                let grad_y = twin.tensor(&dims, &twin.next.grad_y);
                let mut encoder = gpu.device.create_command_encoder(&Default::default());
                let (_, saved) = twin.layer.record_forward(&mut encoder, &x).unwrap();
                change(&mut twin.layer);
                let backward = twin.layer.record_backward(&mut encoder, saved, &grad_y);
                let grad_x = backward.unwrap().x;
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
                    _ => Mode::Train,
                };
                let (values, scale) = &run::expected(&other)["grad_x"];
                let error = common::compare::error(&got, values, *scale).unwrap();
                assert!(error > 1e-3, "{what}: {error}");
            }
        }
    }
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
    let arena = transfer::upload(&gpu.device, "arena", &arena).unwrap();
    let view = |buffer, values: usize| {
        Tensor::from_buffer(
            &gpu.device,
            buffer,
            4 * values as u64,
            TensorDesc::new(&dims).unwrap(),
        )
    };
    let (x, grad_y) = (view(&arena, 0), view(&arena, begin));
    assert_eq!(
        (grad_y.offset(), grad_y.buffer()),
        (4 * begin as u64, &arena)
    );
    let outputs = transfer::upload(&gpu.device, "outputs", &vec![f32::NAN; 3 * begin]).unwrap();
    let (y, grad_x) = (view(&outputs, begin), view(&outputs, 2 * begin));
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    into(&mut twin.layer, &mut encoder, [&x, &y, &grad_y, &grad_x]);
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
            let mut copy = Norm::new(&pipelines, norm).unwrap();
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
    let mut single = Norm::new(&pipelines, NormDesc::bc_norm(1, 1)).unwrap();
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
            let (y, grad_x) = back_and_forth(&mut twin.layer, &mut encoder, &empty, &empty);
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

/// The family: every norm with every option that a layer has to know of.
fn family() -> Vec<NormDesc> {
    let bc = NormDesc::bc_norm(6, 3);
    let instance = NormDesc::instance_norm(6);
    vec![
        NormDesc::batch_norm(6),
        NormDesc::batch_norm(6).with_momentum(None),
        NormDesc::batch_norm(6).with_weight(false).with_bias(true),
        NormDesc::batch_norm(6).with_track_running_stats(false),
        NormDesc::est_bn(6).with_moving_speed(0.25),
        NormDesc::group_norm(2, 6),
        NormDesc::group_norm(3, 6)
            .with_weight(false)
            .with_bias(false),
        instance,
        instance
            .with_weight(true)
            .with_bias(true)
            .with_track_running_stats(true),
        NormDesc::layer_norm(6),
        NormDesc::layer_norm(6).with_weight(true).with_bias(false),
        bc,
        bc.with_moving_speed(0.25),
        bc.with_per_channel_affine(true),
        bc.with_weight(false)
            .with_bias(true)
            .with_bn_weight(true)
            .with_bn_bias(false),
        bc.with_track_running_stats(false),
        NormDesc::weight_standardization(),
    ]
}

/// A problem of the family: filters, or features with an odd number of elements in each row.
fn problem(norm: NormDesc, dtype: DType, layout: Layout, seed: u64) -> Problem {
    let dims: &[usize] = match norm.kind {
        NormKind::WeightStandardization => &[5, 1, 4, 3, 3],
        _ => &[3, 6, 5, 7],
    };
    Problem::random_of(norm, dims, seed)
        .with_layout(layout)
        .with_dtype(dtype)
}

/// A problem's values, in a tensor.
fn tensor(gpu: &Gpu, problem: &Problem, values: &[f32]) -> Tensor {
    let desc = problem.tensor();
    let words = storage::encode(values, &desc);
    let buffer = transfer::buffer_with_bytes(
        &gpu.device,
        "tensor",
        bytemuck::cast_slice(&words),
        wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC,
    )
    .unwrap();
    Tensor::from_buffer(&gpu.device, &buffer, 0, desc)
}

/// One call of a layer, forward and backward in one submission: what the plans of the same call leave
/// (which `family.rs` compares with the oracle), and under the names of the golden files.
fn assert_as_planned(what: &str, gpu: &Gpu, pipelines: &Pipelines, problem: &Problem) {
    let mut layer = Norm::new(pipelines, problem.norm)
        .unwrap()
        .with_activation(problem.fusion.activation);
    assert_eq!(layer.activation(), problem.fusion.activation);
    if problem.mode == Mode::Eval {
        layer.eval();
    }
    layer.load_state_dict(&gpu.queue, &dict(problem)).unwrap();
    let x = tensor(gpu, problem, &problem.x);
    let grad_y = tensor(gpu, problem, &problem.grad_y);
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    let residual = problem.fusion.residual.then_some(&problem.residual);
    let residual = residual.map(|values| tensor(gpu, problem, values));
    let args = match &residual {
        Some(residual) => Forward::new(&x).with_residual(residual),
        None => Forward::new(&x),
    };
    let (y, saved) = layer.record_forward(&mut encoder, args).unwrap();
    let gradients = layer.record_backward(&mut encoder, saved, &grad_y).unwrap();
    let mut tensors = vec![("y", y), ("grad_x", gradients.x)];
    assert_eq!(gradients.residual.is_some(), problem.fusion.residual);
    tensors.extend(
        gradients
            .residual
            .map(|gradient| ("grad_residual", gradient)),
    );
    gpu.queue.submit([encoder.finish()]);

    let planned = run::gpu(gpu, pipelines, problem).unwrap();
    let mut left: Vec<&str> = planned.outputs.keys().copied().collect();
    for (name, tensor) in tensors.drain(..) {
        assert_eq!(*tensor.desc(), problem.tensor(), "{what}: {name}");
        let words = transfer::read(
            &gpu.device,
            &gpu.queue,
            tensor.buffer(),
            0,
            (tensor.desc().buffer_bytes() / 4) as usize,
        );
        let words: Vec<u32> = block_on(words).unwrap();
        let got = storage::decode(&words, tensor.desc());
        assert_same_bits(&format!("{what}: {name}"), &got, &planned[name]);
        left.retain(|other| *other != name);
    }
    for (role, name) in GRADIENTS {
        let got = layer.buffer(role).map(|buffer| {
            let len = buffer.size() as usize / 4;
            block_on(transfer::read(&gpu.device, &gpu.queue, buffer, 0, len)).unwrap()
        });
        // Not to the bit: added to a buffer of zeros, -0 becomes 0.
        let expected = planned.outputs.get(name);
        assert_eq!(got.as_ref(), expected, "{what}: {name}");
        left.retain(|other| *other != name);
    }
    let mut after = problem.clone();
    for (role, values) in [
        (Role::RunningMean, &mut after.running_mean),
        (Role::RunningVar, &mut after.running_var),
    ] {
        let name = output_name(&problem.norm, role).unwrap();
        *values = planned.get(name).to_vec();
        left.retain(|other| *other != name);
    }
    after.num_batches_tracked = planned.num_batches_tracked;
    let state = block_on(layer.state_dict(&gpu.queue)).unwrap();
    assert_eq!(state, dict(&after), "{what}");
    assert!(left.is_empty(), "{what}: {left:?} was not compared");
}

/// Every norm in both modes, through types, layouts, activations and residuals in turn.
#[test]
fn the_family() {
    for (name, gpu) in adapters::gpus(DeviceLimits::Default) {
        println!("{name}");
        let pipelines = Pipelines::new(&gpu.device);
        let dtypes = [DType::F32, DType::F16, DType::BF16];
        let layouts = [Layout::ChannelsFirst, Layout::ChannelsLast];
        let activations = [Activation::None, Activation::Relu, Activation::Silu];
        for (i, norm) in family().into_iter().enumerate() {
            for (j, mode) in [Mode::Train, Mode::Eval].into_iter().enumerate() {
                for k in 0..6 {
                    let fusion = Fusion::NONE
                        .with_activation(activations[(i + k / 2) % 3])
                        .with_residual((i + j + k) % 2 == 1);
                    let problem = problem(norm, dtypes[k % 3], layouts[k / 3], k as u64)
                        .with_fusion(fusion)
                        .with_mode(mode);
                    let what = format!(
                        "{norm:?}, {:?}, {:?}, {mode:?}, {fusion:?}",
                        problem.dtype, problem.layout
                    );
                    assert_as_planned(&what, &gpu, &pipelines, &problem);
                }
            }
        }
    }
}

/// In place is the same to the bit, in eval, and then there is no way back.
#[test]
fn in_place() {
    let watched = Watched::new();
    let gpu = &watched.gpu;
    let pipelines = Pipelines::new(&gpu.device);
    for (i, norm) in family().into_iter().enumerate() {
        let dtype = [DType::F32, DType::F16, DType::BF16][i % 3];
        let layout = [Layout::ChannelsFirst, Layout::ChannelsLast][i % 2];
        let problem = problem(norm, dtype, layout, i as u64);
        let tensor = |values| tensor(gpu, &problem, values);
        let (x, other) = (tensor(&problem.x), tensor(&problem.grad_y));
        let mut layer = Norm::new(&pipelines, norm)
            .unwrap()
            .with_activation(Activation::Relu);
        layer.load_state_dict(&gpu.queue, &dict(&problem)).unwrap();
        let mut encoder = gpu.device.create_command_encoder(&Default::default());

        // In training it is refused, and x stays.
        let args = Forward::new(&x).in_place();
        for args in [args, args.with_residual(&other), args.recompute()] {
            let refused = layer.record_forward(&mut encoder, args).map(|_| ());
            assert_eq!(refused, Err(Error::InPlace));
        }
        back_and_forth(&mut layer, &mut encoder, &x, &other);

        layer.eval();
        // In place no backward follows: what is the same to the bit is a forward without gradients.
        let refused = |layer: &mut Norm, encoder: &mut _, args: Forward<'_>, why: &str| {
            let (y, saved) = layer.record_forward(encoder, args).unwrap();
            let error = layer.record_backward(encoder, saved, &other).unwrap_err();
            assert!(matches!(error, Error::NothingSaved { .. }), "{error}");
            assert!(error.to_string().contains(why), "{error}");
            y
        };
        let alone = tensor(&problem.x);
        let args = Forward::new(&alone).in_place();
        let y = refused(&mut layer, &mut encoder, args, "in place");
        assert_eq!(y, alone);
        layer.set_grad_enabled(false);
        let args = Forward::new(&x);
        let expected = refused(&mut layer, &mut encoder, args, "set_grad_enabled(true)");
        let args = args.with_residual(&other);
        let expected_sum = refused(&mut layer, &mut encoder, args, "without gradients");
        let sum = tensor(&problem.x);
        let args = Forward::new(&sum).with_residual(&other).in_place();
        refused(&mut layer, &mut encoder, args, "in place");
        layer.set_grad_enabled(true);
        // Another forward, and there is a way again.
        back_and_forth(&mut layer, &mut encoder, &x, &other);
        assert_eq!(layer.memory().saved, 0);
        gpu.queue.submit([encoder.finish()]);

        let what = format!("{norm:?}, {dtype:?}, {layout:?}");
        let input = read(gpu, &x);
        assert_same_bits(&what, &input, &read(gpu, &tensor(&problem.x)));
        assert_same_bits(&what, &read(gpu, &alone), &read(gpu, &expected));
        assert_same_bits(&what, &read(gpu, &sum), &read(gpu, &expected_sum));
        assert_ne!(read(gpu, &alone), input);
        assert_ne!(read(gpu, &alone), read(gpu, &sum));
    }
    watched.assert_no_errors();
}

/// The residual's gradient is dy where nothing comes after the sum, and is never lost.
#[test]
fn gradients_of_residuals() {
    let watched = Watched::new();
    let gpu = &watched.gpu;
    let pipelines = Pipelines::new(&gpu.device);
    let problem = Problem::random(&[3, 6, 8], 3, 5);
    let [x, grad_y, added] = [
        &problem.x,
        &problem.grad_y,
        &problem.x.iter().rev().copied().collect(),
    ]
    .map(|values| tensor(gpu, &problem, values));
    for activation in [Activation::None, Activation::Relu, Activation::Silu] {
        let mut layer = Norm::new(&pipelines, NormDesc::batch_norm(6))
            .unwrap()
            .with_activation(activation);
        let mut encoder = encoder_of(gpu);
        let grad_residual = Tensor::from_slice(&gpu.device, x.dims(), &[0.0; 144]).unwrap();
        let args = Backward::new(&grad_y).with_grad_residual(&grad_residual);
        let (_, saved) = layer.record_forward(&mut encoder, &x).unwrap();
        let refused = layer.record_backward(&mut encoder, saved, args);
        assert_eq!(refused, Err(Error::NoResidualGradient { residual: false }));
        let (_, saved) = layer.record_forward(&mut encoder, &x).unwrap();
        let alone = layer.record_backward(&mut encoder, saved, &grad_y).unwrap();
        assert_eq!(alone.residual, None);

        let residual = Forward::new(&x).with_residual(&added);
        let (_, saved) = layer.record_forward(&mut encoder, residual).unwrap();
        let gradients = layer.record_backward(&mut encoder, saved, &grad_y).unwrap();
        let (y, saved) = layer.record_forward(&mut encoder, residual).unwrap();
        let given = layer.record_backward(&mut encoder, saved, args);
        gpu.queue.submit([encoder.finish()]);
        match activation {
            Activation::None => {
                assert_eq!(given, Err(Error::NoResidualGradient { residual: true }));
            }
            _ => {
                let given = given.unwrap();
                assert_eq!(given.residual.as_ref(), Some(&grad_residual));
                let made = gradients.residual.as_ref().unwrap();
                assert_same_bits(
                    "grad_residual",
                    &read(gpu, &grad_residual),
                    &read(gpu, made),
                );
                assert_same_bits("grad_x", &read(gpu, &given.x), &read(gpu, &gradients.x));
            }
        }
        let (alone, grad_x) = (alone.x, gradients.x);
        let grad_residual = gradients.residual.unwrap();
        if activation == Activation::None {
            assert_eq!(grad_residual, grad_y);
            assert_same_bits("grad_x", &read(gpu, &grad_x), &read(gpu, &alone));
        } else {
            assert_ne!(grad_residual, grad_y);
            assert_ne!(read(gpu, &grad_x), read(gpu, &alone));
        }
        assert!(read(gpu, &y).iter().any(|y| *y != 0.0));
    }
    watched.assert_no_errors();
}

/// Tensors that are not as x are refused, with both in the message, before anything is recorded.
#[test]
fn tensors_that_are_not_as_x() {
    let watched = Watched::new();
    let gpu = &watched.gpu;
    let pipelines = Pipelines::new(&gpu.device);
    let dims = [2, 6, 4, 4];
    let desc = TensorDesc::new(&dims).unwrap().with_dtype(DType::F16);
    let tensor = |desc: &TensorDesc| {
        Tensor::new(&gpu.device, desc, &vec![1.0; desc.elements() as usize]).unwrap()
    };
    let x = tensor(&desc);
    let made = || Norm::new(&pipelines, NormDesc::group_norm(3, 6)).unwrap();
    let (mut layer, mut relu) = (made(), made().with_activation(Activation::Relu));
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    for (other, says) in [
        (
            desc.clone().with_dtype(DType::F32),
            "is f32 channels_first, expected f16 channels_first",
        ),
        (
            desc.clone().with_dtype(DType::BF16),
            "is bf16 channels_first, expected f16 channels_first",
        ),
        (
            desc.clone().with_layout(Layout::ChannelsLast),
            "is f16 channels_last, expected f16 channels_first",
        ),
        (
            TensorDesc::new(&[2, 6, 16]).unwrap().with_dtype(DType::F16),
            "has shape [2, 6, 16], expected [2, 6, 4, 4]",
        ),
    ] {
        let other = tensor(&other);
        let refused = |name: &str, result: Result<(), Error>| {
            let error = result.expect_err(name).to_string();
            assert!(error.starts_with(&format!("{name} {says}")), "{error}");
        };
        let args = Forward::new(&x);
        let mut forward = |args| layer.record_forward(&mut encoder, args).map(|_| ());
        refused("y", forward(args.with_y(&other)));
        refused("residual", forward(args.with_residual(&other)));
        layer.eval();
        let in_place = args.with_residual(&other).in_place();
        let result = layer.record_forward(&mut encoder, in_place);
        refused("residual", result.map(|_| ()));
        layer.train();
        let layer = &mut relu;
        for (name, args) in [
            ("grad_y", Backward::new(&other)),
            ("grad_x", Backward::new(&x).with_grad_x(&other)),
            (
                "grad_residual",
                Backward::new(&x).with_grad_residual(&other),
            ),
        ] {
            let args = (args, Forward::new(&x).with_residual(&x));
            let (_, saved) = layer.record_forward(&mut encoder, args.1).unwrap();
            let result = layer.record_backward(&mut encoder, saved, args.0);
            refused(name, result.map(|_| ()));
        }
    }
    // A view that is longer than its buffer is refused before y of that size is made.
    let huge = TensorDesc::new(&[1 << 14, 6, 1 << 12]).unwrap();
    let huge = Tensor::from_buffer(&gpu.device, x.buffer(), 0, huge);
    let refused = layer.record_forward(&mut encoder, &huge).unwrap_err();
    assert!(
        matches!(refused, Error::BufferTooSmall { role: Role::X, .. }),
        "{refused}"
    );
    gpu.queue.submit([encoder.finish()]);
    watched.assert_no_errors();
}

/// Values go into a type and come back, whatever their number and wherever they begin.
#[test]
fn tensors_of_16_bits() {
    let watched = Watched::new();
    let gpu = &watched.gpu;
    let values = [1.0, -0.1, 65504.0, 1e6, 1e-7, 3.0e-39, 0.333_333_34];
    let halves = [
        1.0,
        -0.099_975_586,
        65504.0,
        f32::INFINITY,
        1.192_092_9e-7,
        0.0,
        0.333_251_95,
    ];
    let brains = [
        1.0,
        -0.100_097_656,
        65536.0,
        999_424.0,
        1.001_171_8e-7,
        f32::from_bits(0x0021_0000),
        0.333_984_38,
    ];
    for len in 0..=values.len() {
        let desc = TensorDesc::new(&[1, len]).unwrap();
        for (dtype, expected) in [
            (DType::F32, &values),
            (DType::F16, &halves),
            (DType::BF16, &brains),
        ] {
            let desc = desc.clone().with_dtype(dtype);
            let tensor = Tensor::new(&gpu.device, &desc, &values[..len]).unwrap();
            assert_eq!(tensor.buffer().size(), desc.buffer_bytes().max(4));
            let what = format!("{len} of {dtype:?}");
            assert_same_bits(&what, &read(gpu, &tensor), &expected[..len]);
            // From the middle, at a multiple of 2 bytes but not of 4.
            for skip in 0..len {
                let offset = skip as u64 * dtype.bytes();
                let (device, queue) = (&gpu.device, &gpu.queue);
                let rest = len - skip;
                let buffer = tensor.buffer();
                let got = transfer::read_as(device, queue, buffer, offset, rest, dtype);
                assert_same_bits(&what, &block_on(got).unwrap(), &expected[skip..len]);
                // The padding counts as what is there.
                let too_many = (desc.buffer_bytes() / dtype.bytes()) as usize - skip + 1;
                let got = transfer::read_as(device, queue, buffer, offset, too_many, dtype);
                let error = block_on(got).unwrap_err();
                assert!(matches!(error, Error::Length { .. }), "{error}");
            }
            let error = Tensor::new(&gpu.device, &desc, &[0.0; 9]).unwrap_err();
            assert!(error.to_string().contains("has 9 values"), "{error}");
        }
    }
    watched.assert_no_errors();
}

/// 16-bit tensors with an odd number of elements, in views of one buffer, which stays as it is
/// around them.
#[test]
fn views_of_16_bit_buffers() {
    let watched = Watched::new();
    let gpu = &watched.gpu;
    let pipelines = Pipelines::new(&gpu.device);
    for (dtype, layout) in [
        (DType::F16, Layout::ChannelsFirst),
        (DType::BF16, Layout::ChannelsLast),
    ] {
        // 27 elements: 54 bytes, and 2 of padding.
        let problem = Problem::random(&[3, 3, 3], 3, 8);
        let problem = problem.with_layout(layout).with_dtype(dtype);
        let [x, grad_y] = [&problem.x, &problem.grad_y].map(|values| tensor(gpu, &problem, values));
        let mut layer = Norm::new(&pipelines, NormDesc::bc_norm(3, 3)).unwrap();
        let arena = transfer::upload_as(&gpu.device, "arena", dtype, &[7.0; 1024]).unwrap();
        let view =
            |slot: u64| Tensor::from_buffer(&gpu.device, &arena, 256 * slot, x.desc().clone());
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        let (y, grad_x) = back_and_forth(&mut layer, &mut encoder, &x, &grad_y);
        into(&mut layer, &mut encoder, [&x, &view(1), &grad_y, &view(3)]);
        gpu.queue.submit([encoder.finish()]);
        assert_same_bits("y", &read(gpu, &view(1)), &read(gpu, &y));
        assert_same_bits("grad_x", &read(gpu, &view(3)), &read(gpu, &grad_x));
        let all = transfer::read_as(&gpu.device, &gpu.queue, &arena, 0, 1024, dtype);
        for (i, value) in block_on(all).unwrap().into_iter().enumerate() {
            match (i / 128, i % 128) {
                (1 | 3, 0..27) => {}
                (1 | 3, 27) => assert_eq!(value, 0.0, "the padding"),
                _ => assert_eq!(value, 7.0, "element {i}"),
            }
        }
    }
    watched.assert_no_errors();
}

/// Running statistics that a layer went without are made when estimates come in.
#[test]
fn estimates_bring_their_running_statistics() {
    let watched = Watched::new();
    let gpu = &watched.gpu;
    let pipelines = Pipelines::new(&gpu.device);
    let norm = NormDesc::bc_norm(6, 3).with_track_running_stats(false);
    let mut layer = Norm::new(&pipelines, norm).unwrap();
    assert!(layer.buffer(Role::RunningMean).is_none());
    layer.set_stats(ESTIMATE).unwrap();
    let state = block_on(layer.state_dict(&gpu.queue)).unwrap();
    assert_eq!(f32s(&state, "bn.running_var"), [1.0; 6]);
    let problem = Problem::random(&[3, 6, 8], 3, 1);
    let x = tensor(gpu, &problem, &problem.x);
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    back_and_forth(&mut layer, &mut encoder, &x, &x);
    gpu.queue.submit([encoder.finish()]);
    let after = block_on(layer.state_dict(&gpu.queue)).unwrap();
    assert_ne!(f32s(&after, "bn.running_mean"), [0.0; 6]);
    watched.assert_no_errors();
}

/// A layer that is given the same tensors again records what it bound before. It must be the same as a
/// layer that is given new ones each time, to the bit, whatever changes in between: what the tensors hold,
/// which of them are given, their shape (tables grow), statistics, state, mode, and a backward's tensors.
#[test]
fn the_same_tensors_again() {
    let gpu = adapters::first();
    let pipelines = Pipelines::new(&gpu.device);
    let shapes: [&[usize]; 3] = [&[2, 6, 5], &[300, 6, 3], &[3, 6, 4, 4]];
    for seed in 0..3 {
        let mut random = Random::new(seed);
        let first = Problem::random(&[1, 6, 2], 3, seed);
        let new_layer = || {
            let mut layer = Norm::new(&pipelines, first.norm).unwrap();
            layer.load_state_dict(&gpu.queue, &dict(&first)).unwrap();
            layer
        };
        let (mut again, mut fresh) = (new_layer(), new_layer());
        let zeros = |dims: &[usize]| {
            let zeros = vec![0.0; dims.iter().product()];
            Tensor::from_slice(&gpu.device, dims, &zeros).unwrap()
        };
        // x, y, grad_y, grad_x of each shape, in two sets.
        let mut sets: Vec<Vec<[Tensor; 4]>> = shapes
            .iter()
            .map(|dims| (0..2).map(|_| [(); 4].map(|()| zeros(dims))).collect())
            .collect();
        for step in 0..40 {
            let what = format!("seed {seed}, step {step}");
            match random.below(8) {
                0 => {
                    let momentum = Some(random.uniform());
                    for layer in [&mut again, &mut fresh] {
                        layer.set_stats(ChannelStats::Batch { momentum }).unwrap();
                    }
                }
                1 => {
                    let state = dict(&Problem::random(&[1, 6, 2], 3, 100 + step));
                    for layer in [&mut again, &mut fresh] {
                        layer.load_state_dict(&gpu.queue, &state).unwrap();
                    }
                }
                2 => {
                    for layer in [&mut again, &mut fresh] {
                        match layer.mode() {
                            Mode::Train => layer.eval(),
                            _ => layer.train(),
                        }
                    }
                }
                3 => again.release(),
                _ => {}
            }
            let (shape, set) = (random.below(3), random.below(2));
            let dims = shapes[shape];
            if random.below(4) == 0 {
                // Another buffer in the place of one of them.
                sets[shape][set][random.below(4)] = zeros(dims);
            }
            let [x, y, grad_y, grad_x] = &sets[shape][set];
            let drawn = Problem::random(dims, 3, 1000 + step);
            for (tensor, values) in [(x, &drawn.x), (grad_y, &drawn.grad_y)] {
                let bytes = bytemuck::cast_slice(values);
                gpu.queue.write_buffer(tensor.buffer(), 0, bytes);
            }
            let upload = |values: &[f32]| Tensor::from_slice(&gpu.device, dims, values).unwrap();

            let mut encoder = gpu.device.create_command_encoder(&Default::default());
            let args = Forward::new(x).with_y(y);
            let (_, saved) = again.record_forward(&mut encoder, args).unwrap();
            let fresh_x = upload(&drawn.x);
            let (expected_y, fresh_saved) = fresh.record_forward(&mut encoder, &fresh_x).unwrap();
            let mut expected_grad_x = None;
            if random.below(3) > 0 {
                let args = Backward::new(grad_y).with_grad_x(grad_x);
                again.record_backward(&mut encoder, saved, args).unwrap();
                let grad_y = upload(&drawn.grad_y);
                let backward = fresh.record_backward(&mut encoder, fresh_saved, &grad_y);
                expected_grad_x = Some(backward.unwrap().x);
            }
            gpu.queue.submit([encoder.finish()]);
            assert_same_bits(&what, &read(&gpu, y), &read(&gpu, &expected_y));
            if let Some(expected) = expected_grad_x {
                assert_same_bits(&what, &read(&gpu, grad_x), &read(&gpu, &expected));
            }
            let state = |layer: &Norm| block_on(layer.state_dict(&gpu.queue)).unwrap();
            assert_eq!(state(&again), state(&fresh), "{what}");
            for (role, name) in GRADIENTS {
                let gradient = |layer: &Norm| {
                    let buffer = layer.buffer(role).unwrap();
                    let len = buffer.size() as usize / 4;
                    let (device, queue) = (&gpu.device, &gpu.queue);
                    block_on(transfer::read::<f32>(device, queue, buffer, 0, len)).unwrap()
                };
                let what = format!("{what}: {name}");
                assert_same_bits(&what, &gradient(&again), &gradient(&fresh));
            }
        }
        // As many calls are kept as it says, whatever was given; none of those that cannot come again.
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        // Twice, since tables that grow in the first round end what is bound to them.
        for [x, y, ..] in sets.iter().flatten().chain(sets.iter().flatten()) {
            let args = Forward::new(x).with_y(y);
            again.record_forward(&mut encoder, args).unwrap();
        }
        gpu.queue.submit([encoder.finish()]);
        let kept = |layer: &Norm| format!("{layer:?}").matches("Call {").count();
        assert_eq!((kept(&again), kept(&fresh)), (4, 0));
        again.release();
        assert_eq!(kept(&again), 0);
    }
}

/// A forward and a backward into new tensors: y and the gradient of x.
fn back_and_forth(
    layer: &mut Norm,
    target: &mut impl Target,
    x: &Tensor,
    grad_y: &Tensor,
) -> (Tensor, Tensor) {
    let (y, saved) = layer.record_forward(target, x).unwrap();
    let gradients = layer.record_backward(target, saved, grad_y).unwrap();
    (y, gradients.x)
}

/// A forward and a backward into tensors of the caller's, which they return.
fn into(layer: &mut Norm, target: &mut impl Target, tensors: [&Tensor; 4]) {
    let [x, y, grad_y, grad_x] = tensors;
    let args = Forward::new(x).with_y(y);
    let (to, saved) = layer.record_forward(target, args).unwrap();
    let args = Backward::new(grad_y).with_grad_x(grad_x);
    let gradients = layer.record_backward(target, saved, args).unwrap();
    assert_eq!((&to, &gradients.x), (y, grad_x));
}

fn encoder_of(gpu: &Gpu) -> wgpu::CommandEncoder {
    gpu.device.create_command_encoder(&Default::default())
}

/// Parts of one buffer are tensors of their own: an offset tells them apart.
#[test]
fn the_same_buffer_is_not_the_same_tensor() {
    let watched = Watched::new();
    let gpu = &watched.gpu;
    let dims = [2, 6, 32];
    let desc = TensorDesc::new(&dims).unwrap();
    let values = |seed| Problem::random(&dims, 3, seed).x;
    let both: Vec<f32> = [values(1), values(2)].concat();
    let buffer = transfer::upload(&gpu.device, "both", &both).unwrap();
    let bytes = desc.buffer_bytes();
    assert!(bytes.is_multiple_of(256));
    let part = |offset| Tensor::from_buffer(&gpu.device, &buffer, offset, desc.clone());
    let y = Tensor::new(&gpu.device, &desc, &values(3)).unwrap();
    let mut layer = Norm::new(&Pipelines::new(&gpu.device), NormDesc::bc_norm(6, 3)).unwrap();
    let mut outputs = Vec::new();
    for offset in [0, bytes, 0] {
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        let x = part(offset);
        let args = Forward::new(&x).with_y(&y);
        layer.record_forward(&mut encoder, args).unwrap();
        gpu.queue.submit([encoder.finish()]);
        outputs.push(read(gpu, &y));
    }
    assert_ne!(outputs[0], outputs[1]);
    assert_same_bits("y", &outputs[0], &outputs[2]);
    watched.assert_no_errors();
}
