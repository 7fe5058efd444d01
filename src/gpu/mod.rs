//! The wgpu executor: runs plans on the caller's device, with the caller's buffers.
//!
//! [`Pipelines`] compiles and caches kernels, [`Pipelines::prepare`] makes a plan ready,
//! [`Prepared::encode`] records it into the caller's encoder (or
//! [`Prepared::encode_in_pass`] into the caller's pass). Nothing here submits, polls, maps, makes a
//! device or replaces an error handler; [`headless`] and [`transfer`] hold helpers that do, for
//! those who want them.

mod bindings;
pub mod headless;
pub mod transfer;

pub use bindings::{Bindings, Tables};

use crate::error::Error;
use crate::kernels::{Access, Family, Spec, wgsl};
use crate::params::Params;
use crate::plan::Plan;
use crate::role::RoleKind;
use crate::tuning::Tuning;
use std::collections::HashMap;
use std::ops::Range;
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
    device: wgpu::Device,
    tuning: Tuning,
    cache: Arc<Mutex<HashMap<Spec, Arc<Kernel>>>>,
}

impl Pipelines {
    /// An empty cache for a device, with the [`Tuning`] of its adapter.
    pub fn new(device: &wgpu::Device) -> Self {
        Self::with_tuning(device, Tuning::for_device(device))
    }

    /// An empty cache for a device, with a tuning of the caller's.
    pub fn with_tuning(device: &wgpu::Device, tuning: Tuning) -> Self {
        Self {
            device: device.clone(),
            tuning,
            cache: Arc::default(),
        }
    }

    /// The device.
    pub fn device(&self) -> &wgpu::Device {
        &self.device
    }

    /// The tuning that plans for this device should be made with.
    pub fn tuning(&self) -> &Tuning {
        &self.tuning
    }

    /// Checks a plan against the device's limits, compiles what is not compiled yet, and makes the
    /// plan's uniforms. The result can be encoded any number of times.
    ///
    /// # Errors
    /// [`Error::Limit`] where a buffer, a workgroup or a dispatch exceeds what the device granted.
    pub fn prepare(&self, plan: Plan) -> Result<Prepared, Error> {
        let limits = self.device.limits();
        check_limits(&plan, &limits)?;
        let kernels = plan.steps().iter().map(|step| self.kernel(&step.spec));
        let kernels = kernels.collect();
        let alignment = u64::from(limits.min_uniform_buffer_offset_alignment).max(16);
        let stride = (size_of::<Params>() as u64).next_multiple_of(alignment);
        // Uniforms never change: a buffer mapped at creation, not queue.write_buffer, which would
        // reach back to everything in the next submission.
        let uniforms = (!plan.steps().is_empty()).then(|| {
            let size = stride * plan.steps().len() as u64;
            let mut bytes = vec![0u8; size as usize];
            for (slot, step) in bytes.chunks_exact_mut(stride as usize).zip(plan.steps()) {
                slot[..size_of::<Params>()].copy_from_slice(bytemuck::bytes_of(&step.params));
            }
            transfer::buffer_with_bytes(
                &self.device,
                "bcnorm params",
                &bytes,
                wgpu::BufferUsages::UNIFORM,
            )
        });
        Ok(Prepared {
            device: self.device.clone(),
            plan,
            kernels,
            uniforms,
            stride,
        })
    }

    fn kernel(&self, spec: &Spec) -> Arc<Kernel> {
        // A panic elsewhere while the lock was held left the map whole: an entry is either there
        // or not.
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kernel) = cache.get(spec) {
            return kernel.clone();
        }
        let kernel = Arc::new(compile(&self.device, spec));
        cache.insert(*spec, kernel.clone());
        kernel
    }
}

