//! Plans in a caller's own encoder, pass and buffers: the library records, and nothing else.
#![allow(missing_docs)]

use crate::common;

use bcnorm::gpu::headless::{DeviceLimits, Gpu};
use bcnorm::gpu::{Bindings, Pipelines, PreparedPlan, transfer};
use bcnorm::{
    Activation, BackwardOptions, Error, Fusion, GradientMode, Layout, Mode, NormDesc, Plan, Role,
};
use common::compare::{assert_close, assert_same_bits};
use common::conditioning;
use common::problem::Problem;
use common::random::Random;
use common::run::{self, GpuProblem, POISON};
use common::watch::Watched;
use common::{adapters, targets};
use pollster::block_on;
use std::collections::BTreeMap;
use std::path::Path;

fn read(gpu: &Gpu, buffer: &wgpu::Buffer, offset: u64, len: usize) -> Vec<f32> {
    block_on(transfer::read(&gpu.device, &gpu.queue, buffer, offset, len)).unwrap()
}

fn prepare(
    pipelines: &Pipelines,
    problem: &Problem,
    options: BackwardOptions,
) -> [PreparedPlan; 2] {
    let plans = run::plans(problem, options, pipelines.tuning()).unwrap();
    plans.map(|plan| pipelines.prepare(plan).unwrap())
}

/// Compares one output with the oracle's.
fn check(what: &str, problem: &Problem, name: &'static str, got: &[f32]) {
    let expected = run::expected(problem);
    let bounds = conditioning::bounds(problem, &expected);
    let (values, scale) = &expected[name];
    assert_close(
        &format!("{what}: {name}"),
        got,
        values,
        *scale,
        bounds[name],
    );
}

/// A kernel of the caller's: every element times 2, plus 1.
struct Double {
    pipeline: wgpu::ComputePipeline,
}

impl Double {
    fn new(device: &wgpu::Device) -> Self {
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: None,
            source: wgpu::ShaderSource::Wgsl(
                "@group(0) @binding(0) var<storage, read_write> values: array<f32>;
                @compute @workgroup_size(64)
                fn main(@builtin(global_invocation_id) id: vec3<u32>) {
                    if (id.x < arrayLength(&values)) {
                        values[id.x] = values[id.x] * 2.0 + 1.0;
                    }
                }"
                .into(),
            ),
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: None,
            layout: None,
            module: &module,
            entry_point: None,
            compilation_options: Default::default(),
            cache: None,
        });
        Self { pipeline }
    }

    fn record(&self, device: &wgpu::Device, pass: &mut wgpu::ComputePass, buffer: &wgpu::Buffer) {
        let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &self.pipeline.get_bind_group_layout(0),
            entries: &[wgpu::BindGroupEntry {
                binding: 0,
                resource: buffer.as_entire_binding(),
            }],
        });
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &group, &[]);
        pass.dispatch_workgroups((buffer.size() / 4).div_ceil(64) as u32, 1, 1);
    }
}

/// In a pass of the caller's, between dispatches of the caller's that make x and use y.
#[test]
fn in_the_callers_pass() {
    for (name, gpu) in adapters::gpus(DeviceLimits::Default) {
        let pipelines = Pipelines::new(&gpu.device);
        let doubled = Problem::random(&[3, 4, 5, 7], 2, 1);
        let problem = Problem {
            x: doubled.x.iter().map(|x| x * 2.0 + 1.0).collect(),
            ..doubled.clone()
        };
        let [forward, backward] = prepare(&pipelines, &problem, BackwardOptions::default());
        let plans = [forward.plan().clone(), backward.plan().clone()];
        let bench = GpuProblem::new(&gpu, &doubled, &plans);
        let bindings = bench.bindings();
        let double = Double::new(&gpu.device);
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        {
            let mut pass = encoder.begin_compute_pass(&Default::default());
            double.record(&gpu.device, &mut pass, &bench.buffers[&Role::X]);
            forward.encode(&mut pass, &bindings).unwrap();
            double.record(&gpu.device, &mut pass, &bench.buffers[&Role::Y]);
            backward.bind(&bindings).unwrap().encode(&mut pass);
            double.record(&gpu.device, &mut pass, &bench.buffers[&Role::GradX]);
        }
        gpu.queue.submit([encoder.finish()]);
        let outputs = bench.outputs();
        for output in ["y", "grad_x"] {
            let halved: Vec<f32> = outputs[output].iter().map(|v| (v - 1.0) / 2.0).collect();
            // Times 2 is exact; plus 1 and minus 1 round once each, relative to 1 or to the value.
            let expected = run::expected(&problem);
            let bounds = conditioning::bounds(&problem, &expected);
            let (values, scale) = &expected[output];
            let bound = bounds[output] + 2.0 * 2f64.powi(-24) * (1.0 + 1.0 / scale);
            assert_close(&format!("{name}: {output}"), &halved, values, *scale, bound);
        }
    }
}

