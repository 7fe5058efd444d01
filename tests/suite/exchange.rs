//! Statistics over several devices, through an all-gather of the caller's, and moments of rows that come
//! from elsewhere. Unequal and empty shares of the batch give what one device gives.
#![allow(missing_docs)]

use crate::common;

use bcnorm::gpu::headless::{DeviceLimits, Gpu};
use bcnorm::gpu::{Bindings, Pipelines, PreparedPlan, ranks, transfer};
use bcnorm::tables::Moments;
use bcnorm::{
    BackwardOptions, ChannelStats, DType, ForwardOptions, Layout, Mode, NormDesc, Plan, Role,
    RowSource,
};
use bcnorm_testkit::compare;
use bcnorm_testkit::problem::Problem;
use bcnorm_testkit::run::{self, GpuProblem, Outputs};
use common::adapters;
use pollster::block_on;
use std::num::NonZero;
use std::sync::{Barrier, Mutex};

/// Samples `range` of a problem.
fn shard(problem: &Problem, range: std::ops::Range<usize>) -> Problem {
    let per_sample: usize = problem.dims[1..].iter().product();
    let cut = |values: &[f32]| values[range.start * per_sample..range.end * per_sample].to_vec();
    let mut shard = problem.clone();
    shard.dims[0] = range.len();
    shard.x = cut(&problem.x);
    shard.grad_y = cut(&problem.grad_y);
    shard
}

