//! The copy kernel that everything is compared with.

use super::kernel::{Dispatch, Kernels};
use super::timing::Candidate;
use crate::device::guarded;
use anyhow::{Result, ensure};
use bcnorm::gpu::headless::Gpu;
use bcnorm::gpu::transfer::{buffer_with_bytes, read};

const TEXT: &str = include_str!("../../shaders/copy.wgsl");

/// Workgroup sizes of which the fastest counts.
pub const WORKGROUP_SIZES: [u32; 5] = [8, 32, 64, 128, 256];

/// What the destination holds before a copy.
const POISON: u32 = 0x7fd5_ca1e;

/// Copies of one tensor, by different workgroup sizes.
#[derive(Debug)]
pub struct Copies {
    variants: Vec<(u32, Dispatch)>,
}

impl Copies {
    /// Makes the kernels and checks that each copies the tensor.
    pub fn new(gpu: &Gpu, kernels: &Kernels, sizes: &[u32], stored: &[u32]) -> Result<Self> {
        guarded(gpu, || Self::make(gpu, kernels, sizes, stored))
    }

    fn make(gpu: &Gpu, kernels: &Kernels, sizes: &[u32], stored: &[u32]) -> Result<Self> {
        let device = &gpu.device;
        let mut padded = stored.to_vec();
        padded.resize(stored.len().next_multiple_of(4), 0);
        let upload = |label, words: &[u32]| {
            let usage = wgpu::BufferUsages::STORAGE
                | wgpu::BufferUsages::COPY_SRC
                | wgpu::BufferUsages::COPY_DST;
            buffer_with_bytes(device, label, bytemuck::cast_slice(words), usage)
        };
        let poison = vec![POISON; padded.len()];
        let source = upload("copy source", &padded)?;
        let destination = upload("copy destination", &poison)?;
        let mut variants = Vec::new();
        for size in kernels.runnable(sizes) {
            let text = format!("const WORKGROUP_SIZE: u32 = {size}u;\n{TEXT}");
            let workgroups = (padded.len() / 4).div_ceil(size as usize) as u64;
            let copy =
                kernels.dispatch("copy", text, &[(0, &source), (1, &destination)], workgroups)?;
            gpu.queue
                .write_buffer(&destination, 0, bytemuck::cast_slice(&poison));
            let mut encoder = device.create_command_encoder(&Default::default());
            copy.encode(&mut encoder.begin_compute_pass(&Default::default()));
            gpu.queue.submit([encoder.finish()]);
            let copied = read::<u32>(device, &gpu.queue, &destination, 0, padded.len());
            let copied = pollster::block_on(copied)?;
            ensure!(
                copied == padded,
                "the copy kernel with workgroups of {size} does not copy on {}",
                gpu.describe()
            );
            variants.push((size, copy));
        }
        Ok(Self { variants })
    }

    /// What to time.
    pub fn candidates(&self) -> impl Iterator<Item = Candidate<'_>> {
        (0..self.variants.len()).map(|index| self.candidate(index))
    }

    /// One of them.
    pub fn candidate(&self, index: usize) -> Candidate<'_> {
        let (_, copy) = &self.variants[index];
        Candidate::new(1, move |pass| copy.encode(pass))
    }

    /// Its workgroup size.
    pub fn workgroup_size(&self, index: usize) -> u32 {
        self.variants[index].0
    }
}