/// Stage by stage, with passes of the caller's: the same bits as in one go.
#[test]
fn step_by_step() {
    for (name, gpu) in adapters::gpus(DeviceLimits::Default) {
        let pipelines = Pipelines::new(&gpu.device);
        let problem = Problem::random(&[300, 4, 5, 7], 2, 1);
        let prepared = prepare(&pipelines, &problem, BackwardOptions::default());
        let plans = prepared.each_ref().map(|p| p.plan().clone());
        let bench = GpuProblem::new(&gpu, &problem, &plans);
        let bindings = bench.bindings();
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        for prepared in &prepared {
            let bound = prepared.bind(&bindings).unwrap();
            for index in 0..prepared.plan().steps().len() + 1 {
                // The one behind the last records nothing.
                let mut pass = encoder.begin_compute_pass(&Default::default());
                bound.encode_step(&mut pass, index);
            }
        }
        gpu.queue.submit([encoder.finish()]);
        let whole = run::on_gpu(&gpu, &pipelines, &problem);
        for (output, values) in bench.outputs() {
            assert_same_bits(&format!("{name}: {output}"), &values, &whole[output]);
        }
    }
}

/// All tensors and parameters lie in two large buffers, what is read in one and what is written in
/// the other, at offsets, with guards between them that must stay as they are.
#[test]
fn offsets_into_shared_buffers() {
    const GUARD: f32 = -77.5;
    for (name, gpu) in adapters::gpus(DeviceLimits::Default) {
        let pipelines = Pipelines::new(&gpu.device);
        let alignment = u64::from(gpu.device.limits().min_storage_buffer_offset_alignment);
        // Lengths that are no multiple of a word, so that a write beyond the end would show.
        for dims in [[3, 5, 7], [2, 6, 50], [3, 4, 9]] {
            let problem = Problem::random(&dims, 1, 1);
            let prepared = prepare(&pipelines, &problem, BackwardOptions::default());
            let plans = prepared.each_ref().map(|p| p.plan().clone());
            let bench = GpuProblem::new(&gpu, &problem, &plans);
            let read_only = [
                Role::GradY,
                Role::X,
                Role::Bias,
                Role::BnWeight,
                Role::BnBias,
                Role::Weight,
            ];
            let written = [
                Role::Y,
                Role::NumBatchesTracked,
                Role::RunningVar,
                Role::GradX,
                Role::RunningMean,
                Role::GradBias,
                Role::GradBnWeight,
                Role::GradWeight,
                Role::GradBnBias,
            ];
            let bytes = |role: Role| plans.iter().find_map(|p| p.need(role)).unwrap().bytes;
            let place = |roles: &[Role]| {
                let mut end = alignment;
                let place = |&role: &Role| {
                    let begin = end;
                    // At least one alignment of guard.
                    end = (begin + bytes(role)).next_multiple_of(alignment) + alignment;
                    (role, begin)
                };
                let places: BTreeMap<Role, u64> = roles.iter().map(place).collect();
                (places, end)
            };
            let mut bindings = bench.bindings();
            let mut encoder = gpu.device.create_command_encoder(&Default::default());
            let mut shared = Vec::new();
            for roles in [&read_only[..], &written] {
                let (places, end) = place(roles);
                let guards = vec![GUARD; end as usize / 4];
                let buffer = transfer::upload(&gpu.device, "shared", &guards).unwrap();
                for (&role, &begin) in &places {
                    let own = &bench.buffers[&role];
                    encoder.copy_buffer_to_buffer(own, 0, &buffer, begin, bytes(role));
                    bindings = bindings.with_offset(role, &buffer, begin);
                }
                shared.push((buffer, places, end));
            }
            for prepared in &prepared {
                prepared.encode(&mut encoder, &bindings).unwrap();
            }
            gpu.queue.submit([encoder.finish()]);

            let whole = run::on_gpu(&gpu, &pipelines, &problem);
            let what = format!("{name}: {dims:?}");
            for (buffer, places, end) in shared {
                let mut after = read(&gpu, &buffer, 0, end as usize / 4);
                for (role, begin) in places {
                    let (begin, len) = (begin as usize / 4, bytes(role) as usize / 4);
                    let got = &mut after[begin..begin + len];
                    let output = match role {
                        Role::RunningMean => "bn.running_mean_after",
                        Role::RunningVar => "bn.running_var_after",
                        role => role.name(),
                    };
                    match whole.get(output) {
                        Some(expected) => assert_same_bits(&what, got, expected),
                        None if role == Role::NumBatchesTracked => {
                            let count = problem.num_batches_tracked_after();
                            assert_eq!(got[0].to_bits(), count, "{what}");
                        }
                        None => assert!(read_only.contains(&role), "{what}: {role}"),
                    }
                    got.fill(GUARD);
                }
                assert!(after.iter().all(|v| *v == GUARD), "{what}: a guard was hit");
            }
        }
    }
}