fn compile(device: &wgpu::Device, spec: &Spec) -> Kernel {
    let declared = spec.kernel.kernel();
    let label = Some(declared.name);
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label,
        source: wgpu::ShaderSource::Wgsl(wgsl(spec).into()),
    });
    let mut entries = vec![layout_entry(
        0,
        wgpu::BufferBindingType::Uniform,
        size_of::<Params>() as u64,
    )];
    for (number, binding) in spec.bindings() {
        let read_only = binding.access == Access::Read;
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
    let metal = device.adapter_info().backend == wgpu::Backend::Metal;
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

/// Everything of a plan that a device may refuse.
fn check_limits(plan: &Plan, limits: &wgpu::Limits) -> Result<(), Error> {
    let check = |what: String, value: u64, limit: u64, limit_name, way_out| {
        if value <= limit {
            return Ok(());
        }
        Err(Error::Limit {
            what,
            value,
            limit,
            limit_name,
            way_out,
        })
    };
    let binding = limits.max_storage_buffer_binding_size;
    for step in plan.steps() {
        let tensor = step.bindings.iter().find(|role| role.is_tensor());
        let Some(role) = tensor else { continue };
        let whole = plan.need(*role).map_or(0, |need| need.bytes);
        check(
            format!(
                "the size in bytes of what {} binds of {role}",
                step.spec.kernel.name()
            ),
            step.window.map_or(whole, |window| window.bytes),
            binding,
            "max_storage_buffer_binding_size of the device",
            "plan with Tuning::for_device of this device, which makes windows",
        )?;
    }
    for need in plan.needs().iter().filter(|need| !need.role.is_tensor()) {
        check(
            format!("the size of {} in bytes", need.role),
            need.bytes,
            binding,
            "max_storage_buffer_binding_size of the device",
            "request the device with the adapter's limits, or split the batch",
        )?;
        if need.role.kind() != RoleKind::Caller {
            check(
                format!("the size of table {} in bytes", need.role),
                need.bytes,
                limits.max_buffer_size,
                "max_buffer_size of the device",
                "request the device with the adapter's limits, or split the batch",
            )?;
        }
    }
    for step in plan.steps() {
        let name = step.spec.kernel.name();
        let size = step.spec.workgroup_size;
        let most = limits
            .max_compute_invocations_per_workgroup
            .min(limits.max_compute_workgroup_size_x);
        check(
            format!("the workgroup of {name}"),
            u64::from(size),
            u64::from(most),
            "max_compute_invocations_per_workgroup of the device",
            "plan with Tuning::for_device of this device",
        )?;
        let [x, y] = step.workgroups;
        check(
            format!("the dispatch of {name}"),
            u64::from(x.max(y)),
            u64::from(limits.max_compute_workgroups_per_dimension),
            "max_compute_workgroups_per_dimension of the device",
            "plan with Tuning::for_device of this device",
        )?;
        check(
            format!("the storage buffers of {name}"),
            step.bindings.len() as u64,
            u64::from(limits.max_storage_buffers_per_shader_stage),
            "max_storage_buffers_per_shader_stage of the device",
            "request a device with at least 8",
        )?;
        let family = step.spec.kernel.kernel().family;
        if step.spec.lanes > 1 {
            check(
                format!("the workgroup memory of {name} in bytes"),
                // Of the reductions over lanes, the one with the largest entries.
                u64::from(size)
                    * if family == Family::ColumnReduce {
                        80
                    } else {
                        24
                    },
                u64::from(limits.max_compute_workgroup_storage_size),
                "max_compute_workgroup_storage_size of the device",
                "plan with a smaller workgroup_size",
            )?;
        }
    }
    Ok(())
}

/// A plan made ready for a device: compiled kernels and uniforms.
#[derive(Debug)]
pub struct Prepared {
    device: wgpu::Device,
    plan: Plan,
    kernels: Vec<Arc<Kernel>>,
    uniforms: Option<wgpu::Buffer>,
    stride: u64,
}

impl Prepared {
    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Allocates the tables of this plan that are not in `shared` already. Tables of a forward plan
    /// are what its backward plan reads: make the backward's with the forward's as `shared`.
    pub fn create_tables(&self, shared: Option<&Tables>) -> Tables {
        Tables::new(&self.device, &self.plan, shared)
    }

    /// Records the plan into a compute pass of its own.
    ///
    /// # Errors
    /// Those of [`bind`](Self::bind).
    pub fn encode(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        bindings: &Bindings,
    ) -> Result<(), Error> {
        self.bind(bindings)?.encode(encoder);
        Ok(())
    }

    /// Records the plan into a compute pass of the caller's.
    ///
    /// # Errors
    /// Those of [`bind`](Self::bind).
    pub fn encode_in_pass(
        &self,
        pass: &mut wgpu::ComputePass<'_>,
        bindings: &Bindings,
    ) -> Result<(), Error> {
        self.bind(bindings)?.encode_in_pass(pass);
        Ok(())
    }

    /// Checks the buffers and makes the bind groups, once for any number of recordings.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::BufferTooSmall`], [`Error::Misaligned`], [`Error::Usage`],
    /// [`Error::Aliasing`]; nothing is recorded then.
    pub fn bind(&self, bindings: &Bindings) -> Result<Bound<'_>, Error> {
        bindings.validate(&self.plan, &self.device.limits())?;
        let mut groups = Vec::with_capacity(self.kernels.len());
        for (index, (step, kernel)) in self.plan.steps().iter().zip(&self.kernels).enumerate() {
            let Some(uniforms) = &self.uniforms else {
                break;
            };
            let mut entries = vec![wgpu::BindGroupEntry {
                binding: 0,
                resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                    buffer: uniforms,
                    offset: self.stride * index as u64,
                    size: wgpu::BufferSize::new(size_of::<Params>() as u64),
                }),
            }];
            for ((binding, _), &role) in step.spec.bindings().zip(&step.bindings) {
                let resource = bindings.resource(&self.plan, role, step.window)?;
                entries.push(wgpu::BindGroupEntry { binding, resource });
            }
            groups.push(self.device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(step.spec.kernel.name()),
                layout: &kernel.layout,
                entries: &entries,
            }));
        }
        Ok(Bound {
            prepared: self,
            groups,
        })
    }
}

