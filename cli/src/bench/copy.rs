//! The copy kernel that everything is compared with.

use super::timing::Candidate;
use crate::device::guarded;
use anyhow::{Result, ensure};
use bcnorm::gpu::headless::Gpu;
use bcnorm::gpu::transfer::{read, upload};

const TEXT: &str = include_str!("../../shaders/copy.wgsl");

/// Workgroup sizes of which the fastest counts.
const WORKGROUP_SIZES: [u32; 5] = [8, 32, 64, 128, 256];

/// What the destination holds before a copy.
const POISON: u32 = 0x7fd5_ca1e;

/// Copies of one tensor, by different workgroup sizes.
#[derive(Debug)]
pub struct Copies {
    variants: Vec<Variant>,
    _source: wgpu::Buffer,
    _destination: wgpu::Buffer,
}

#[derive(Debug)]
struct Variant {
    workgroup_size: u32,
    workgroups: [u32; 2],
    pipeline: wgpu::ComputePipeline,
    group: wgpu::BindGroup,
}

impl Copies {
    /// Makes the kernels and checks that each copies the tensor.
    pub fn new(gpu: &Gpu, values: &[f32]) -> Result<Self> {
        guarded(gpu, || Self::make(gpu, values))
    }

    fn make(gpu: &Gpu, values: &[f32]) -> Result<Self> {
        let device = &gpu.device;
        let mut padded = values.to_vec();
        padded.resize(values.len().next_multiple_of(4), 0.0);
        let source = upload(device, "copy source", &padded);
        let poison = vec![f32::from_bits(POISON); padded.len()];
        let destination = upload(device, "copy destination", &poison);
        let limits = device.limits();
        let most = limits
            .max_compute_invocations_per_workgroup
            .min(limits.max_compute_workgroup_size_x);
        let variants = WORKGROUP_SIZES
            .into_iter()
            .filter(|&size| size <= most)
            .map(|size| Variant::new(device, size, padded.len() / 4, &source, &destination))
            .collect::<Result<Vec<_>>>()?;
        for variant in &variants {
            gpu.queue
                .write_buffer(&destination, 0, bytemuck::cast_slice(&poison));
            let mut encoder = device.create_command_encoder(&Default::default());
            variant.encode(&mut encoder.begin_compute_pass(&Default::default()));
            gpu.queue.submit([encoder.finish()]);
            let copied = read::<u32>(device, &gpu.queue, &destination, 0, padded.len());
            let copied = pollster::block_on(copied)?;
            ensure!(
                copied
                    .iter()
                    .zip(&padded)
                    .all(|(got, want)| *got == want.to_bits()),
                "the copy kernel with workgroups of {} does not copy on {}",
                variant.workgroup_size,
                gpu.describe()
            );
        }
        Ok(Self {
            variants,
            _source: source,
            _destination: destination,
        })
    }

    /// What to time.
    pub fn candidates(&self) -> impl Iterator<Item = Candidate<'_>> {
        self.variants
            .iter()
            .map(|variant| Candidate::new(1, move |pass| variant.encode(pass)))
    }

    /// The workgroup sizes, in the order of the candidates.
    pub fn workgroup_sizes(&self) -> impl Iterator<Item = u32> {
        self.variants.iter().map(|variant| variant.workgroup_size)
    }
}

impl Variant {
    fn new(
        device: &wgpu::Device,
        workgroup_size: u32,
        words: usize,
        source: &wgpu::Buffer,
        destination: &wgpu::Buffer,
    ) -> Result<Self> {
        let label = Some("copy");
        let text = format!("const WORKGROUP_SIZE: u32 = {workgroup_size}u;\n{TEXT}");
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label,
            source: wgpu::ShaderSource::Wgsl(text.into()),
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label,
            layout: None,
            module: &module,
            entry_point: Some("copy"),
            compilation_options: Default::default(),
            cache: None,
        });
        let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label,
            layout: &pipeline.get_bind_group_layout(0),
            entries: &[
                wgpu::BindGroupEntry {
                    binding: 0,
                    resource: source.as_entire_binding(),
                },
                wgpu::BindGroupEntry {
                    binding: 1,
                    resource: destination.as_entire_binding(),
                },
            ],
        });
        let most = device.limits().max_compute_workgroups_per_dimension.max(1);
        let total = u32::try_from(words)?.div_ceil(workgroup_size);
        let y = total.div_ceil(most).max(1);
        Ok(Self {
            workgroup_size,
            workgroups: [total.div_ceil(y), y],
            pipeline,
            group,
        })
    }

    fn encode(&self, pass: &mut wgpu::ComputePass<'_>) {
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.group, &[]);
        pass.dispatch_workgroups(self.workgroups[0], self.workgroups[1], 1);
    }
}