/// As an allocator has it: everything, tables too, in slices of one buffer, with guards between them. The bits are
/// those of buffers of their own, and the guards stay as they are. Without read_write bindings it is refused, and
/// ranges that overlap are refused with them.
#[test]
fn slices_of_one_buffer() {
    const GUARD: f32 = -77.5;
    let fused = Fusion::NONE
        .with_activation(Activation::Relu)
        .with_residual(true);
    for (name, gpu) in adapters::gpus(DeviceLimits::Default) {
        let pipelines = Pipelines::new(&gpu.device);
        let read_write = pipelines.clone().with_read_write_bindings();
        let alignment = u64::from(gpu.device.limits().min_storage_buffer_offset_alignment);
        let rows = Problem::random(&[3, 6, 5, 7], 2, 1);
        for problem in [
            rows.clone().with_layout(Layout::ChannelsLast),
            rows.with_fusion(fused),
            Problem::random(&[40, 6, 2], 2, 1),
            Problem::random_of(NormDesc::group_norm(2, 6), &[3, 6, 50], 1).with_mode(Mode::Eval),
        ] {
            let what = format!("{name}: {}", problem.norm.kind.name());
            let prepared = prepare(&read_write, &problem, BackwardOptions::default());
            let plans = prepared.each_ref().map(|p| p.plan().clone());
            let bench = GpuProblem::new(&gpu, &problem, &plans);
            let (mut places, mut end) = (Vec::new(), alignment);
            for (&role, own) in &bench.buffers {
                places.push((role, own, end));
                end = (end + own.size()).next_multiple_of(alignment) + alignment;
            }
            let guards = vec![GUARD; end as usize / 4];
            let one = transfer::upload(&gpu.device, "one", &guards).unwrap();
            let mut encoder = gpu.device.create_command_encoder(&Default::default());
            let mut bindings = Bindings::new();
            for &(role, own, begin) in &places {
                encoder.copy_buffer_to_buffer(own, 0, &one, begin, own.size());
                bindings = bindings.with_offset(role, &one, begin);
            }
            let aliasing = |result: Result<(), Error>, conflict: &str| {
                let text = result.expect_err(&what).to_string();
                assert!(text.contains(conflict), "{what}: {text}");
            };
            let apart = pipelines.prepare(plans[0].clone()).unwrap();
            aliasing(apart.bind(&bindings).map(drop), "even for disjoint ranges");
            let begin = |of: Role| places.iter().find(|place| place.0 == of).unwrap().2;
            let overlap = bindings.clone().with_offset(Role::Y, &one, begin(Role::X));
            aliasing(prepared[0].bind(&overlap).map(drop), "overlapping ranges");

            for prepared in &prepared {
                prepared.encode(&mut encoder, &bindings).unwrap();
            }
            for &(_, own, begin) in &places {
                encoder.copy_buffer_to_buffer(&one, begin, own, 0, own.size());
            }
            gpu.queue.submit([encoder.finish()]);
            let mut after = read(&gpu, &one, 0, end as usize / 4);
            for &(_, own, begin) in &places {
                after[begin as usize / 4..][..own.size() as usize / 4].fill(GUARD);
            }
            assert!(after.iter().all(|v| *v == GUARD), "{what}: a guard was hit");
            let expected = run::on_gpu(&gpu, &pipelines, &problem);
            let outputs = bench.outputs();
            assert!(outputs.keys().eq(expected.keys()), "{what}");
            for (output, expected) in &expected {
                assert_same_bits(&format!("{what}: {output}"), &outputs[output], expected);
            }
        }
    }
}

