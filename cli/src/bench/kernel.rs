//! The benchmark's own kernels on one device: each text is compiled once, whatever the shapes. Two of them are what
//! everything is compared with, a copy and a read of the tensor.

use super::timing::Candidate;
use crate::device::guarded;
use anyhow::{Result, ensure};
use bcnorm::gpu::headless::Gpu;
use bcnorm::gpu::transfer::{buffer_with_bytes, read};
use bcnorm::tuning::AdapterClass;
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;

/// Pipelines by their final text.
#[derive(Debug)]
pub struct Kernels {
    device: wgpu::Device,
    cache: RefCell<HashMap<String, wgpu::ComputePipeline>>,
}

#[derive(Debug)]
pub struct Dispatch {
    pipeline: wgpu::ComputePipeline,
    group: wgpu::BindGroup,
    workgroups: [u32; 2],
}

impl Kernels {
    pub fn new(device: &wgpu::Device) -> Self {
        Self {
            device: device.clone(),
            cache: RefCell::default(),
        }
    }

    /// Whether the device runs workgroups of a size.
    pub fn runs(&self, size: u32) -> bool {
        let limits = self.device.limits();
        let most = limits.max_compute_invocations_per_workgroup;
        size <= most.min(limits.max_compute_workgroup_size_x)
    }

    /// The entry point `name` of a text, with the buffers that it binds, by number. As many workgroups as asked
    /// for: more than a dimension holds are folded into two.
    pub fn dispatch(
        &self,
        name: &'static str,
        text: String,
        buffers: &[(u32, &wgpu::Buffer)],
        workgroups: u64,
    ) -> Result<Dispatch> {
        let pipeline = self.pipeline(name, text);
        let entries = buffers
            .iter()
            .map(|&(binding, buffer)| wgpu::BindGroupEntry {
                binding,
                resource: buffer.as_entire_binding(),
            });
        let group = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(name),
            layout: &pipeline.get_bind_group_layout(0),
            entries: &entries.collect::<Vec<_>>(),
        });
        let most = self.device.limits().max_compute_workgroups_per_dimension;
        let total = u32::try_from(workgroups)?;
        let y = total.div_ceil(most.max(1)).max(1);
        let workgroups = [total.div_ceil(y), y];
        Ok(Dispatch {
            pipeline,
            group,
            workgroups,
        })
    }

    fn pipeline(&self, name: &'static str, text: String) -> wgpu::ComputePipeline {
        let key = format!("{name}\n{text}");
        let device = &self.device;
        let compile = || {
            let label = Some(name);
            let source = wgpu::ShaderSource::Wgsl(text.into());
            let module = wgpu::ShaderModuleDescriptor { label, source };
            device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label,
                layout: None,
                module: &device.create_shader_module(module),
                entry_point: Some(name),
                // They write workgroup memory before they read it. On Metal it is zeroed all the same: see the
                // library's own kernels.
                compilation_options: wgpu::PipelineCompilationOptions {
                    zero_initialize_workgroup_memory: device.adapter_info().backend
                        == wgpu::Backend::Metal,
                    ..Default::default()
                },
                cache: None,
            })
        };
        self.cache
            .borrow_mut()
            .entry(key)
            .or_insert_with(compile)
            .clone()
    }
}

impl Dispatch {
    pub fn encode(&self, pass: &mut wgpu::ComputePass<'_>) {
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.group, &[]);
        pass.dispatch_workgroups(self.workgroups[0], self.workgroups[1], 1);
    }
}

const COPY: &str = include_str!("../../shaders/copy.wgsl");
const READ: &str = include_str!("../../shaders/read.wgsl");

const COPY_SIZES: [u32; 5] = [8, 32, 64, 128, 256];

/// What an output holds before a kernel runs.
const POISON: u32 = 0x7fd5_ca1e;

/// The same work by different workgroup sizes, of which the fastest counts.
#[derive(Debug)]
pub struct Baseline(Vec<(u32, Dispatch)>);

/// A kernel of a baseline: its workgroup size, its text, how many numbers a workgroup writes, and all that must be
/// written.
type Variant<'a> = (u32, String, u32, Cow<'a, [u32]>);

impl Baseline {
    pub fn copies(gpu: &Gpu, kernels: &Kernels, stored: &[u32]) -> Result<Self> {
        let words = padded(stored);
        let variants = COPY_SIZES.into_iter().map(|size| {
            let text = format!("const WORKGROUP_SIZE: u32 = {size}u;\n{COPY}");
            (size, text, 4 * size, Cow::Borrowed(&words[..]))
        });
        Self::new(gpu, kernels, "copy", &words, variants)
    }

