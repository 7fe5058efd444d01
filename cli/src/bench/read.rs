//! The read-only kernel, the second thing that everything is compared with.

use super::kernel::{Dispatch, Kernels};
use super::timing::Candidate;
use crate::device::guarded;
use anyhow::{Result, ensure};
use bcnorm::gpu::headless::Gpu;
use bcnorm::gpu::transfer::{buffer_with_bytes, read};
use bcnorm::tuning::AdapterClass;

const TEXT: &str = include_str!("../../shaders/read.wgsl");

/// What the sums hold before a read.
const POISON: u32 = 0x7fd5_ca1e;

/// (Workgroup size, words an invocation reads) of which the fastest counts: where barriers are dear, each
/// invocation sums alone.
fn variants(class: AdapterClass) -> (&'static str, &'static [(u32, u32)]) {
    match class {
        AdapterClass::Software => ("read_alone", &[(8, 64), (32, 64), (32, 256), (64, 16)]),
        _ => ("read_together", &[(128, 8), (256, 4), (256, 16)]),
    }
}

/// Reads of one tensor, by different workgroup sizes.
#[derive(Debug)]
pub struct Reads {
    variants: Vec<Dispatch>,
}

impl Reads {
    /// Makes the kernels and checks that each sums the tensor right.
    pub fn new(gpu: &Gpu, kernels: &Kernels, class: AdapterClass, stored: &[u32]) -> Result<Self> {
        guarded(gpu, || Self::make(gpu, kernels, class, stored))
    }

    fn make(gpu: &Gpu, kernels: &Kernels, class: AdapterClass, stored: &[u32]) -> Result<Self> {
        let device = &gpu.device;
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
        let mut padded = stored.to_vec();
        padded.resize(stored.len().next_multiple_of(4), 0);
        let source =
            buffer_with_bytes(device, "read source", bytemuck::cast_slice(&padded), usage)?;
        let (name, sizes) = variants(class);
        let mut variants = Vec::new();
        for &(size, words) in sizes {
            if kernels.runnable(&[size]).is_empty() {
                continue;
            }
            let alone = name == "read_alone";
            // Elements behind one sum, sums, and the workgroups that make them.
            let span = 4 * words as usize * if alone { 1 } else { size as usize };
            let count = padded.len().div_ceil(span);
            let workgroups = count.div_ceil(if alone { size as usize } else { 1 });
            let poison = vec![POISON; count];
            let sums =
                buffer_with_bytes(device, "read sums", bytemuck::cast_slice(&poison), usage)?;
            let text = format!(
                "const WORKGROUP_SIZE: u32 = {size}u;\nconst WORDS: u32 = {words}u;\n{TEXT}"
            );
            let buffers = [(0, &source), (1, &sums)];
            let dispatch = kernels.dispatch(name, text, &buffers, workgroups as u64)?;
            let mut encoder = device.create_command_encoder(&Default::default());
            dispatch.encode(&mut encoder.begin_compute_pass(&Default::default()));
            gpu.queue.submit([encoder.finish()]);
            let got = pollster::block_on(read::<u32>(device, &gpu.queue, &sums, 0, count))?;
            let wrong = sums_wrong(&got, &padded, span);
            ensure!(
                wrong == 0,
                "{name} with workgroups of {size} sums wrongly on {}: {wrong} of {count} sums",
                gpu.describe()
            );
            variants.push(dispatch);
        }
        Ok(Self { variants })
    }

    /// What to time.
    pub fn candidates(&self) -> impl Iterator<Item = Candidate<'_>> {
        (0..self.variants.len()).map(|index| self.candidate(index))
    }

    /// One of them.
    pub fn candidate(&self, index: usize) -> Candidate<'_> {
        let read = &self.variants[index];
        Candidate::new(1, move |pass| read.encode(pass))
    }
}

/// How many sums are not those of `span` words each.
fn sums_wrong(got: &[u32], words: &[u32], span: usize) -> usize {
    let expected = words
        .chunks(span)
        .map(|words| words.iter().fold(0u32, |sum, &word| sum.wrapping_add(word)));
    got.iter()
        .zip(expected)
        .filter(|&(&got, want)| got != want)
        .count()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_wrong_sum_shows() {
        let words: Vec<u32> = (0..10).map(|i| u32::MAX - i).collect();
        let right: Vec<u32> = words
            .chunks(4)
            .map(|c| c.iter().fold(0u32, |s, &w| s.wrapping_add(w)))
            .collect();
        assert_eq!(super::sums_wrong(&right, &words, 4), 0);
        assert_eq!(
            super::sums_wrong(&[right[0], right[1], right[2] + 1], &words, 4),
            1
        );
    }
}