/// Gradients replace what is there, whatever it is, or are added to it: x's and the parameters' each
/// as asked.
#[test]
fn gradients_replaced_or_added() {
    // Larger than the gradients, so that only a sum is right; small enough to keep their digits.
    const BEFORE: f32 = 8.0;
    for target in targets::all() {
        let problem = Problem::random(&[3, 4, 9, 5], 2, 3);
        let alone = target.run(&problem);
        for x in [GradientMode::Replace, GradientMode::Accumulate] {
            for parameters in [GradientMode::Replace, GradientMode::Accumulate] {
                let options = BackwardOptions::default()
                    .with_x(x)
                    .with_parameters(parameters);
                let plans = run::plans(&problem, options, &target.tuning()).unwrap();
                let before = |write| match write {
                    // Nothing of a NaN may be left.
                    GradientMode::Replace => f32::from_bits(POISON),
                    _ => BEFORE,
                };
                let roles = [
                    (Role::GradX, before(x)),
                    (Role::GradBnWeight, before(parameters)),
                    (Role::GradBnBias, before(parameters)),
                    (Role::GradWeight, before(parameters)),
                    (Role::GradBias, before(parameters)),
                ];
                let outputs = match &target.device {
                    Some((gpu, pipelines)) => {
                        let mut bench = GpuProblem::new(gpu, &problem, &plans);
                        for (role, value) in roles {
                            let values = vec![value; bench.buffers[&role].size() as usize / 4];
                            let buffer = transfer::upload(&gpu.device, "before", &values).unwrap();
                            bench.buffers.insert(role, buffer);
                        }
                        bench.run(pipelines);
                        bench.outputs()
                    }
                    None => {
                        let mut buffers = run::host_buffers(&problem, &plans);
                        for (role, value) in roles {
                            let len = buffers.get(role).unwrap().len();
                            buffers.set(role, vec![value; len]);
                        }
                        for plan in &plans {
                            bcnorm::cpu::Executor::new()
                                .run(plan, &mut buffers)
                                .unwrap();
                        }
                        run::host_outputs(&problem, &plans, &buffers)
                    }
                };
                for (role, before) in roles {
                    let what = format!("{}: {options:?} {role}", target.name);
                    let alone = &alone[role.name()];
                    let expected: Vec<f32> = match before.is_nan() {
                        true => alone.clone(),
                        // One addition, rounded once: the same on every adapter.
                        false => alone.iter().map(|v| before + v).collect(),
                    };
                    assert_same_bits(&what, &outputs[role.name()], &expected);
                }
            }
        }
    }
}