/// Forward and backward over ranks that hold `sizes` samples each, each in a thread of its own.
fn distributed(gpus: &[(Gpu, Pipelines)], problem: &Problem, sizes: &[usize]) -> Vec<Outputs> {
    assert_eq!(sizes.iter().sum::<usize>(), problem.dims[0]);
    let meeting = Meeting::of(sizes.len());
    let rank = |index: usize| {
        let begin: usize = sizes[..index].iter().sum();
        let part = shard(problem, begin..begin + sizes[index]);
        let (gpu, pipelines) = &gpus[index % gpus.len()];
        let world_size = NonZero::new(sizes.len() as u32);
        let (norm, tensor, mode) = (&part.norm, part.tensor(), part.mode);
        let forward = ForwardOptions::default().with_world_size(world_size);
        let backward = BackwardOptions::default().with_world_size(world_size);
        let plans = [
            Plan::forward(norm, &tensor, mode, forward, pipelines.tuning()).unwrap(),
            Plan::backward(norm, &tensor, mode, backward, pipelines.tuning()).unwrap(),
        ];
        let bench = GpuProblem::new(gpu, &part, &plans);
        for prepared in bench.prepare(pipelines).unwrap() {
            let gather = |own| meeting.all_gather(index, own);
            block_on(ranks::submit(
                &prepared,
                &gpu.queue,
                &bench.bindings(),
                gather,
            ))
            .unwrap();
        }
        bench.outputs()
    };
    std::thread::scope(|scope| {
        let rank = &rank;
        let ranks: Vec<_> = (0..sizes.len())
            .map(|index| scope.spawn(move || rank(index)))
            .collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

/// Where threads gather what each of them has.
struct Meeting {
    barrier: Barrier,
    entries: Mutex<Vec<Vec<u32>>>,
}

impl Meeting {
    fn of(ranks: usize) -> Self {
        Self {
            barrier: Barrier::new(ranks),
            entries: Mutex::new(vec![Vec::new(); ranks]),
        }
    }

    fn all_gather(&self, rank: usize, own: Vec<u32>) -> Vec<u32> {
        self.entries.lock().unwrap()[rank] = own;
        self.barrier.wait();
        let all = self.entries.lock().unwrap().concat();
        self.barrier.wait();
        all
    }
}

/// The outputs of the devices, joined as one device would have them: tensors one behind the other,
/// parameters' gradients added up, statistics the same everywhere.
fn joined(parts: &[Outputs]) -> Outputs {
    // An empty shard has neither y nor dx.
    let whole = parts.iter().max_by_key(|part| part.len()).unwrap();
    let mut all: Outputs = whole.keys().map(|&name| (name, Vec::new())).collect();
    for (name, values) in &mut all {
        let mut others = parts.iter().filter_map(|part| part.get(name));
        if !["y", "grad_x"].contains(name) {
            values.clone_from(others.next().unwrap());
        }
        match *name {
            "y" | "grad_x" => others.for_each(|more| values.extend(more)),
            name if name.starts_with("grad_") => {
                for more in others {
                    values
                        .iter_mut()
                        .zip(more)
                        .for_each(|(sum, more)| *sum += more);
                }
            }
            _ => {
                for more in others {
                    assert!(
                        run::same_bits(values, more),
                        "{name} differs between devices"
                    );
                }
            }
        }
    }
    all
}

fn problems() -> Vec<(&'static str, Problem)> {
    let dims = [7, 6, 5, 9];
    let estimate = ChannelStats::Estimate { moving_speed: 0.4 };
    let random = |norm| Problem::random_of(norm, &dims, 3);
    vec![
        ("bc_norm", random(NormDesc::bc_norm(6, 2))),
        (
            "bc_norm, estimate",
            random(NormDesc::bc_norm(6, 2).with_stats(estimate)),
        ),
        ("batch_norm", random(NormDesc::batch_norm(6))),
        (
            "batch_norm, cumulative, last",
            random(NormDesc::batch_norm(6).with_momentum(None)).with_layout(Layout::ChannelsLast),
        ),
        (
            "batch_norm, f16",
            random(NormDesc::batch_norm(6)).with_dtype(DType::F16),
        ),
    ]
}

#[test]
fn devices_give_what_one_device_gives() {
    for (adapter, gpu) in adapters::gpus(DeviceLimits::Default) {
        let second = block_on(Gpu::on(gpu.adapter.clone(), DeviceLimits::Default)).unwrap();
        let gpus = [gpu, second].map(|gpu| {
            let pipelines = Pipelines::new(&gpu.device);
            (gpu, pipelines)
        });
        let mut worst = (0f32, String::new());
        for (what, problem) in problems() {
            let (gpu, pipelines) = &gpus[0];
            let single = run::gpu(gpu, pipelines, &problem).unwrap().outputs;
            let expected = run::expected(&problem);
            for sizes in [&[4, 3][..], &[1, 6], &[7, 0], &[0, 2, 0, 5], &[7]] {
                let parts = distributed(&gpus, &problem, sizes);
                for (name, values) in joined(&parts) {
                    let tensor = ["y", "grad_x"].contains(&name);
                    let dtype = if tensor { problem.dtype } else { DType::F32 };
                    let ulps = compare::units(&values, &single[name], expected[name].1, dtype);
                    // Statistics and sums: 2 units. Of a tensor each of the two results has, beside
                    // what the statistics leave, the roundings of two differences, products and sums:
                    // half a unit each, and not one of them alike, since pivots differ with the parts.
                    let most = if ["y", "grad_x"].contains(&name) {
                        3.0
                    } else {
                        2.0
                    };
                    assert!(
                        ulps <= most,
                        "{adapter}: {what} {sizes:?} {name}: {ulps} ulps"
                    );
                    if ulps > worst.0 {
                        worst = (ulps, format!("{what} {sizes:?} {name}"));
                    }
                }
            }
        }
        println!("{adapter}: at most {} units ({})", worst.0, worst.1);
    }
}

/// In eval, and without batch statistics, there is nothing to exchange.
#[test]
fn world_size_means_nothing_where_statistics_are_known() {
    let tuning = bcnorm::Tuning::SOFTWARE;
    let problem = Problem::random(&[2, 6, 3], 2, 1);
    let forward = ForwardOptions::default().with_world_size(NonZero::new(3));
    for (norm, mode) in [
        (NormDesc::bc_norm(6, 2), Mode::Eval),
        (NormDesc::group_norm(2, 6), Mode::Train),
    ] {
        let plan = Plan::forward(&norm, &problem.tensor(), mode, forward, &tuning).unwrap();
        assert_eq!(plan.all_gather_before(), None);
        let alone = ForwardOptions::default();
        let same = Plan::forward(&norm, &problem.tensor(), mode, alone, &tuning).unwrap();
        assert_eq!(plan, same);
    }
}

/// Forward from row moments that the caller computed: x is read once, and the result is the same.
#[test]
fn rows_from_elsewhere() {
    for (adapter, gpu) in adapters::gpus(DeviceLimits::Default) {
        let pipelines = Pipelines::new(&gpu.device);
        for layout in [Layout::ChannelsFirst, Layout::ChannelsLast] {
            for norm in [
                NormDesc::bc_norm(6, 3),
                NormDesc::batch_norm(6),
                NormDesc::layer_norm(6),
            ] {
                let problem = Problem::random_of(norm, &[3, 6, 35], 9).with_layout(layout);
                let tensor = problem.tensor();
                // A convolution's epilogue would make these; here, an f64 loop.
                let rows: Vec<Moments> = problem.x.chunks_exact(35).map(moments).collect();
                let forward = ForwardOptions::default().with_rows(RowSource::Given);
                let backward = BackwardOptions::default().with_rows(RowSource::Given);
                let tuning = pipelines.tuning();
                let mode = problem.mode;
                let plans = [
                    Plan::forward(&norm, &tensor, mode, forward, tuning).unwrap(),
                    Plan::backward(&norm, &tensor, mode, backward, tuning).unwrap(),
                ];
                assert_eq!(plans[0].tensor_bytes(), 2 * tensor.bytes());
                let bench = GpuProblem::new(&gpu, &problem, &plans);
                assert_eq!(bench.buffers[&Role::Rows].size(), 18 * 16);
                let bytes = bytemuck::cast_slice(&rows);
                gpu.queue
                    .write_buffer(&bench.buffers[&Role::Rows], 0, bytes);
                bench.run(&pipelines);
                let what = format!("{adapter}: {} {}", norm.kind.name(), layout.name());
                compare::assert_outputs(&what, &bench.outputs(), &run::expected(&problem), 1e-6);
            }
        }
    }
}

fn moments(values: &[f32]) -> Moments {
    let pivot = values[values.len() / 2];
    let count = values.len() as f64;
    let above = |value: &f32| f64::from(*value) - f64::from(pivot);
    let mean = values.iter().map(above).sum::<f64>() / count;
    let squares = values.iter().map(|value| (above(value) - mean).powi(2));
    let variance = squares.sum::<f64>() / count;
    Moments {
        count: values.len() as u32,
        pivot,
        offset: mean as f32,
        variance: variance as f32,
    }
}

/// Rows that are missing are asked for by name, before anything is recorded.
#[test]
fn missing_rows_are_named() {
    let gpu = adapters::first();
    let pipelines = Pipelines::new(&gpu.device);
    let problem = Problem::random(&[2, 4, 5], 2, 1);
    let options = ForwardOptions::default().with_rows(RowSource::Given);
    let tuning = pipelines.tuning();
    let plan = Plan::forward(
        &problem.norm,
        &problem.tensor(),
        problem.mode,
        options,
        tuning,
    );
    let prepared: PreparedPlan = pipelines.prepare(plan.unwrap()).unwrap();
    let x = transfer::upload(&gpu.device, "x", &problem.x).unwrap();
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    let error = prepared
        .encode(&mut encoder, &Bindings::new().with(Role::X, &x))
        .unwrap_err();
    assert!(error.to_string().contains("rows"), "{error}");
}
