//! The CPU executor on one thread and on all, at (8, 64, 56, 56): training forward, backward.
#![allow(missing_docs)]

use bcnorm::cpu::Executor;
use bcnorm::{NormDesc, Plan};
use bcnorm_testkit::problem::Problem;
use bcnorm_testkit::random::Random;
use bcnorm_testkit::run::host_buffers;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::time::Duration;

const DIMS: [usize; 4] = [8, 64, 56, 56];

fn cpu(criterion: &mut Criterion) {
    let elements = DIMS.iter().product();
    let mut random = Random::new(1);
    let mut values = || -> Vec<f32> { (0..elements).map(|_| random.uniform()).collect() };
    let problem = Problem::new(NormDesc::bc_norm(DIMS[1], 32), &DIMS, values());
    let problem = problem.with_grad_y(values());
    let mut group = criterion.benchmark_group("cpu");
    for (threads, executor) in [("1", Executor::with_threads(1)), ("all", Executor::new())] {
        let tuning = executor.tuning();
        let forward = problem.forward_plan(Default::default(), &tuning);
        let backward = problem.backward_plan(Default::default(), &tuning);
        let plans: Vec<Plan> = [forward, backward].into_iter().flatten().collect();
        let mut buffers = host_buffers(&problem, &plans);
        // Backward reads what forward leaves.
        executor.run(&plans[0], &mut buffers).expect("runs");
        for (name, plan) in ["forward", "backward"].into_iter().zip(&plans) {
            group.throughput(Throughput::Bytes(plan.tensor_bytes()));
            group.bench_function(
                BenchmarkId::new(name, format!("threads {threads}")),
                |bencher| {
                    bencher.iter(|| executor.run(plan, &mut buffers));
                },
            );
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20);
    targets = cpu
}
criterion_main!(benches);