/// One prepared plan serves any number of recordings, into one encoder, with other buffers each
/// time; the running statistics go from one to the next.
#[test]
fn one_plan_many_times() {
    for (name, gpu) in adapters::gpus(DeviceLimits::Default) {
        let pipelines = Pipelines::new(&gpu.device);
        let mut problems: Vec<_> = (0..5)
            .map(|seed| Problem::random(&[3, 4, 11], 2, seed))
            .collect();
        let [forward, _] = prepare(&pipelines, &problems[0], BackwardOptions::default());
        let first = GpuProblem::new(&gpu, &problems[0], &[forward.plan().clone()]);
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        let mut ys = Vec::new();
        for problem in &problems {
            let x = transfer::upload(&gpu.device, "x", &problem.x).unwrap();
            let y = vec![f32::from_bits(POISON); problem.x.len()];
            let y = transfer::upload(&gpu.device, "y", &y).unwrap();
            let bindings = first.bindings().with(Role::X, &x).with(Role::Y, &y);
            // The tables are the same each time: each recording is done with them before the next.
            forward.encode(&mut encoder, &bindings).unwrap();
            ys.push(y);
        }
        gpu.queue.submit([encoder.finish()]);
        let parameters = problems[0].clone();
        let mut state = (
            parameters.running_mean.clone(),
            parameters.running_var.clone(),
        );
        for (problem, y) in problems.iter_mut().zip(ys) {
            *problem = Problem {
                x: problem.x.clone(),
                running_mean: state.0,
                running_var: state.1,
                ..parameters.clone()
            };
            check(&name, problem, "y", &read(&gpu, &y, 0, problem.x.len()));
            let after = problem.oracle();
            let f32s = |values: &[f64]| values.iter().map(|&v| v as f32).collect();
            state = (
                f32s(&after.running_mean.unwrap()),
                f32s(&after.running_var.unwrap()),
            );
        }
        // f32 statistics of five steps: one step's bound for each.
        let mean = first.read::<f32>(Role::RunningMean);
        let expected: Vec<f64> = state.0.iter().map(|&v| v.into()).collect();
        let scale = bcnorm_testkit::oracle::scale(&expected);
        assert_close(&name, &mean, &expected, scale, 5.0 * conditioning::F32);
        let count = first.read::<u32>(Role::NumBatchesTracked);
        assert_eq!(count, [parameters.num_batches_tracked + 5]);
    }
}

/// Two layers' plans in one pass, interleaved: the output of the first is the input of the second,
/// and its gradient goes back the same way. Each backward reads the tables of its own forward.
#[test]
fn two_plans_in_one_pass() {
    for (name, gpu) in adapters::gpus(DeviceLimits::Default) {
        let pipelines = Pipelines::new(&gpu.device);
        let options = BackwardOptions::default();
        let first = Problem::random(&[3, 6, 5, 4], 3, 1);
        // The same tensor as (3, 4, 5, 6) to the second, with groups of its own.
        let second = Problem::random(&[3, 4, 5, 6], 2, 2);
        let plans = [&first, &second].map(|problem| prepare(&pipelines, problem, options));
        let bench = |problem: &Problem, prepared: &[PreparedPlan; 2]| {
            GpuProblem::new(
                &gpu,
                problem,
                &prepared.each_ref().map(|p| p.plan().clone()),
            )
        };
        let benches = [bench(&first, &plans[0]), bench(&second, &plans[1])];
        let between = |role: Role| benches[0].buffers[&role].clone();
        let bindings = [
            benches[0].bindings(),
            benches[1]
                .bindings()
                .with(Role::X, &between(Role::Y))
                .with(Role::GradX, &between(Role::GradY)),
        ];
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        {
            let mut pass = encoder.begin_compute_pass(&Default::default());
            for (layer, direction) in [(0, 0), (1, 0), (1, 1), (0, 1)] {
                let plan = &plans[layer][direction];
                plan.encode(&mut pass, &bindings[layer]).unwrap();
            }
        }
        gpu.queue.submit([encoder.finish()]);

        let f32s = |values: &[f64]| values.iter().map(|&v| v as f32).collect::<Vec<f32>>();
        let inner = run::expected(&first);
        let second = Problem {
            x: f32s(&inner["y"].0),
            ..second
        };
        let outer = run::expected(&second);
        let first = Problem {
            grad_y: f32s(&outer["grad_x"].0),
            ..first
        };
        // What the second is given has the errors of the first: twice the bound.
        for (problem, bench) in [(&first, &benches[0]), (&second, &benches[1])] {
            let expected = run::expected(problem);
            let bounds = conditioning::bounds(problem, &expected);
            for (output, values) in bench.outputs() {
                let (right, scale) = &expected[output];
                if output == "grad_x" && bench.buffers[&Role::X] == benches[1].buffers[&Role::X] {
                    // The second's went into the first's dy.
                    let got = read(&gpu, &between(Role::GradY), 0, right.len());
                    assert_close(&name, &got, right, *scale, 2.0 * bounds[output]);
                    continue;
                }
                let what = format!("{name}: {output}");
                assert_close(&what, &values, right, *scale, 2.0 * bounds[output]);
            }
        }
    }
}

