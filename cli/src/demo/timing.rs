//! How long forward and backward take: medians of several rounds.

use super::engine::Engine;
use crate::case::Problem;
use crate::device::guarded;
use anyhow::{Context as _, Result};
use bcnorm::gpu::headless::Gpu;
use bcnorm::gpu::transfer::{read, zeros};
use bcnorm::gpu::{Bindings, Pipelines, Prepared};
use bcnorm::role::RoleKind;
use bcnorm::{Plan, Role, cpu};
use bcnorm_testkit::run::host_buffers;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
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

/// Measures a case with a `grad_y`.
pub fn measure(case: &Problem, engine: &Engine) -> Result<Times> {
    match engine {
        Engine::Gpu { gpu, pipelines } => guarded(gpu, || measure_gpu(case, gpu, pipelines)),
        Engine::Cpu(executor) => measure_cpu(case, executor),
    }
}

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
    let mut rounds = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        rounds.push(timed(repeats)?);
    }
    rounds.sort_unstable();
    Ok(rounds[ROUNDS / 2].as_secs_f64() * 1e3)
}

fn measure_cpu(case: &Problem, executor: &cpu::Executor) -> Result<Times> {
    let (forward, backward) = plans(case, &executor.tuning())?;
    let plans = [forward, backward];
    let mut buffers = host_buffers(case, &plans);
    let [forward, backward] = &plans;
    let mut run = |plans: &[&Plan]| {
        median_ms(|repeats| {
            for plan in (0..repeats).flat_map(|_| plans) {
                executor.run(plan, &mut buffers)?;
            }
            Ok(())
        })
    };
    Ok(Times {
        forward: time(run(&[forward])?, &[forward]),
        backward: time(run(&[backward])?, &[backward]),
        whole: time(run(&[forward, backward])?, &[forward, backward]),
    })
}

fn measure_gpu(case: &Problem, gpu: &Gpu, pipelines: &Pipelines) -> Result<Times> {
    let (forward, backward) = plans(case, pipelines.tuning())?;
    let (forward, backward) = (pipelines.prepare(forward)?, pipelines.prepare(backward)?);
    let buffers = Buffers::new(case, gpu, &forward, &backward)?;
    let (grad_y, len) = (&case.grad_y[..], case.x.len());
    let run = |prepared: &Prepared| {
        let bound = prepared.bind(&buffers.bindings)?;
        median_ms(|repeats| {
            let mut encoder = gpu.device.create_command_encoder(&Default::default());
            (0..repeats).for_each(|_| bound.encode(&mut encoder));
            let submission = gpu.queue.submit([encoder.finish()]);
            gpu.device.poll(wgpu::PollType::Wait {
                submission_index: Some(submission),
                timeout: None,
            })?;
            Ok(())
        })
    };
    let submit = |prepared: &Prepared| -> Result<()> {
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        prepared.encode(&mut encoder, &buffers.bindings)?;
        gpu.queue.submit([encoder.finish()]);
        Ok(())
    };
    let whole = || {
        median_ms(|repeats| {
            for _ in 0..repeats {
                buffers.write(gpu, Role::X, &case.x)?;
                submit(&forward)?;
                buffers.read(gpu, Role::Y, len)?;
                buffers.write(gpu, Role::GradY, grad_y)?;
                submit(&backward)?;
                buffers.read(gpu, Role::GradX, len)?;
            }
            Ok(())
        })
    };
    let plans = [forward.plan(), backward.plan()];
    Ok(Times {
        forward: time(run(&forward)?, &plans[..1]),
        backward: time(run(&backward)?, &plans[1..]),
        whole: time(whole()?, &plans),
    })
}

fn plans(case: &Problem, tuning: &bcnorm::Tuning) -> Result<(Plan, Plan)> {
    let (forward, backward) = case.plans(tuning)?;
    Ok((
        forward,
        backward.context("there is no gradient to measure")?,
    ))
}

fn time(ms: f64, plans: &[&Plan]) -> Time {
    Time {
        ms,
        bytes: plans.iter().map(|plan| plan.tensor_bytes()).sum(),
    }
}

/// The buffers of both plans.
struct Buffers {
    buffers: BTreeMap<Role, wgpu::Buffer>,
    bindings: Bindings,
}

impl Buffers {
    fn new(case: &Problem, gpu: &Gpu, forward: &Prepared, backward: &Prepared) -> Result<Self> {
        let tables = backward.create_tables(Some(&forward.create_tables(None)?))?;
        let mut buffers = BTreeMap::new();
        for plan in [forward.plan(), backward.plan()] {
            for need in plan.needs_of(RoleKind::Caller) {
                if let Entry::Vacant(entry) = buffers.entry(need.role) {
                    entry.insert(zeros(&gpu.device, need.role.name(), need.bytes / 4)?);
                }
            }
        }
        let bindings = Bindings::new().with_tables(&tables);
        let bindings = buffers.iter().fold(bindings, |bindings, (&role, buffer)| {
            bindings.with(role, buffer)
        });
        let all = Self { buffers, bindings };
        for (role, values) in case.inputs() {
            all.write(gpu, role, values)?;
        }
        Ok(all)
    }

    fn get(&self, role: Role) -> Result<&wgpu::Buffer> {
        let buffer = self.buffers.get(&role);
        buffer.with_context(|| format!("the plans have no {role}"))
    }

    fn write(&self, gpu: &Gpu, role: Role, values: &[f32]) -> Result<()> {
        let bytes = bytemuck::cast_slice(values);
        gpu.queue.write_buffer(self.get(role)?, 0, bytes);
        Ok(())
    }

    fn read(&self, gpu: &Gpu, role: Role, len: usize) -> Result<()> {
        let buffer = self.get(role)?;
        pollster::block_on(read::<f32>(&gpu.device, &gpu.queue, buffer, 0, len))?;
        Ok(())
    }
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
        let time = Time {
            ms: 2.0,
            bytes: 6_000_000,
        };
        assert!((time.gigabytes_per_second() - 3.0).abs() < 1e-12);
    }
}
