//! Adapters by name, what runs plans on them, and GPU work whose failures come back as errors.

use crate::case::{Problem, Run, run_on_cpu, run_on_gpu};
use anyhow::{Context as _, Result, bail, ensure};
use bcnorm::gpu::Pipelines;
use bcnorm::gpu::headless::{DeviceLimits, Gpu, adapters, describe};
use bcnorm::tuning::AdapterClass;
use bcnorm::{Tuning, cpu};

/// Runs GPU work so that whatever wgpu or the driver objects to comes back as an error instead of
/// a panic.
pub fn guarded<T>(gpu: &Gpu, work: impl FnOnce() -> Result<T>) -> Result<T> {
    use wgpu::ErrorFilter::{Internal, OutOfMemory, Validation};
    let filters = [Internal, OutOfMemory, Validation];
    let scopes = filters.map(|filter| gpu.device.push_error_scope(filter));
    let result = work();
    // The innermost first.
    let scopes = scopes.into_iter().rev();
    let caught = scopes.map(|scope| pollster::block_on(scope.pop()));
    // All of them are popped, whatever the first one caught.
    match caught.collect::<Vec<_>>().into_iter().flatten().next() {
        None => result,
        // What wgpu caught came first; what the work says of it is a consequence.
        Some(wgpu::Error::OutOfMemory { .. }) => {
            bail!("{} is out of memory: use a smaller batch", gpu.describe())
        }
        Some(error) => bail!("{} refused: {error}", gpu.describe()),
    }
}

/// The adapters that `name` stands for: `all`, `best` (the first that gives a device), or those whose name,
/// backend or description contains it (in any case). The best first.
pub fn select(name: &str) -> Result<Vec<wgpu::Adapter>> {
    let all = pollster::block_on(adapters());
    if let (true, Some(backend)) = (all.is_empty(), std::env::var_os("WGPU_BACKEND")) {
        bail!(
            "no GPU adapter found with WGPU_BACKEND={}",
            backend.display()
        );
    }
    ensure!(
        !all.is_empty(),
        "no GPU adapter found: install a Vulkan driver (on Debian: mesa-vulkan-drivers, a software \
         one)"
    );
    if name.eq_ignore_ascii_case("all") {
        return Ok(all);
    }
    if name.eq_ignore_ascii_case("best") {
        let works = |adapter: &wgpu::Adapter| open(adapter.clone()).is_ok();
        let best = all.iter().position(works).unwrap_or(0);
        return Ok(vec![all[best].clone()]);
    }
    let wanted = name.to_lowercase();
    let (found, others): (Vec<_>, Vec<_>) = all
        .into_iter()
        .partition(|adapter| describe(adapter).to_lowercase().contains(&wanted));
    if found.is_empty() {
        let list: String = others
            .iter()
            .map(|other| format!("\n  {}", describe(other)))
            .collect();
        bail!("no adapter's name or backend contains \"{name}\"; there are:{list}");
    }
    Ok(found)
}

/// A device on an adapter, with all of the adapter's limits.
pub fn open(adapter: wgpu::Adapter) -> Result<Gpu> {
    Ok(pollster::block_on(Gpu::on(adapter, DeviceLimits::Adapter))?)
}

/// A device on the best adapter that `name` stands for; on the best of all without a name.
pub fn open_best(name: Option<&str>) -> Result<Gpu> {
    let mut failure = None;
    for adapter in select(name.unwrap_or("all"))? {
        match open(adapter) {
            Ok(gpu) => return Ok(gpu),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    Err(failure.context("no adapter")?)
}

/// What plans for a device are made with, once it was looked at.
pub fn tuning(gpu: &Gpu) -> Result<Tuning> {
    Ok(pollster::block_on(Tuning::probed(&gpu.device, &gpu.queue))?)
}

/// What runs plans.
pub enum Engine {
    /// A device, with its kernels.
    Gpu(Box<Gpu>, Pipelines),
    /// The library's CPU executor.
    Cpu(cpu::Executor),
}

impl Engine {
    /// The CPU executor where `name` is "cpu", else the best adapter that it stands for.
    pub fn open(name: Option<&str>) -> Result<Self> {
        match name.is_some_and(is_cpu) {
            true => Ok(Self::Cpu(cpu::Executor::new())),
            false => Self::on(open_best(name)?),
        }
    }

    pub fn on(gpu: Gpu) -> Result<Self> {
        let pipelines = Pipelines::with_tuning(&gpu.device, tuning(&gpu)?);
        Ok(Self::Gpu(Box::new(gpu), pipelines))
    }

    pub fn run(&self, problem: &Problem) -> Result<Run> {
        match self {
            Self::Gpu(gpu, pipelines) => run_on_gpu(problem, gpu, pipelines),
            Self::Cpu(executor) => run_on_cpu(problem, executor),
        }
    }

    /// What its plans are made with.
    pub fn tuning(&self) -> Tuning {
        match self {
            Self::Gpu(_, pipelines) => *pipelines.tuning(),
            Self::Cpu(executor) => executor.tuning(),
        }
    }

    /// Its name, for people: of an adapter also backend and kind.
    pub fn describe(&self) -> String {
        match self {
            Self::Gpu(gpu, _) => gpu.describe(),
            Self::Cpu(_) => "CPU executor".to_owned(),
        }
    }

    /// Whether it is an adapter that is software.
    pub fn is_software_adapter(&self) -> bool {
        matches!(self, Self::Gpu(gpu, _) if is_software(&gpu.adapter.get_info()))
    }

    /// Bytes that a tensor may have on it.
    pub fn largest_binding(&self) -> u64 {
        match self {
            Self::Gpu(gpu, _) => {
                let limits = gpu.device.limits();
                limits
                    .max_storage_buffer_binding_size
                    .min(limits.max_buffer_size)
            }
            Self::Cpu(_) => u64::MAX,
        }
    }
}

/// Whether an adapter runs on the processor.
pub fn is_software(info: &wgpu::AdapterInfo) -> bool {
    Tuning::for_adapter(info).class == AdapterClass::Software
}

/// Whether an adapter's name is the CPU executor's.
pub fn is_cpu(name: &str) -> bool {
    name.eq_ignore_ascii_case("cpu")
}