/// `create_tables`: backward's come from forward's, so that the saved ones are shared; scratch is
/// shared where it fits.
#[test]
fn tables_are_shared() {
    let watched = Watched::new();
    let gpu = &watched.gpu;
    let pipelines = Pipelines::new(&gpu.device);
    let problem = Problem::random(&[300, 4, 11], 2, 1);
    let [forward, backward] = prepare(&pipelines, &problem, BackwardOptions::default());
    let saved = forward.create_tables(None).unwrap();
    let tables = backward.create_tables(Some(&saved)).unwrap();
    for role in [Role::Rows, Role::Channels, Role::Groups] {
        assert!(saved.get(role).is_some());
        assert_eq!(saved.get(role), tables.get(role), "{role}");
    }
    for (prepared, tables) in [(&forward, &saved), (&backward, &tables)] {
        for role in run::table_roles(prepared.plan()) {
            let need = prepared.plan().need(role).unwrap().bytes;
            assert!(tables.get(role).unwrap().size() >= need, "{role}");
        }
    }
    // A smaller plan finds all it needs; a larger one keeps nothing that is too small for it.
    let smaller = Problem::random(&[299, 4, 11], 2, 1);
    let [smaller, _] = prepare(&pipelines, &smaller, BackwardOptions::default());
    for (role, buffer) in smaller.create_tables(Some(&saved)).unwrap().iter() {
        assert_eq!(Some(buffer), saved.get(role), "{role}");
    }
    let larger = Problem::random(&[301, 4, 11], 2, 1);
    let [larger, _] = prepare(&pipelines, &larger, BackwardOptions::default());
    let larger_tables = larger.create_tables(Some(&saved)).unwrap();
    assert_ne!(larger_tables.get(Role::Rows), saved.get(Role::Rows));
    assert_eq!(larger_tables.get(Role::Channels), saved.get(Role::Channels));

    // They work, poisoned and all, without any buffer of the bench's for a table.
    run::poison_tables(gpu, &tables);
    let plans = [forward.plan().clone(), backward.plan().clone()];
    let bench = GpuProblem::new(gpu, &problem, &plans);
    let bindings = bench.bindings().with_tables(&tables);
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    forward.encode(&mut encoder, &bindings).unwrap();
    backward.encode(&mut encoder, &bindings).unwrap();
    gpu.queue.submit([encoder.finish()]);
    let whole = run::on_gpu(gpu, &pipelines, &problem);
    for (output, values) in bench.outputs() {
        assert_same_bits(output, &values, &whole[output]);
    }
    watched.assert_no_errors();
}

/// Eval in the submission of the training step before it sees the statistics of that step.
#[test]
fn eval_after_training_in_one_submission() {
    for (name, gpu) in adapters::gpus(DeviceLimits::Default) {
        let pipelines = Pipelines::new(&gpu.device);
        let training = Problem::random(&[5, 4, 9], 2, 1);
        let eval = Problem::random(&[2, 4, 13], 2, 2).with_mode(Mode::Eval);
        let options = BackwardOptions::default();
        let [train_forward, _] = prepare(&pipelines, &training, options);
        let [eval_forward, _] = prepare(&pipelines, &eval, options);
        let train_bench = GpuProblem::new(&gpu, &training, &[train_forward.plan().clone()]);
        let eval_bench = GpuProblem::new(&gpu, &eval, &[eval_forward.plan().clone()]);
        let mut bindings = eval_bench.bindings();
        for role in [Role::RunningMean, Role::RunningVar, Role::NumBatchesTracked] {
            bindings = bindings.with(role, &train_bench.buffers[&role]);
        }
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        let bound = train_bench.bindings();
        train_forward.encode(&mut encoder, &bound).unwrap();
        eval_forward.encode(&mut encoder, &bindings).unwrap();
        gpu.queue.submit([encoder.finish()]);

        let after = training.oracle();
        let f32s = |values: &[f64]| values.iter().map(|&v| v as f32).collect::<Vec<f32>>();
        let eval = Problem {
            running_mean: f32s(&after.running_mean.unwrap()),
            running_var: f32s(&after.running_var.unwrap()),
            ..eval
        };
        check(&name, &eval, "y", &eval_bench.read(Role::Y));
        // It would not pass with the statistics before that step.
        let stale = Problem::random(&[2, 4, 13], 2, 2).with_mode(Mode::Eval);
        let stale = run::expected(&stale);
        let y = eval_bench.read::<f32>(Role::Y);
        let error = common::compare::error(&y, &stale["y"].0, stale["y"].1).unwrap();
        assert!(error > 1e-2, "{name}: {error}");
    }
}