/// A plan with its buffers: ready to be recorded.
#[derive(Debug)]
pub struct Bound<'a> {
    prepared: &'a Prepared,
    groups: Vec<wgpu::BindGroup>,
}

impl Bound<'_> {
    /// Records the plan into a compute pass of its own.
    pub fn encode(&self, encoder: &mut wgpu::CommandEncoder) {
        if self.groups.is_empty() {
            return;
        }
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
            label: Some("bcnorm"),
            timestamp_writes: None,
        });
        self.encode_in_pass(&mut pass);
    }

    /// Records the plan into a compute pass of the caller's. Sets pipeline and bind group 0.
    pub fn encode_in_pass(&self, pass: &mut wgpu::ComputePass<'_>) {
        self.encode_steps(pass, 0..self.groups.len());
    }

    /// Records some steps of the plan into a compute pass of the caller's: those before and those after
    /// [`Plan::exchange`], say. Indices beyond the plan record nothing.
    pub fn encode_steps(&self, pass: &mut wgpu::ComputePass<'_>, steps: Range<usize>) {
        for index in steps.start..steps.end.min(self.groups.len()) {
            self.encode_step(pass, index);
        }
    }

    /// Records one step of the plan: stages are addressable, for tests, measurements, and callers
    /// that put work of their own between them (an all-reduce of channel moments, say). An index
    /// beyond the plan records nothing.
    pub fn encode_step(&self, pass: &mut wgpu::ComputePass<'_>, index: usize) {
        let Some(group) = self.groups.get(index) else {
            return;
        };
        let step = &self.prepared.plan.steps()[index];
        pass.set_pipeline(&self.prepared.kernels[index].pipeline);
        pass.set_bind_group(0, group, &[]);
        pass.dispatch_workgroups(step.workgroups[0], step.workgroups[1], 1);
    }
}
