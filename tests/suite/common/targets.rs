//! Where a problem can run: every adapter, and the CPU executor.

use super::adapters;
use super::problem::Problem;
use super::run::{self, Outputs};
use bcnorm::cpu::Executor;
use bcnorm::gpu::Pipelines;
use bcnorm::gpu::headless::{DeviceLimits, Gpu};
use bcnorm::tuning::AdapterClass;
use bcnorm::{BackwardOptions, Error, Tuning};

/// An executor of plans.
pub struct Target {
    pub name: String,
    pub device: Option<(Gpu, Pipelines)>,
    executor: Executor,
}

impl Target {
    pub fn gpu(name: &str, gpu: Gpu, tuning: Option<Tuning>) -> Self {
        let pipelines = match tuning {
            Some(tuning) => Pipelines::with_tuning(&gpu.device, tuning),
            None => Pipelines::new(&gpu.device),
        };
        Self {
            name: name.into(),
            device: Some((gpu, pipelines)),
            executor: Executor::new(),
        }
    }

    pub fn cpu() -> Self {
        Self {
            name: "cpu".into(),
            device: None,
            executor: Executor::new(),
        }
    }

    /// Forward and backward, everything poisoned beforehand.
    pub fn run(&self, problem: &Problem) -> Outputs {
        match &self.device {
            Some((gpu, pipelines)) => run::on_gpu(gpu, pipelines, problem),
            None => run::on_cpu(&self.executor, problem),
        }
    }

    /// The error with which it refuses to prepare the problem, if it does.
    pub fn refuses(&self, problem: &Problem) -> Option<Error> {
        let (_, pipelines) = self.device.as_ref()?;
        let plans = run::plans(problem, BackwardOptions::default(), pipelines.tuning()).unwrap();
        let mut refusals = plans
            .into_iter()
            .filter_map(|plan| pipelines.prepare(plan).err());
        refusals.next()
    }

    pub fn tuning(&self) -> Tuning {
        match &self.device {
            Some((_, pipelines)) => *pipelines.tuning(),
            None => self.executor.tuning(),
        }
    }
}

/// Every adapter with WebGPU's default limits, and the CPU executor.
pub fn all() -> Vec<Target> {
    with_limits(DeviceLimits::Default)
}

/// Every adapter with these limits, and the CPU executor.
pub fn with_limits(limits: DeviceLimits) -> Vec<Target> {
    let gpus = adapters::gpus(limits).into_iter();
    gpus.map(|(name, gpu)| Target::gpu(&name, gpu, None))
        .chain([Target::cpu()])
        .collect()
}

/// Every adapter with a tuning of the test's.
pub fn with_tuning(tuning: Tuning) -> Vec<Target> {
    let gpus = adapters::gpus(DeviceLimits::Default).into_iter();
    gpus.map(|(name, gpu)| Target::gpu(&name, gpu, Some(tuning)))
        .collect()
}

/// Every adapter, for large tensors: a real GPU first, then llvmpipe on Vulkan (several times faster
/// than the other software adapters), then what there is.
pub fn by_speed(limits: DeviceLimits) -> Vec<Target> {
    let mut gpus = adapters::gpus(limits);
    gpus.sort_by_key(|(name, gpu)| match Tuning::for_device(&gpu.device).class {
        AdapterClass::Gpu => 0,
        _ if name == "llvmpipe-vulkan" => 1,
        _ => 2,
    });
    let gpus = gpus.into_iter();
    gpus.map(|(name, gpu)| Target::gpu(&name, gpu, None))
        .collect()
}

/// The first of [`by_speed`].
pub fn fastest(limits: DeviceLimits) -> Target {
    by_speed(limits).swap_remove(0)
}
