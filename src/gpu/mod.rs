//! The wgpu executor: runs plans on the caller's device, with the caller's buffers.
//!
//! [`Pipelines`] compiles and caches kernels, [`Pipelines::prepare`] makes a plan ready,
//! [`PreparedPlan::encode`] records it into the caller's encoder or compute pass ([`Target`]). What is made is made within error scopes, so that what
//! the device objects to is an [`Error`] (natively). Nothing here submits, polls, maps, makes a
//! device or replaces an error handler; [`headless`], [`transfer`], [`ranks`], [`autotune`] and [`probe`] hold helpers that
//! do, for those who want them ([`Pipelines::probed`] is one).
//!
//! # Several devices
//!
//! Everything belongs to one device. [`Pipelines`], [`Tables`] and [`Tensor`](crate::Tensor) know which, and a
//! call that mixes them up is [`Error::WrongDevice`]. Of what wgpu hands out, buffers, encoders, passes and
//! queues, only wgpu could know, by ids that are unique within one `wgpu::Instance`: in it, wgpu refuses those
//! of another device (a buffer where it is bound: [`Error::Device`]; an encoder or queue through the device's
//! error handler, which panics unless you set one). **Devices of several instances have equal ids**: there
//! wgpu takes a foreign buffer for its own buffer of that id, or panics where it has none. So have one
//! instance in a process; [`headless`] has one for all its devices.

pub mod autotune;
mod bindings;
mod bound;
pub(crate) mod device;
pub mod headless;
pub mod probe;
pub mod ranks;
pub mod transfer;

pub use bindings::{Bindings, Tables};
pub use bound::{BoundPlan, PreparedPlan, Target};

use crate::error::Error;
use crate::kernels::{Access, Spec, browser_wgsl, wgsl};
use crate::params::UNIFORM_BYTES;
use crate::plan::{Limits, Plan};
use crate::tuning::Tuning;
use device::Owner;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// A compiled kernel.
#[derive(Debug)]
struct Kernel {
    pipeline: wgpu::ComputePipeline,
    layout: wgpu::BindGroupLayout,
}

/// Compiles kernels for one device and keeps them: plans of other shapes mostly share them.
/// Cloning is cheap and shares the cache.
#[derive(Debug, Clone)]
pub struct Pipelines {
    owner: Owner,
    tuning: Tuning,
    /// Whether every storage binding is read_write.
    read_write: bool,
    cache: Arc<Mutex<HashMap<Spec, Arc<Kernel>>>>,
}

impl Pipelines {
    /// An empty cache for a device, with the [`Tuning`] of its adapter. For f16 see [`Pipelines::probed`].
    pub fn new(device: &wgpu::Device) -> Self {
        Self::with_tuning(device, Tuning::for_device(device))
    }

    /// An empty cache for a device, with the [`Tuning`] of its adapter after a look at what the device does of
    /// that which WGSL leaves to it ([`probe`]): f16 is faster then on devices that convert it as the library does.
    ///
    /// # Errors
    /// Those of [`probe::limits`].
    pub async fn probed(device: &wgpu::Device, queue: &wgpu::Queue) -> Result<Self, Error> {
        Ok(Self::with_tuning(
            device,
            Tuning::probed(device, queue).await?,
        ))
    }

    /// An empty cache for a device, with a tuning of the caller's.
    pub fn with_tuning(device: &wgpu::Device, tuning: Tuning) -> Self {
        Self {
            owner: Owner::of(device),
            tuning,
            read_write: false,
            cache: Arc::default(),
        }
    }

    /// The same with an empty cache of kernels that declare every storage buffer as read_write, those too that they only
    /// read: for tensors that an allocator put into slices of one buffer, such as a framework's. WebGPU allows no dispatch
    /// to have a buffer both as read and as read_write, even in disjoint ranges; all as read_write it allows. Results are
    /// the same bits. Ranges that overlap are refused as ever where one is written; where none is, a browser refuses
    /// them too, and native wgpu does not.
    #[must_use]
    pub fn with_read_write_bindings(self) -> Self {
        Self {
            read_write: true,
            cache: Arc::default(),
            ..self
        }
    }

    /// The device.
    pub fn device(&self) -> &wgpu::Device {
        self.owner.device()
    }

