//! How long forward and backward take, as the benchmark measures that.

use crate::bench::clock::Clock;
use crate::bench::timing::{self, Candidate, Effort, measure_on_cpu};
use crate::case::{Plans, Problem};
use crate::device::{Engine, guarded};
use anyhow::{Context as _, Result};
use bcnorm::gpu::transfer::read;
use bcnorm::gpu::{BoundPlan, PreparedPlan};
use bcnorm::{Plan, Role};
use bcnorm_testkit::run::host_buffers;
use indicatif::ProgressBar;
use std::time::Duration;

/// A measurement.
#[derive(Debug, Clone, Copy)]
pub struct Time {
    /// Median duration in milliseconds.
    pub ms: f64,
    /// Bytes of tensor-sized data that a kernel reads or writes meanwhile.
    pub bytes: u64,
}

impl Time {
    fn new(ms: f64, plans: &[&Plan]) -> Self {
        let bytes = plans.iter().map(|plan| plan.tensor_bytes()).sum();
        Self { ms, bytes }
    }

    /// Bytes over time.
    pub fn gigabytes_per_second(self) -> f64 {
        self.bytes as f64 / self.ms / 1e6
    }
}

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// x to y.
    pub forward: Time,
    /// dy to dx and the parameters' gradients.
    pub backward: Time,
    /// Both, and on a GPU the way of x and dy there and of y and dx back.
    pub whole: Time,
}

/// Submissions of which the median is taken.
const EFFORT: Effort = Effort {
    submission: Duration::from_millis(80),
    rounds: 5,
};

/// Measures a case with a `grad_y`.
pub fn measure(case: &Problem, engine: &Engine) -> Result<Times> {
    const NO_GRADIENT: &str = "there is no gradient to measure";
    let (gpu, pipelines) = match engine {
        Engine::Gpu(gpu, pipelines) => (gpu, pipelines),
        Engine::Cpu(executor) => {
            let (forward, backward) = case.plans(&executor.tuning())?;
            let plans = [forward, backward.context(NO_GRADIENT)?];
            let mut buffers = host_buffers(case, &plans);
            let mut run = |plans: &[&Plan]| {
                let all = || {
                    plans
                        .iter()
                        .try_for_each(|plan| Ok(executor.run(plan, &mut buffers)?))
                };
                Ok::<_, anyhow::Error>(Time::new(measure_on_cpu(all)?, plans))
            };
            let [forward, backward] = &plans;
            return Ok(Times {
                forward: run(&[forward])?,
                backward: run(&[backward])?,
                whole: run(&[forward, backward])?,
            });
        }
    };
    guarded(gpu, || {
        let Plans {
            forward,
            backward,
            bench,
        } = Plans::new(gpu, pipelines, case)?;
        let backward = backward.context(NO_GRADIENT)?;
        let bindings = bench.bindings();
        // There, through the kernels, and back.
        let way = |from: Role, values: &[f32], prepared: &PreparedPlan, to: Role| -> Result<()> {
            let bytes = bytemuck::cast_slice(values);
            gpu.queue.write_buffer(&bench.buffers[&from], 0, bytes);
            let mut encoder = gpu.device.create_command_encoder(&Default::default());
            prepared.encode(&mut encoder, &bindings)?;
            gpu.queue.submit([encoder.finish()]);
            let to = &bench.buffers[&to];
            pollster::block_on(read::<f32>(&gpu.device, &gpu.queue, to, 0, values.len()))?;
            Ok(())
        };
        let whole = measure_on_cpu(|| {
            way(Role::X, &case.x, &forward, Role::Y)?;
            way(Role::GradY, &case.grad_y, &backward, Role::GradX)
        })?;
        let plans = [forward.plan(), backward.plan()];
        let bound = [forward.bind(&bindings)?, backward.bind(&bindings)?];
        let candidate = |(bound, plan): (_, &&Plan)| {
            let bound: &BoundPlan = bound;
            Candidate::new(plan.steps().len(), |pass| bound.encode_in_pass(pass))
        };
        let mut candidates: Vec<Candidate> = bound.iter().zip(&plans).map(candidate).collect();
        timing::measure(
            gpu,
            &Clock::Wall,
            &mut candidates,
            EFFORT,
            &ProgressBar::hidden(),
        )?;
        Ok(Times {
            forward: Time::new(candidates[0].median_ms(), &plans[..1]),
            backward: Time::new(candidates[1].median_ms(), &plans[1..]),
            whole: Time::new(whole, &plans),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_bytes_over_time() {
        let (ms, bytes) = (2.0, 6_000_000);
        assert!((Time { ms, bytes }.gigabytes_per_second() - 3.0).abs() < 1e-12);
    }
}
