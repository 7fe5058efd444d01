//! Adapters by name, and GPU work whose failures come back as errors.

use anyhow::{Context as _, Result, bail, ensure};
use bcnorm::gpu::headless::{DeviceLimits, Gpu, adapters, describe};
use std::fmt::Write as _;

/// Runs GPU work so that whatever wgpu or the driver objects to comes back as an error instead of
/// a panic.
pub fn guarded<T>(gpu: &Gpu, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let device = &gpu.device;
    let scopes = [
        wgpu::ErrorFilter::Internal,
        wgpu::ErrorFilter::OutOfMemory,
        wgpu::ErrorFilter::Validation,
    ]
    .map(|filter| device.push_error_scope(filter));
    let result = work();
    // The innermost first.
    let caught: Vec<wgpu::Error> = scopes
        .into_iter()
        .rev()
        .filter_map(|scope| pollster::block_on(scope.pop()))
        .collect();
    match caught.first() {
        None => result,
        // What wgpu caught came first; what the work says of it is a consequence.
        Some(wgpu::Error::OutOfMemory { .. }) => {
            bail!("{} is out of memory: use a smaller batch", gpu.describe())
        }
        Some(error) => bail!("{} refused: {error}", gpu.describe()),
    }
}

/// The adapters that `name` stands for: `all`, or those whose name, backend or description contains
/// it (in any case). The best first.
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
    let wanted = name.to_lowercase();
    let (found, others): (Vec<_>, Vec<_>) = all
        .into_iter()
        .partition(|adapter| describe(adapter).to_lowercase().contains(&wanted));
    if found.is_empty() {
        let mut list = String::new();
        for adapter in &others {
            let _ = write!(list, "\n  {}", describe(adapter));
        }
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
