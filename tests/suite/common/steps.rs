//! Several calls in a row: what each leaves in the running statistics, the next one finds.

use super::problem::Problem;
use super::run::{self, GpuProblem, Outputs};
use super::targets::Target;
use bcnorm::cpu::{Buffers, Executor};
use bcnorm::gpu::transfer;
use bcnorm::{BackwardOptions, Role};
use pollster::block_on;

const STATE: [Role; 3] = [Role::RunningMean, Role::RunningVar, Role::NumBatchesTracked];

/// The outputs of every call, and num_batches_tracked after it. The state comes from the first
/// problem; that of the others is ignored.
pub fn run_steps(target: &Target, problems: &[Problem]) -> Vec<(Outputs, u32)> {
    match &target.device {
        Some((gpu, pipelines)) => {
            let mut state: Option<GpuProblem> = None;
            let step = |problem: &Problem| {
                let options = BackwardOptions::default();
                let plans = run::plans(problem, options, pipelines.tuning()).unwrap();
                let mut bench = GpuProblem::new(gpu, problem, &plans);
                if let Some(before) = &state {
                    for role in STATE {
                        bench.buffers.insert(role, before.buffers[&role].clone());
                    }
                }
                bench.run(pipelines);
                let count = &bench.buffers[&Role::NumBatchesTracked];
                let count = transfer::read(&gpu.device, &gpu.queue, count, 0, 1);
                let result = (bench.outputs(), block_on(count).unwrap()[0]);
                state = Some(bench);
                result
            };
            problems.iter().map(step).collect()
        }
        None => {
            let executor = Executor::new();
            let mut state: Option<Buffers> = None;
            let step = |problem: &Problem| {
                let options = BackwardOptions::default();
                let plans = run::plans(problem, options, &executor.tuning()).unwrap();
                let mut buffers = run::host_buffers(problem, &plans);
                if let Some(before) = &state {
                    for role in STATE {
                        buffers.set_u32(role, before.get_u32(role).unwrap().to_vec());
                    }
                }
                for plan in &plans {
                    executor.run(plan, &mut buffers).unwrap();
                }
                let count = buffers.get_u32(Role::NumBatchesTracked).unwrap()[0];
                let result = (run::host_outputs(problem, &plans, &buffers), count);
                state = Some(buffers);
                result
            };
            problems.iter().map(step).collect()
        }
    }
}
