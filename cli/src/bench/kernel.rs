//! The benchmark's own kernels on one device: each text is compiled once, whatever the shapes.

use std::cell::RefCell;
use std::collections::HashMap;

/// Pipelines by their final text.
#[derive(Debug)]
pub struct Kernels {
    device: wgpu::Device,
    cache: RefCell<HashMap<String, wgpu::ComputePipeline>>,
}

/// A dispatch ready to be recorded.
#[derive(Debug)]
pub struct Dispatch {
    pipeline: wgpu::ComputePipeline,
    group: wgpu::BindGroup,
    workgroups: [u32; 2],
}

impl Kernels {
    /// None yet.
    pub fn new(device: &wgpu::Device) -> Self {
        Self {
            device: device.clone(),
            cache: RefCell::default(),
        }
    }

    /// Those of some workgroup sizes that the device runs.
    pub fn runnable(&self, sizes: &[u32]) -> Vec<u32> {
        let limits = self.device.limits();
        let most = limits
            .max_compute_invocations_per_workgroup
            .min(limits.max_compute_workgroup_size_x);
        sizes.iter().copied().filter(|&size| size <= most).collect()
    }

    /// The entry point `name` of a text, with the buffers that it binds, by number. As many
    /// workgroups as asked for: more than a dimension holds are folded into two.
    pub fn dispatch(
        &self,
        name: &'static str,
        text: String,
        buffers: &[(u32, &wgpu::Buffer)],
        workgroups: u64,
    ) -> anyhow::Result<Dispatch> {
        let pipeline = self.pipeline(name, text);
        let entries: Vec<_> = buffers
            .iter()
            .map(|&(binding, buffer)| wgpu::BindGroupEntry {
                binding,
                resource: buffer.as_entire_binding(),
            })
            .collect();
        let group = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(name),
            layout: &pipeline.get_bind_group_layout(0),
            entries: &entries,
        });
        let most = self.device.limits().max_compute_workgroups_per_dimension;
        let total = u32::try_from(workgroups)?;
        let y = total.div_ceil(most.max(1)).max(1);
        Ok(Dispatch {
            pipeline,
            group,
            workgroups: [total.div_ceil(y), y],
        })
    }

    fn pipeline(&self, name: &'static str, text: String) -> wgpu::ComputePipeline {
        let key = format!("{name}\n{text}");
        if let Some(pipeline) = self.cache.borrow().get(&key) {
            return pipeline.clone();
        }
        let label = Some(name);
        let module = self
            .device
            .create_shader_module(wgpu::ShaderModuleDescriptor {
                label,
                source: wgpu::ShaderSource::Wgsl(text.into()),
            });
        let pipeline = self
            .device
            .create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label,
                layout: None,
                module: &module,
                entry_point: Some(name),
                // They write workgroup memory before they read it. On Metal it is zeroed all the same: see
                // the library's own kernels.
                compilation_options: wgpu::PipelineCompilationOptions {
                    zero_initialize_workgroup_memory: self.device.adapter_info().backend
                        == wgpu::Backend::Metal,
                    ..Default::default()
                },
                cache: None,
            });
        self.cache.borrow_mut().insert(key, pipeline.clone());
        pipeline
    }
}

impl Dispatch {
    /// Records it.
    pub fn encode(&self, pass: &mut wgpu::ComputePass<'_>) {
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.group, &[]);
        pass.dispatch_workgroups(self.workgroups[0], self.workgroups[1], 1);
    }
}
