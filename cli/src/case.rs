//! Problems on a device: what wgpu or the driver object to comes back as an error, and so does a value
//! that no kernel wrote.

use crate::bench::timing::Candidate;
use crate::device::guarded;
use anyhow::Result;
use bcnorm::gpu::headless::Gpu;
use bcnorm::gpu::{BoundPlan, Pipelines};
use bcnorm::kernels::Access;
use bcnorm::{Plan, Role, cpu};
pub use bcnorm_testkit::problem::Problem;
use bcnorm_testkit::run::{self, GpuProblem};
pub use bcnorm_testkit::run::{Expected, Run};
use std::collections::BTreeMap;

/// Runs a problem on a GPU. What the driver or wgpu object to, a lost device included, comes back as
/// an error; so does a value that no kernel wrote.
pub fn run_on_gpu(problem: &Problem, gpu: &Gpu, pipelines: &Pipelines) -> Result<Run> {
    guarded(gpu, || Ok(run::gpu(gpu, pipelines, problem)?))
}

pub fn run_on_cpu(problem: &Problem, executor: &cpu::Executor) -> Result<Run> {
    Ok(run::cpu(executor, problem)?)
}

/// A problem made ready on a device: its plans, forward and, where it is computed, backward.
pub struct Plans<'a> {
    pub data: GpuProblem<'a>,
    pub bound: Vec<BoundPlan>,
}

impl<'a> Plans<'a> {
    pub fn new(gpu: &'a Gpu, pipelines: &Pipelines, problem: &Problem) -> Result<Self> {
        let data = run::upload(gpu, pipelines, problem)?;
        let (prepared, bindings) = (data.prepare(pipelines)?, data.bindings());
        let bound = prepared.iter().map(|plan| plan.bind(&bindings));
        let bound = bound.collect::<Result<_, _>>()?;
        Ok(Self { data, bound })
    }

    pub fn run_once(&self, gpu: &Gpu) {
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        self.bound.iter().for_each(|plan| plan.encode(&mut encoder));
        gpu.queue.submit([encoder.finish()]);
    }

    /// Sets what the plans write to 0, but for the state that they update.
    pub fn wipe(&self, gpu: &Gpu) {
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        let needs = self.data.plans.iter().flat_map(Plan::needs);
        for need in needs.filter(|need| need.access == Access::ReadWrite) {
            use Role::{NumBatchesTracked, RunningMean, RunningVar};
            let is_state = matches!(need.role, RunningMean | RunningVar | NumBatchesTracked);
            if let (false, Some(buffer)) = (is_state, self.data.buffers.get(&need.role)) {
                encoder.clear_buffer(buffer, 0, None);
            }
        }
        gpu.queue.submit([encoder.finish()]);
    }

    pub fn candidate(&self, plan: usize) -> Candidate<'_> {
        let steps = self.data.plans[plan].steps().len();
        Candidate::new(steps, move |pass| self.bound[plan].encode(pass))
    }

    pub fn step_candidates(&self, plan: usize) -> impl Iterator<Item = Candidate<'_>> {
        let steps = 0..self.data.plans[plan].steps().len();
        let step = move |i| Candidate::new(1, move |pass| self.bound[plan].encode_step(pass, i));
        steps.map(step)
    }
}

/// The error of every output against the oracle, by golden name: largest |got - expected| / scale,
/// as `tests/golden/README.md` of the library defines it. Infinite where a value is NaN or infinite
/// and should not be, and of an output that did not come out or was not expected.
pub fn errors(run: &Run, expected: &Expected) -> BTreeMap<&'static str, f64> {
    let names = run.outputs.keys().chain(expected.keys());
    let error = |name| match (run.outputs.get(name), expected.get(name)) {
        (Some(got), Some((values, scale))) => bcnorm_testkit::oracle::error(got, values, *scale),
        _ => f64::INFINITY,
    };
    names.map(|&name| (name, error(name))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bcnorm::gpu::headless::DeviceLimits;

    fn problem() -> Problem {
        Problem::random(&[2, 4, 3], 2, 1)
    }

    /// A device; `cargo xtask test` makes sure that there is one.
    fn device() -> Option<Gpu> {
        let gpu = pollster::block_on(Gpu::new(DeviceLimits::Default)).ok();
        if gpu.is_none() {
            eprintln!("skipped: no GPU adapter");
        }
        gpu
    }

    #[test]
    fn every_wrong_output_shows() {
        let problem = problem();
        let expected = run::expected(&problem);
        let good = run_on_cpu(&problem, &cpu::Executor::new()).unwrap();
        assert!(errors(&good, &expected).values().all(|error| *error < 1e-6));
        for &name in good.outputs.keys() {
            for wrong in [f32::NAN, f32::INFINITY, 1e3] {
                let mut run = good.clone();
                run.outputs.get_mut(name).unwrap()[1] = wrong;
                let errors = errors(&run, &expected);
                assert!(errors[name] > 1e-3, "{name} = {wrong}: {errors:?}");
                assert_eq!(errors.values().filter(|e| **e > 1e-3).count(), 1);
            }
            let mut run = good.clone();
            run.outputs.remove(name);
            assert_eq!(errors(&run, &expected)[name], f64::INFINITY);
            let mut less = expected.clone();
            less.remove(name);
            assert_eq!(errors(&good, &less)[name], f64::INFINITY);
        }
    }

    #[test]
    fn a_lost_device_is_an_error_and_no_panic() {
        let Some(gpu) = device() else { return };
        let pipelines = Pipelines::new(&gpu.device);
        run_on_gpu(&problem(), &gpu, &pipelines).unwrap();
        gpu.device.destroy();
        run_on_gpu(&problem(), &gpu, &pipelines).unwrap_err();
        run_on_gpu(&problem(), &gpu, &Pipelines::new(&gpu.device)).unwrap_err();
    }

    #[test]
    fn what_wgpu_objects_to_is_an_error_and_no_panic() {
        let Some(gpu) = device() else { return };
        let result = guarded(&gpu, || {
            let _ = gpu.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("too large"),
                size: u64::MAX / 8 * 4,
                usage: wgpu::BufferUsages::STORAGE,
                mapped_at_creation: false,
            });
            Ok(())
        });
        assert!(result.unwrap_err().to_string().contains("refused"));
    }
}
