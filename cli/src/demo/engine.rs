//! What runs the norm: a GPU, or the library's CPU executor.

use super::photos::Room;
use crate::case::{Problem, Run, run_on_cpu, run_on_gpu};
use crate::device;
use anyhow::Result;
use bcnorm::desc::MAX_ELEMENTS;
use bcnorm::gpu::Pipelines;
use bcnorm::gpu::headless::Gpu;
use bcnorm::tuning::AdapterClass;
use bcnorm::{Tuning, cpu};

/// A GPU or the CPU executor.
pub enum Engine {
    /// A device, with its kernels.
    Gpu {
        /// The device.
        gpu: Box<Gpu>,
        /// Its kernels.
        pipelines: Pipelines,
    },
    /// The CPU executor.
    Cpu(cpu::Executor),
}

impl Engine {
    /// The CPU executor, or the best adapter that `adapter` is part of the name of.
    pub fn open(adapter: Option<&str>, cpu: bool) -> Result<Self> {
        if cpu || adapter.is_some_and(|name| name.eq_ignore_ascii_case("cpu")) {
            return Ok(Self::Cpu(cpu::Executor::new()));
        }
        let gpu = device::open_best(adapter)?;
        Ok(Self::Gpu {
            pipelines: Pipelines::new(&gpu.device),
            gpu: Box::new(gpu),
        })
    }

    /// Its name, backend and kind.
    pub fn describe(&self) -> String {
        match self {
            Self::Gpu { gpu, .. } => gpu.describe(),
            Self::Cpu(_) => "the library's CPU executor".into(),
        }
    }

    /// Name and backend.
    pub fn names(&self) -> (String, String) {
        match self {
            Self::Gpu { gpu, .. } => {
                let info = gpu.adapter.get_info();
                (info.name, info.backend.to_string())
            }
            Self::Cpu(_) => ("cpu".into(), "cpu".into()),
        }
    }

    /// Whether it is an adapter that is software.
    pub fn is_software_adapter(&self) -> bool {
        match self {
            Self::Gpu { gpu, .. } => {
                Tuning::for_adapter(&gpu.adapter.get_info()).class == AdapterClass::Software
            }
            Self::Cpu(_) => false,
        }
    }

    /// Bytes that a tensor may have on it.
    pub fn room(&self, bytes_per_pixel: u64) -> Room {
        let kernels = 4 * MAX_ELEMENTS;
        let bytes = match self {
            Self::Gpu { gpu, .. } => {
                let limits = gpu.device.limits();
                let binding = limits.max_storage_buffer_binding_size;
                kernels.min(binding).min(limits.max_buffer_size)
            }
            Self::Cpu(_) => kernels,
        };
        Room {
            bytes,
            owner: self.describe(),
            bytes_per_pixel,
        }
    }

    /// Runs a case.
    pub fn run(&self, case: &Problem) -> Result<Run> {
        match self {
            Self::Gpu { gpu, pipelines } => run_on_gpu(case, gpu, pipelines),
            Self::Cpu(executor) => run_on_cpu(case, executor),
        }
    }
}
