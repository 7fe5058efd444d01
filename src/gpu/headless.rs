//! Adapters and devices without a window, for programs that bring none of their own.

use super::device;
use crate::error::Error;
use crate::tuning::{AdapterClass, Tuning};
#[cfg(not(target_arch = "wasm32"))]
use std::sync::OnceLock;

/// What a device is requested with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum DeviceLimits {
    /// WebGPU's defaults: what runs here runs in every browser.
    #[default]
    Default,
    /// All that the adapter grants: larger bindings, for large tensors.
    Adapter,
}

/// A device, its queue, and the adapter they come from.
#[derive(Debug, Clone)]
pub struct Gpu {
    /// The adapter taken.
    pub adapter: wgpu::Adapter,
    /// The device.
    pub device: wgpu::Device,
    /// Its queue.
    pub queue: wgpu::Queue,
}

impl Gpu {
    /// The best adapter of this machine with a device on it: a real GPU if there is one, a software
    /// adapter otherwise. [`describe`](Self::describe) says which it is.
    ///
    /// # Errors
    /// [`Error::NoAdapter`] without any adapter, [`Error::Device`] where none gives a device.
    pub async fn new(limits: DeviceLimits) -> Result<Gpu, Error> {
        let mut failure = None;
        for adapter in adapters().await {
            match Gpu::on(adapter, limits).await {
                Ok(gpu) => return Ok(gpu),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        Err(failure.unwrap_or(Error::NoAdapter))
    }

    /// A device on the given adapter. Where the adapter has them, it has the features TIMESTAMP_QUERY and
    /// TIMESTAMP_QUERY_INSIDE_PASSES, for measurements, and SUBGROUP, which kernels use on GPUs; they need no
    /// feature.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub async fn on(adapter: wgpu::Adapter, limits: DeviceLimits) -> Result<Gpu, Error> {
        let granted = adapter.limits();
        let required_limits = match limits {
            DeviceLimits::Adapter => granted,
            // GL and old adapters have less than WebGPU asks: take what there is then.
            DeviceLimits::Default => wgpu::Limits::default().or_worse_values_from(&granted),
        };
        let optional = wgpu::Features::TIMESTAMP_QUERY
            | wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES
            | wgpu::Features::SUBGROUP;
        let (device, queue) = adapter
            .request_device(&wgpu::DeviceDescriptor {
                label: Some("bcnorm"),
                required_features: adapter.features() & optional,
                required_limits,
                ..Default::default()
            })
            .await
            .map_err(|error| device::failed(describe(&adapter), error))?;
        Ok(Gpu {
            adapter,
            device,
            queue,
        })
    }

    /// Name, backend and kind of the adapter taken, for people.
    pub fn describe(&self) -> String {
        describe(&self.adapter)
    }
}

/// Name, backend and kind of an adapter, for people: "llvmpipe (LLVM 15.0.6, 256 bits) (Vulkan, software)".
pub fn describe(adapter: &wgpu::Adapter) -> String {
    let info = adapter.get_info();
    let kind = match Tuning::for_adapter(&info).class {
        AdapterClass::Software => "software",
        _ => match info.device_type {
            wgpu::DeviceType::IntegratedGpu => "integrated GPU",
            wgpu::DeviceType::DiscreteGpu => "discrete GPU",
            wgpu::DeviceType::VirtualGpu => "virtual GPU",
            _ => "GPU",
        },
    };
    format!("{} ({:?}, {kind})", info.name, info.backend)
}

/// Every adapter that can compute, the best first: discrete, integrated, others, software; Vulkan,
/// Metal and DX12 before GL.
///
/// All are of one `wgpu::Instance`, the first call's, which looks at every backend that was compiled in or at
/// those that `WGPU_BACKEND` names: wgpu tells devices of one instance apart, not those of several.
pub async fn adapters() -> Vec<wgpu::Adapter> {
    let instance = instance();
    let mut adapters = enumerate(&instance).await;
    adapters.retain(|adapter| {
        let flags = adapter.get_downlevel_capabilities().flags;
        flags.contains(wgpu::DownlevelFlags::COMPUTE_SHADERS)
    });
    adapters.sort_by_key(|adapter| rank(&adapter.get_info()));
    adapters
}

fn new_instance() -> wgpu::Instance {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::from_env().unwrap_or(wgpu::Backends::all());
    wgpu::Instance::new(descriptor)
}

/// The one of this process.
#[cfg(not(target_arch = "wasm32"))]
fn instance() -> wgpu::Instance {
    static INSTANCE: OnceLock<wgpu::Instance> = OnceLock::new();
    INSTANCE.get_or_init(new_instance).clone()
}

/// A browser has one.
#[cfg(target_arch = "wasm32")]
fn instance() -> wgpu::Instance {
    new_instance()
}

/// The lower the better.
fn rank(info: &wgpu::AdapterInfo) -> (u32, bool) {
    let class = match Tuning::for_adapter(info).class {
        // Of the software adapters llvmpipe is about three times as fast as SwiftShader.
        AdapterClass::Software if info.name.starts_with("llvmpipe") => 3,
        AdapterClass::Software => 4,
        _ => match info.device_type {
            wgpu::DeviceType::DiscreteGpu => 0,
            wgpu::DeviceType::IntegratedGpu => 1,
            _ => 2,
        },
    };
    (class, info.backend == wgpu::Backend::Gl)
}

#[cfg(not(target_arch = "wasm32"))]
async fn enumerate(instance: &wgpu::Instance) -> Vec<wgpu::Adapter> {
    instance.enumerate_adapters(wgpu::Backends::all()).await
}

/// A page is offered one adapter.
#[cfg(target_arch = "wasm32")]
async fn enumerate(instance: &wgpu::Instance) -> Vec<wgpu::Adapter> {
    let options = wgpu::RequestAdapterOptions {
        power_preference: wgpu::PowerPreference::HighPerformance,
        ..Default::default()
    };
    instance
        .request_adapter(&options)
        .await
        .into_iter()
        .collect()
}