    /// Reads of a tensor. Where barriers are dear, each invocation sums alone.
    pub fn reads(
        gpu: &Gpu,
        kernels: &Kernels,
        class: AdapterClass,
        stored: &[u32],
    ) -> Result<Self> {
        let alone = class == AdapterClass::Software;
        // Workgroup sizes, and words that an invocation reads.
        let (name, sizes): (_, &[(u32, u32)]) = match alone {
            true => ("read_alone", &[(8, 64), (32, 64), (32, 256), (64, 16)]),
            false => ("read_together", &[(128, 8), (256, 4), (256, 16)]),
        };
        let source = padded(stored);
        let variants = sizes.iter().map(|&(size, words)| {
            let (together, apart) = if alone { (1, size) } else { (size, 1) };
            let expected = sums(&source, (4 * words * together) as usize);
            let constants =
                format!("const WORKGROUP_SIZE: u32 = {size}u;\nconst WORDS: u32 = {words}u;\n");
            (size, constants + READ, apart, expected.into())
        });
        Self::new(gpu, kernels, name, &source, variants)
    }

    /// Makes the kernels and checks that each writes what it must.
    fn new<'a>(
        gpu: &Gpu,
        kernels: &Kernels,
        name: &'static str,
        source: &[u32],
        variants: impl Iterator<Item = Variant<'a>>,
    ) -> Result<Self> {
        let Gpu { device, queue, .. } = gpu;
        let upload = |words: &[u32]| {
            use wgpu::BufferUsages as Usage;
            let usage = Usage::STORAGE | Usage::COPY_SRC | Usage::COPY_DST;
            buffer_with_bytes(device, "baseline", bytemuck::cast_slice(words), usage)
        };
        guarded(gpu, || {
            let source = upload(source)?;
            // Outputs of one length share a buffer.
            let mut outputs: HashMap<usize, wgpu::Buffer> = HashMap::new();
            let mut dispatches = Vec::new();
            for (size, text, each, expected) in variants.filter(|(size, ..)| kernels.runs(*size)) {
                let count = expected.len();
                let poison = vec![POISON; count];
                let output = match outputs.remove(&count) {
                    Some(output) => output,
                    None => upload(&poison)?,
                };
                queue.write_buffer(&output, 0, bytemuck::cast_slice(&poison));
                let buffers = [(0, &source), (1, &output)];
                let workgroups = (count as u64).div_ceil(each.into());
                let dispatch = kernels.dispatch(name, text, &buffers, workgroups)?;
                let mut encoder = device.create_command_encoder(&Default::default());
                dispatch.encode(&mut encoder.begin_compute_pass(&Default::default()));
                queue.submit([encoder.finish()]);
                let got = pollster::block_on(read::<u32>(device, queue, &output, 0, count))?;
                let wrong = wrong(&got, &expected);
                ensure!(
                    wrong == 0,
                    "{name} with workgroups of {size} writes {wrong} of {count} numbers wrong on {}",
                    gpu.describe()
                );
                outputs.insert(count, output);
                dispatches.push((size, dispatch));
            }
            Ok(Self(dispatches))
        })
    }

    pub fn candidates(&self) -> Vec<Candidate<'_>> {
        (0..self.0.len())
            .map(|index| self.candidate(index))
            .collect()
    }

    pub fn candidate(&self, index: usize) -> Candidate<'_> {
        let dispatch = &self.0[index].1;
        Candidate::new(1, move |pass| dispatch.encode(pass))
    }

    pub fn workgroup_size(&self, index: usize) -> u32 {
        self.0[index].0
    }
}

/// Whole words of four.
fn padded(stored: &[u32]) -> Vec<u32> {
    let mut padded = stored.to_vec();
    padded.resize(stored.len().next_multiple_of(4), 0);
    padded
}

/// The sum of every `span` words.
fn sums(words: &[u32], span: usize) -> Vec<u32> {
    let sum = |words: &[u32]| words.iter().fold(0u32, |sum, &word| sum.wrapping_add(word));
    words.chunks(span).map(sum).collect()
}

/// How many numbers are not those expected.
fn wrong(got: &[u32], expected: &[u32]) -> usize {
    got.iter()
        .zip(expected)
        .filter(|(got, want)| got != want)
        .count()
}

#[cfg(test)]
mod tests {
    use super::{sums, wrong};

    #[test]
    fn a_wrong_sum_shows() {
        let words: Vec<u32> = (0..10).map(|i| u32::MAX - i).collect();
        let right = [u32::MAX - 9, u32::MAX - 25, u32::MAX - 18];
        assert_eq!(wrong(&right, &sums(&words, 4)), 0);
        assert_eq!(wrong(&[right[0], right[1], right[2] + 1], &right), 1);
    }
}