/// Nothing happens before the caller submits: until then outputs are poison and the state is as it
/// was; an encoder that is dropped leaves no trace; one submission makes all of it happen.
#[test]
fn nothing_happens_before_submit() {
    let watched = Watched::new();
    let gpu = &watched.gpu;
    let pipelines = Pipelines::new(&gpu.device);
    let problem = Problem::random(&[3, 4, 9], 2, 1);
    let prepared = prepare(&pipelines, &problem, BackwardOptions::default());
    let plans = prepared.each_ref().map(|p| p.plan().clone());
    let bench = GpuProblem::new(gpu, &problem, &plans);
    let record = || {
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        for prepared in &prepared {
            prepared.encode(&mut encoder, &bench.bindings()).unwrap();
        }
        encoder
    };
    let untouched = |when: &str| {
        // Reading submits copies and waits: whatever the library had sent would be done by then.
        for (output, values) in bench.outputs() {
            match output {
                "bn.running_mean_after" => assert_eq!(values, problem.running_mean, "{when}"),
                "bn.running_var_after" => assert_eq!(values, problem.running_var, "{when}"),
                _ => {
                    let poison = values.iter().all(|v| v.to_bits() == POISON);
                    assert!(poison, "{when}: {output} was written");
                }
            }
        }
        let count = bench.read::<u32>(Role::NumBatchesTracked);
        assert_eq!(count, [problem.num_batches_tracked], "{when}");
        for plan in &plans {
            for role in run::table_roles(plan) {
                let words = bench.read::<u32>(role);
                assert!(words.iter().all(|w| *w == POISON), "{when}: {role}");
            }
        }
    };
    untouched("before");
    let encoder = record();
    untouched("recorded");
    drop(encoder);
    untouched("dropped");
    let commands = record().finish();
    untouched("finished");
    gpu.queue.submit([commands]);
    let expected = run::expected(&problem);
    let bounds = conditioning::bounds(&problem, &expected);
    conditioning::assert_outputs("submitted", &bench.outputs(), &expected, &bounds);
    watched.assert_no_errors();
}

/// The library's text, but for the helpers that say so (`headless`, `transfer`, `autotune`, `probe`), never submits,
/// polls, maps, makes a device, or replaces an error handler.
#[test]
fn the_library_only_records() {
    const NEVER: [&str; 8] = [
        ".submit(",
        ".poll(",
        "map_async",
        "request_device",
        "request_adapter",
        "on_uncaptured_error",
        "push_error_scope",
        "set_device_lost_callback",
    ];
    let (mut files, mut found) = (0, Vec::new());
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            files += 1;
            let text = std::fs::read_to_string(&path).unwrap();
            // Examples in comments are the caller's side.
            let code = text
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"));
            let text: String = code.collect();
            let file = path.file_name().unwrap().to_string_lossy().into_owned();
            let calls = NEVER.into_iter().filter(|call| text.contains(call));
            found.extend(calls.map(|call| (file.clone(), call)));
        }
    }
    assert!(files > 20);
    // The search finds what there is to find.
    for helper in [
        ("transfer.rs", ".submit("),
        ("transfer.rs", ".poll("),
        ("transfer.rs", "map_async"),
        ("headless.rs", "request_device"),
        ("autotune.rs", ".submit("),
        ("probe.rs", ".submit("),
    ] {
        assert!(
            found
                .iter()
                .any(|(file, call)| (file.as_str(), *call) == helper)
        );
    }
    let helpers = ["transfer.rs", "headless.rs", "autotune.rs", "probe.rs"];
    found.retain(|(file, _)| !helpers.contains(&file.as_str()));
    // Around what is made: what a device objects to is an error then, whatever its handler does.
    assert_eq!(found, [("device.rs".to_owned(), "push_error_scope")]);
}

