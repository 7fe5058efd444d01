//! A plan's dispatches as a caller without the library would hold them: pipelines of the same texts, bind
//! groups of the same buffers, and nothing around them.

use bcnorm::gpu::transfer::buffer_with_bytes;
use bcnorm::kernels::{Access, wgsl};
use bcnorm::plan::Step;
use bcnorm::{Plan, Role};

pub struct ByHand {
    dispatches: Vec<(wgpu::ComputePipeline, wgpu::BindGroup, [u32; 2])>,
}

impl ByHand {
    /// `buffer` gives the buffer of a role, which is bound whole.
    pub fn new(device: &wgpu::Device, plan: &Plan, buffer: impl Fn(Role) -> wgpu::Buffer) -> Self {
        let dispatches = plan.steps().iter();
        let dispatches = dispatches.map(|step| dispatch(device, step, &buffer));
        Self {
            dispatches: dispatches.collect(),
        }
    }

    pub fn encode_in_pass(&self, pass: &mut wgpu::ComputePass<'_>) {
        for (pipeline, group, [x, y]) in &self.dispatches {
            pass.set_pipeline(pipeline);
            pass.set_bind_group(0, group, &[]);
            pass.dispatch_workgroups(*x, *y, 1);
        }
    }

    pub fn encode(&self, encoder: &mut wgpu::CommandEncoder) {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
            label: Some("bcnorm"),
            timestamp_writes: None,
        });
        self.encode_in_pass(&mut pass);
    }
}

fn dispatch(
    device: &wgpu::Device,
    step: &Step,
    buffer: &impl Fn(Role) -> wgpu::Buffer,
) -> (wgpu::ComputePipeline, wgpu::BindGroup, [u32; 2]) {
    let label = Some(step.spec.kernel.name());
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label,
        source: wgpu::ShaderSource::Wgsl(wgsl(&step.spec).into()),
    });
    let uniform = buffer_with_bytes(
        device,
        "params",
        step.params.as_bytes(),
        wgpu::BufferUsages::UNIFORM,
    )
    .unwrap();
    let storage = |access| wgpu::BufferBindingType::Storage {
        read_only: access == Access::Read,
    };
    let mut bound = vec![(0, wgpu::BufferBindingType::Uniform, uniform)];
    for ((number, declared), &role) in step.spec.bindings().zip(&step.bindings) {
        bound.push((number, storage(declared.access), buffer(role)));
    }
    let entries = bound
        .iter()
        .map(|&(binding, ty, _)| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty,
                has_dynamic_offset: false,
                min_binding_size: None,
            },
            count: None,
        });
    let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
        label,
        entries: &entries.collect::<Vec<_>>(),
    });
    let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label,
        bind_group_layouts: &[Some(&layout)],
        immediate_size: 0,
    });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label,
        layout: Some(&pipeline_layout),
        module: &module,
        entry_point: None,
        compilation_options: Default::default(),
        cache: None,
    });
    let entries = bound
        .iter()
        .map(|(binding, _, buffer)| wgpu::BindGroupEntry {
            binding: *binding,
            resource: buffer.as_entire_binding(),
        });
    let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
        label,
        layout: &layout,
        entries: &entries.collect::<Vec<_>>(),
    });
    (pipeline, group, step.workgroups)
}
