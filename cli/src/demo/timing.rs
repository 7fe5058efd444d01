//! How long forward and backward take: medians of several rounds.

use crate::case::{Plans, Problem};
use crate::device::{Engine, guarded};
use anyhow::{Context as _, Result};
use bcnorm::gpu::Prepared;
use bcnorm::gpu::transfer::read;
use bcnorm::{Plan, Role};
use bcnorm_cases::run::host_buffers;
use std::time::{Duration, Instant};

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

/// Rounds of which the median is taken.
const ROUNDS: usize = 5;
/// How long a round should last.
const ROUND: Duration = Duration::from_millis(80);
/// Most repeats in a submission: drivers end what runs for seconds.
const MAX_REPEATS: u32 = 100;

/// The median time of a run in milliseconds. `work` is called with the number of runs it shall do.
fn median_ms(mut work: impl FnMut(u32) -> Result<()>) -> Result<f64> {
    let mut timed = |repeats: u32| -> Result<Duration> {
        let start = Instant::now();
        work(repeats)?;
        Ok(start.elapsed() / repeats)
    };
    // The first run warms caches, the second says how many make a round.
    timed(1)?;
    let once = timed(1)?.max(Duration::from_micros(1));
    let repeats = (ROUND.as_secs_f64() / once.as_secs_f64()).ceil() as u32;
    let repeats = repeats.clamp(1, MAX_REPEATS);
    let rounds = (0..ROUNDS).map(|_| timed(repeats));
    let mut rounds = rounds.collect::<Result<Vec<Duration>>>()?;
    rounds.sort_unstable();
    Ok(rounds[ROUNDS / 2].as_secs_f64() * 1e3)
}

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
                let ms = median_ms(|repeats| {
                    for plan in (0..repeats).flat_map(|_| plans) {
                        executor.run(plan, &mut buffers)?;
                    }
                    Ok(())
                });
                Ok::<_, anyhow::Error>(Time::new(ms?, plans))
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
        let run = |prepared: &Prepared| {
            let bound = prepared.bind(&bindings)?;
            let ms = median_ms(|repeats| {
                let mut encoder = gpu.device.create_command_encoder(&Default::default());
                (0..repeats).for_each(|_| bound.encode(&mut encoder));
                let submission_index = Some(gpu.queue.submit([encoder.finish()]));
                let timeout = None;
                gpu.device.poll(wgpu::PollType::Wait {
                    submission_index,
                    timeout,
                })?;
                Ok(())
            });
            Ok::<_, anyhow::Error>(Time::new(ms?, &[prepared.plan()]))
        };
        // There, through the kernels, and back.
        let way = |from: Role, values: &[f32], prepared: &Prepared, to: Role| -> Result<()> {
            let bytes = bytemuck::cast_slice(values);
            gpu.queue.write_buffer(&bench.buffers[&from], 0, bytes);
            let mut encoder = gpu.device.create_command_encoder(&Default::default());
            prepared.encode(&mut encoder, &bindings)?;
            gpu.queue.submit([encoder.finish()]);
            let to = &bench.buffers[&to];
            pollster::block_on(read::<f32>(&gpu.device, &gpu.queue, to, 0, values.len()))?;
            Ok(())
        };
        let whole = median_ms(|repeats| {
            for _ in 0..repeats {
                way(Role::X, &case.x, &forward, Role::Y)?;
                way(Role::GradY, &case.grad_y, &backward, Role::GradX)?;
            }
            Ok(())
        })?;
        Ok(Times {
            forward: run(&forward)?,
            backward: run(&backward)?,
            whole: Time::new(whole, &[forward.plan(), backward.plan()]),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_that_of_one_run() {
        let mut calls = Vec::new();
        let ms = median_ms(|repeats| {
            calls.push(repeats);
            std::thread::sleep(Duration::from_millis(4) * repeats);
            Ok(())
        });
        // Sleep may take longer, never less; a whole round takes 80.
        assert!((4.0..60.0).contains(&ms.unwrap()));
        assert_eq!(calls.len(), 2 + ROUNDS);
    }

    #[test]
    fn the_rate_is_bytes_over_time() {
        let (ms, bytes) = (2.0, 6_000_000);
        assert!((Time { ms, bytes }.gigabytes_per_second() - 3.0).abs() < 1e-12);
    }
}