    /// Whose they are.
    pub(crate) fn owner(&self) -> &Owner {
        &self.owner
    }

    /// The tuning that plans for this device should be made with.
    pub fn tuning(&self) -> &Tuning {
        &self.tuning
    }

    /// Checks a plan against the device's limits, compiles what is not compiled yet, and makes the
    /// plan's uniforms. The result can be encoded any number of times.
    ///
    /// # Errors
    /// [`Error::Limit`] where a buffer, a workgroup or a dispatch exceeds what the device granted;
    /// [`Error::Device`] where it is lost, or it or its driver objects to a kernel (natively: a browser reports
    /// that to the device's `uncapturederror` event).
    pub fn prepare(&self, plan: Plan) -> Result<PreparedPlan, Error> {
        let device = self.device();
        plan.check_limits(&Limits::of(device))?;
        let kernels = plan.steps().iter().map(|step| self.kernel(&step.spec));
        let kernels = kernels.collect::<Result<_, _>>()?;
        let alignment = device.limits().min_uniform_buffer_offset_alignment;
        let alignment = u64::from(alignment).max(16);
        let stride = (UNIFORM_BYTES as u64).next_multiple_of(alignment);
        // Uniforms never change: a buffer mapped at creation, not queue.write_buffer, which would
        // reach back to everything in the next submission.
        let bytes = plan.uniforms(stride as usize)?;
        let uniforms = match plan.steps() {
            [] => None,
            _ => Some(transfer::buffer_with_bytes(
                device,
                "bcnorm params",
                &bytes,
                wgpu::BufferUsages::UNIFORM,
            )?),
        };
        Ok(PreparedPlan {
            owner: self.owner.clone(),
            plan,
            kernels,
            uniforms,
            stride,
            read_write: self.read_write,
        })
    }

    fn kernel(&self, spec: &Spec) -> Result<Arc<Kernel>, Error> {
        // A panic elsewhere while the lock was held left the map whole: an entry is either there
        // or not.
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kernel) = cache.get(spec) {
            return Ok(kernel.clone());
        }
        let kernel = Arc::new(device::guarded(
            self.device(),
            format_args!("the kernel {}", spec.kernel.name()),
            || Ok(compile(self.device(), spec, self.read_write)),
        )?);
        cache.insert(*spec, kernel.clone());
        Ok(kernel)
    }
}

fn compile(device: &wgpu::Device, spec: &Spec, read_write: bool) -> Kernel {
    let declared = spec.kernel.kernel();
    let label = Some(declared.name);
    let backend = device.adapter_info().backend;
    let mut text = match backend {
        wgpu::Backend::BrowserWebGpu => browser_wgsl(spec),
        _ => wgsl(spec),
    };
    if read_write {
        text = text.replace("var<storage, read>", "var<storage, read_write>");
    }
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label,
        source: wgpu::ShaderSource::Wgsl(text.into()),
    });
    let mut entries = vec![layout_entry(
        0,
        wgpu::BufferBindingType::Uniform,
        declared.params.size,
    )];
    for (number, binding) in spec.bindings() {
        let read_only = binding.access == Access::Read && !read_write;
        let ty = wgpu::BufferBindingType::Storage { read_only };
        entries.push(layout_entry(number, ty, binding.element.bytes(spec)));
    }
    let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
        label,
        entries: &entries,
    });
    let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label,
        bind_group_layouts: &[Some(&layout)],
        immediate_size: 0,
    });
    // Kernels write workgroup memory before they read it. Zeroing it costs FXC seconds; on Metal
    // it stays on, since without it Apple's compiler moves barriers (wgpu #4500).
    let metal = backend == wgpu::Backend::Metal;
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label,
        layout: Some(&pipeline_layout),
        module: &module,
        entry_point: Some(declared.name),
        compilation_options: wgpu::PipelineCompilationOptions {
            zero_initialize_workgroup_memory: metal,
            ..Default::default()
        },
        cache: None,
    });
    Kernel { pipeline, layout }
}

fn layout_entry(
    binding: u32,
    ty: wgpu::BufferBindingType,
    min_size: u64,
) -> wgpu::BindGroupLayoutEntry {
    wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer {
            ty,
            has_dynamic_offset: false,
            min_binding_size: wgpu::BufferSize::new(min_size),
        },
        count: None,
    }
}
