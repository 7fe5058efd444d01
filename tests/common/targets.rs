//! Where a problem can run: every adapter, and the CPU executor.

use super::adapters;
use super::problem::Problem;
use super::run::{self, Outputs};
use bcnorm::Tuning;
use bcnorm::cpu::Executor;
use bcnorm::gpu::Pipelines;
use bcnorm::gpu::headless::{DeviceLimits, Gpu};
use bcnorm::tuning::AdapterClass;

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

/// The adapter for large tensors: a real GPU if there is one, then llvmpipe on Vulkan (several
/// times faster than the other software adapters), then what there is.
pub fn fastest(limits: DeviceLimits) -> Target {
    let mut all = adapters::all();
    let real = |a: &wgpu::Adapter| Tuning::for_adapter(&a.get_info()).class == AdapterClass::Gpu;
    let index = all
        .iter()
        .position(|(_, adapter)| real(adapter))
        .or_else(|| all.iter().position(|(name, _)| name == "llvmpipe-vulkan"))
        .unwrap_or(0);
    let (name, adapter) = all.swap_remove(index);
    let gpu = pollster::block_on(Gpu::on(adapter, limits));
    Target::gpu(&name, gpu.unwrap_or_else(|e| panic!("{name}: {e}")), None)
}
