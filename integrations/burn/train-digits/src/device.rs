//! burn's wgpu device, which bcnorm's norms compute on too.

use anyhow::{Context as _, Result, bail, ensure};
use bcnorm::gpu::headless::describe;
use bcnorm::wgpu;
use burn::tensor::Device;
use burn::tensor::wgpu::WgpuSetup;

/// A device on the adapter that burn chooses, or on one whose name, backend or kind contains `name` (in any case): of several
/// the one of this number, counted around.
///
/// # Errors
/// No such adapter, with a list of those there are; an adapter that gives no device. In a process, one device at most is
/// burn's choice.
pub fn open(name: Option<&str>, number: usize) -> Result<Device> {
    let Some(name) = name else {
        let device = bcnorm_burn::init(Device::wgpu_options());
        return device.context(
            "no device: is a Vulkan driver there? (On Debian: mesa-vulkan-drivers, a software one.)",
        );
    };
    let options = wgpu::InstanceDescriptor::new_without_display_handle();
    let instance = wgpu::Instance::new(options);
    let adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()));
    ensure!(
        !adapters.is_empty(),
        "no GPU adapter found: install a Vulkan driver (on Debian: mesa-vulkan-drivers, a software one)"
    );
    let wanted = name.to_lowercase();
    let matches = |adapter: &wgpu::Adapter| describe(adapter).to_lowercase().contains(&wanted);
    let fitting: Vec<&wgpu::Adapter> = adapters.iter().filter(|adapter| matches(adapter)).collect();
    let Some(adapter) = fitting.get(number % fitting.len().max(1)) else {
        let list: String = adapters
            .iter()
            .map(|adapter| format!("\n  {}", describe(adapter)))
            .collect();
        bail!("no adapter's name or backend contains \"{name}\"; there are:{list}");
    };
    let adapter = (*adapter).clone();
    // As burn makes its own, but for wgpu's experiments, which take unsafe code.
    let experiments = wgpu::Features::all_experimental_mask();
    let left_out = experiments | wgpu::Features::MAPPABLE_PRIMARY_BUFFERS;
    let descriptor = wgpu::DeviceDescriptor {
        required_features: adapter.features() - left_out,
        required_limits: adapter.limits(),
        memory_hints: wgpu::MemoryHints::MemoryUsage,
        ..Default::default()
    };
    let opened = pollster::block_on(adapter.request_device(&descriptor));
    let (device, queue) = opened.with_context(|| describe(&adapter))?;
    let setup = WgpuSetup {
        backend: adapter.get_info().backend,
        instance,
        adapter,
        device,
        queue,
    };
    let device = Device::wgpu_options().setup(setup.clone()).init()?;
    bcnorm_burn::register(&device, &setup);
    Ok(device)
}