/// Plans are data: equal for equal requests, independent of any device; one made for a device runs
/// on the CPU executor, and the other way round.
#[test]
fn plans_run_anywhere() {
    let gpu = adapters::first();
    let mut random = Random::new(4);
    for _ in 0..6 {
        let dims = [2 + random.below(4), 4, 1 + random.below(90)];
        let problem = Problem::random(&dims, 2, 7);
        let options = BackwardOptions::default();
        for tuning in [
            bcnorm::Tuning::CPU,
            bcnorm::Tuning::GPU,
            bcnorm::Tuning::SOFTWARE,
        ] {
            let plans = run::plans(&problem, options, &tuning).unwrap();
            assert_eq!(plans, run::plans(&problem, options, &tuning).unwrap());
            let expected = run::expected(&problem);
            let bounds = conditioning::bounds(&problem, &expected);
            let mut buffers = run::host_buffers(&problem, &plans);
            for plan in &plans {
                bcnorm::cpu::Executor::new()
                    .run(plan, &mut buffers)
                    .unwrap();
            }
            let outputs = run::host_outputs(&problem, &plans, &buffers);
            let what = format!("{:?} on the CPU", tuning.class);
            conditioning::assert_outputs(&what, &outputs, &expected, &bounds);
            let bench = GpuProblem::new(&gpu, &problem, &plans);
            bench.run(&Pipelines::new(&gpu.device));
            let what = format!("{:?} on the GPU", tuning.class);
            conditioning::assert_outputs(&what, &bench.outputs(), &expected, &bounds);
        }
    }
}

/// The planner's promise: two tensor-sized steps and 3 transfers forward, two and 5 backward. Of short rows
/// one step and 2 transfers forward where the statistics are known, three and 7 backward.
#[test]
fn transfers() {
    let long = [[(3, 2), (5, 2)]; 2];
    let short = [[(3, 2), (7, 3)], [(2, 1), (7, 3)]];
    for (dims, expected) in [
        (&[8, 64, 56, 56][..], long),
        (&[2, 3, 20], long),
        (&[140_000, 4], short),
        (&[1, 2, 200_704], long),
    ] {
        let problem = Problem::random(&[2, dims[1], 2], 1, 1);
        let tensor = bcnorm::TensorDesc::new(dims).unwrap();
        for tuning in [bcnorm::Tuning::GPU, bcnorm::Tuning::SOFTWARE] {
            for (mode, expected) in [Mode::Train, Mode::Eval].into_iter().zip(expected) {
                let options = BackwardOptions::default();
                let norm = &problem.norm;
                let forward =
                    Plan::forward(norm, &tensor, mode, Default::default(), &tuning).unwrap();
                let backward = Plan::backward(&problem.norm, &tensor, mode, options, &tuning);
                for (plan, (transfers, steps)) in [forward, backward.unwrap()].iter().zip(expected)
                {
                    assert_eq!(plan.tensor_bytes(), transfers * tensor.bytes());
                    let sized = plan.steps().iter().filter(|step| {
                        let tensors = [Role::X, Role::Y, Role::GradY, Role::GradX];
                        step.bindings.iter().any(|role| tensors.contains(role))
                    });
                    assert_eq!(sized.count(), steps, "{dims:?} {mode:?}");
                }
            }
        }
    }
}

/// `Bindings` takes the last buffer given for a role.
#[test]
fn the_last_binding_counts() {
    let watched = Watched::new();
    let gpu = &watched.gpu;
    let pipelines = Pipelines::new(&gpu.device);
    let problem = Problem::random(&[3, 4, 9], 2, 1);
    let [forward, _] = prepare(&pipelines, &problem, BackwardOptions::default());
    let bench = GpuProblem::new(gpu, &problem, &[forward.plan().clone()]);
    let other = transfer::upload(&gpu.device, "other", &vec![f32::NAN; problem.x.len()]).unwrap();
    let x = &bench.buffers[&Role::X];
    let bindings: Bindings = bench.bindings().with(Role::X, &other).with(Role::X, x);
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    forward.encode(&mut encoder, &bindings).unwrap();
    gpu.queue.submit([encoder.finish()]);
    check("last", &problem, "y", &bench.read(Role::Y));
    watched.assert_no_errors();
}
