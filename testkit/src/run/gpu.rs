//! A problem on a GPU.

use crate::failure::Failure;
use crate::outputs::{Outputs, Run};
use crate::problem::Problem;
use crate::run::output_reader::OutputReader;
use crate::storage::POISON;
use bcnorm::gpu::headless::Gpu;
use bcnorm::gpu::{Bindings, Pipelines, PreparedPlan, Tables, transfer};
use bcnorm::{Error, Plan, Role};
use pollster::block_on;
use std::collections::BTreeMap;

/// A problem on a device, with the plans that are to be run on it: its inputs are uploaded, and every
/// other buffer that the plans need is poisoned.
pub struct GpuProblem<'a> {
    /// The device.
    pub gpu: &'a Gpu,
    /// A buffer for every role that the plans need and that the problem has data for.
    pub buffers: BTreeMap<Role, wgpu::Buffer>,
    /// The plans.
    pub plans: Vec<Plan>,
    reader: OutputReader,
}

const STORAGE: wgpu::BufferUsages = wgpu::BufferUsages::STORAGE
    .union(wgpu::BufferUsages::COPY_SRC)
    .union(wgpu::BufferUsages::COPY_DST);

impl<'a> GpuProblem<'a> {
    /// As [`try_new`](Self::try_new).
    ///
    /// # Panics
    /// Where that is an error.
    pub fn new(gpu: &'a Gpu, problem: &Problem, plans: &[Plan]) -> Self {
        Self::try_new(gpu, problem, plans).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Uploads a problem, and makes poisoned buffers for what the plans need besides.
    ///
    /// # Errors
    /// Those of [`transfer::buffer_with_bytes`].
    pub fn try_new(gpu: &'a Gpu, problem: &Problem, plans: &[Plan]) -> Result<Self, Error> {
        let upload = |role: Role, words: &[u32]| {
            let bytes = bytemuck::cast_slice(words);
            transfer::buffer_with_bytes(&gpu.device, role.name(), bytes, STORAGE)
        };
        let mut buffers = BTreeMap::new();
        for (role, values) in problem.inputs() {
            buffers.insert(role, upload(role, &problem.words(role, values))?);
        }
        let count = Role::NumBatchesTracked;
        buffers.insert(count, upload(count, &[problem.num_batches_tracked])?);
        for need in plans.iter().flat_map(Plan::needs) {
            let large_enough = |b: &wgpu::Buffer| b.size() >= need.bytes;
            if !buffers.get(&need.role).is_some_and(large_enough) {
                let poison = vec![POISON; (need.bytes / 4) as usize];
                buffers.insert(need.role, upload(need.role, &poison)?);
            }
        }
        Ok(Self {
            gpu,
            buffers,
            plans: plans.to_vec(),
            reader: OutputReader::of(problem),
        })
    }

    /// Binds them all.
    pub fn bindings(&self) -> Bindings {
        let bind = |bindings: Bindings, (&role, buffer)| bindings.with(role, buffer);
        self.buffers.iter().fold(Bindings::new(), bind)
    }

    /// The plans, compiled.
    ///
    /// # Errors
    /// Those of [`Pipelines::prepare`].
    pub fn prepare(&self, pipelines: &Pipelines) -> Result<Vec<PreparedPlan>, Error> {
        let plans = self.plans.iter().cloned();
        plans.map(|plan| pipelines.prepare(plan)).collect()
    }

    /// Encodes all plans in one submission.
    ///
    /// # Errors
    /// Those of [`Pipelines::prepare`] and [`PreparedPlan::bind`].
    pub fn try_run(&self, pipelines: &Pipelines) -> Result<(), Error> {
        let mut encoder = self.gpu.device.create_command_encoder(&Default::default());
        let bindings = self.bindings();
        for prepared in self.prepare(pipelines)? {
            prepared.encode(&mut encoder, &bindings)?;
        }
        self.gpu.queue.submit([encoder.finish()]);
        Ok(())
    }

    /// As [`try_run`](Self::try_run).
    ///
    /// # Panics
    /// Where that is an error.
    pub fn run(&self, pipelines: &Pipelines) {
        self.try_run(pipelines)
            .unwrap_or_else(|error| panic!("{error}"));
    }

    /// As many entries of a role's buffer as the plans bind.
    ///
    /// # Panics
    /// Where the device is lost.
    pub fn read<T: bytemuck::Pod>(&self, role: Role) -> Vec<T> {
        let needs = self.plans.iter().filter_map(|plan| plan.need(role));
        let bytes = needs.map(|need| need.bytes).max().unwrap_or(0);
        self.read_bytes(role, bytes)
            .unwrap_or_else(|error| panic!("{role}: {error}"))
    }

    fn read_bytes<T: bytemuck::Pod>(&self, role: Role, bytes: u64) -> Result<Vec<T>, Error> {
        let (device, queue) = (&self.gpu.device, &self.gpu.queue);
        let len = bytes as usize / size_of::<T>();
        block_on(transfer::read(device, queue, &self.buffers[&role], 0, len))
    }

    /// The values of a tensor or a parameter, in f32 and with channels first.
    pub fn values(&self, role: Role) -> Vec<f32> {
        self.reader.values(role, &self.read::<u32>(role))
    }

    fn output_words(&self) -> Result<BTreeMap<Role, Vec<u32>>, Error> {
        let (tensor, channels) = (&self.reader.tensor, self.reader.norm.num_channels as u64);
        self.reader.read(&self.plans, |role| {
            let needs = self.plans.iter().filter_map(|plan| plan.need(role));
            // Of what no plan needs the problem has data.
            let bytes = needs.map(|need| need.bytes).max();
            let bytes = bytes.unwrap_or_else(|| match role.is_tensor() {
                true => tensor.buffer_bytes(),
                false => 4 * channels,
            });
            self.read_bytes(role, bytes)
        })
    }

    /// What the plans left, by name.
    ///
    /// # Panics
    /// Where the device is lost.
    pub fn outputs(&self) -> Outputs {
        let words = self
            .output_words()
            .unwrap_or_else(|error| panic!("{error}"));
        self.reader.named(&words)
    }

    /// What the plans left.
    ///
    /// # Errors
    /// Where the device is lost, or where a value was never written.
    pub fn results(&self) -> Result<Run, Failure> {
        let words = self.output_words()?;
        self.reader.check_written(&words)?;
        let count = self.read_bytes::<u32>(Role::NumBatchesTracked, 4)?;
        Ok(Run {
            outputs: self.reader.named(&words),
            num_batches_tracked: count.first().copied().unwrap_or(0),
        })
    }
}

/// Uploads a problem with its plans: forward, and backward where it is computed.
///
/// # Errors
/// Those of the planner, and data that do not fit.
pub fn upload<'a>(
    gpu: &'a Gpu,
    pipelines: &Pipelines,
    problem: &Problem,
) -> Result<GpuProblem<'a>, Failure> {
    let (forward, backward) = problem.plans(pipelines.tuning())?;
    let plans: Vec<Plan> = [forward].into_iter().chain(backward).collect();
    Ok(GpuProblem::try_new(gpu, problem, &plans)?)
}

/// Runs a problem on a GPU. A value that no kernel wrote is an error.
///
/// # Errors
/// What the library refuses, data that do not fit, values that were never written.
pub fn gpu(gpu: &Gpu, pipelines: &Pipelines, problem: &Problem) -> Result<Run, Failure> {
    let uploaded = upload(gpu, pipelines, problem)?;
    uploaded.try_run(pipelines)?;
    uploaded.results()
}

/// Forward and backward on a GPU.
///
/// # Panics
/// Where [`gpu()`] is an error.
pub fn on_gpu(gpu: &Gpu, pipelines: &Pipelines, problem: &Problem) -> Outputs {
    let run = self::gpu(gpu, pipelines, problem);
    run.unwrap_or_else(|error| panic!("{error}")).outputs
}

/// Poisons every table.
pub fn poison_tables(gpu: &Gpu, tables: &Tables) {
    for (_, buffer) in tables.iter() {
        let poison = vec![POISON; (buffer.size() / 4) as usize];
        gpu.queue
            .write_buffer(buffer, 0, bytemuck::cast_slice(&poison));
    }
}
