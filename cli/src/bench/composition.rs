//! BCNorm as an eager framework dispatches it: op by op, each a pass of its own over tensor-sized data. The
//! baseline for what fusing the ops gains.
//!
//! The ops are those that PyTorch's autograd runs of the authors' module (`out = bn(x)`, then
//! `batch_norm` of the groups as channels, then `weight * out`, then `+ bias`), with the transfers of its CUDA
//! kernels: statistics are one read, the normalization a read and a write; a batch norm's backward is a
//! reduction over dy and its input, and a pass that reads both and writes. What is C-sized (the update of
//! running statistics) is left out, which favours the composition.

use super::Direction;
use super::kernel::Dispatch;
use super::measure::Machine;
use super::subject::Part;
use super::timing::Candidate;
use crate::device::guarded;
use anyhow::{Context as _, Result, ensure};
use bcnorm::gpu::headless::Gpu;
use bcnorm::gpu::transfer::{buffer_with_bytes, read, upload, zeros};
use bcnorm::tuning::AdapterClass;
use bcnorm::{DType, Layout, NormKind, desc};
use bcnorm_testkit::oracle;
use bcnorm_testkit::problem::Problem;
use bcnorm_testkit::run::Expected;
use wgpu::Buffer;

const COMMON: &str = include_str!("../../shaders/composition/common.wgsl");
const REDUCE: &str = include_str!("../../shaders/composition/reduce.wgsl");
const FOLD: &str = include_str!("../../shaders/composition/fold.wgsl");
const MAP: &str = include_str!("../../shaders/composition/map.wgsl");
const TREE: &str = include_str!("../../shaders/composition/tree.wgsl");
const ALONE: &str = include_str!("../../shaders/composition/alone.wgsl");
const OPS: &str = include_str!("../../shaders/composition/ops.wgsl");

/// A result further than this from the reference is not timed. Variances are E[x^2] - E[x]^2 in f32, as a
/// plain one-read reduction has them: where a mean is 20 deviations, they lose a factor of 400 of f32's 6e-8
/// and of what some thousand additions in a row add to it.
const MAX_ERROR: f64 = 1e-3;

/// Most entries that one invocation of a fold adds up (llvmpipe ends an invocation after 65,535 iterations,
/// silently).
const MAX_FOLD: u64 = 60_000;

/// The text of an op in `ops.wgsl`: what follows its name, up to the next one.
fn text_of(op: &str) -> Result<&'static str> {
    let sections = OPS.split("//! ").filter_map(|text| text.split_once('\n'));
    let mut sections = sections.filter(|(name, _)| *name == op);
    let (_, text) = sections
        .next()
        .with_context(|| format!("there is no op {op}"))?;
    Ok(text)
}

/// A tensor seen as rows: `channels` of them a sample.
#[derive(Clone, Copy)]
struct View {
    samples: u64,
    channels: u64,
    len: u64,
    eps: f32,
}

impl View {
    fn rows(self) -> u64 {
        self.samples * self.channels
    }
}

/// How an op's work is shared out.
#[derive(Clone, Copy)]
struct Split {
    lanes: u64,
    parts: u64,
    words: u64,
}

#[derive(Debug, Default)]
struct Sequence {
    dispatches: Vec<Dispatch>,
    transfers: u64,
}

/// The three directions of one tensor on one device.
#[derive(Debug)]
pub struct Composition {
    workgroup_size: u32,
    /// Forward, backward, eval.
    sequences: [Sequence; 3],
    tensor_bytes: u64,
    y: Buffer,
    dx: Buffer,
    /// Bias and weight of the channel part; of the groups, first of the bias, first of the weight.
    gradients: [Buffer; 3],
}

/// Workgroup sizes of which the fastest counts.
const WORKGROUP_SIZES: [u32; 2] = [32, 128];

/// Whether a problem is one that the composition computes; why not otherwise.
pub fn applies(gpu: &Gpu, problem: &Problem) -> bool {
    let tensor = problem.tensor();
    problem.norm.kind == NormKind::BcNorm
        && problem.dtype == DType::F32
        && problem.layout == Layout::ChannelsFirst
        && tensor.bytes() + 12 <= gpu.device.limits().max_storage_buffer_binding_size
}

/// The compositions of a problem, by workgroup size, all of them right; backward only where the problem has it.
pub fn compositions(machine: &Machine, parts: &[Part]) -> Result<Vec<Composition>> {
    guarded(&machine.gpu, || {
        let sizes = WORKGROUP_SIZES.into_iter();
        let sizes = sizes.filter(|&size| machine.kernels.runs(size));
        let make = |size| {
            let composition = Composition::new(machine, size, &parts[0].problem)?;
            composition.check(&machine.gpu, parts)?;
            Ok(composition)
        };
        sizes.map(make).collect()
    })
}

struct Builder<'a> {
    machine: &'a Machine,
    class: AdapterClass,
    workgroup_size: u32,
    sequence: Sequence,
}

impl Builder<'_> {
    /// How a view's rows are shared out: enough invocations for the device, words enough for each.
    fn split(&self, view: View, reduces: bool) -> Split {
        let words = (view.len / 4).max(1);
        let (wanted, least, lanes) = match self.class {
            AdapterClass::Software => (512, 64, 1),
            _ => {
                let lanes = words.div_ceil(2).next_power_of_two();
                (1 << 17, 4, lanes.min(u64::from(self.workgroup_size)))
            }
        };
        let most = if reduces { 1024 } else { least };
        let items = wanted / lanes;
        let parts = items.div_ceil(view.rows());
        let words_per_part = words.div_ceil(parts).clamp(least * lanes, most * lanes);
        Split {
            lanes,
            parts: words.div_ceil(words_per_part),
            words: words_per_part,
        }
    }

    /// An op by its kernel and its name, with the numbers of what it binds.
    fn op(
        &mut self,
        kernel: &'static str,
        name: &str,
        view: View,
        split: Split,
        tensors: &[(u32, &Buffer)],
        tables: &[(u32, &Buffer)],
    ) -> Result<()> {
        let folds = kernel == "fold";
        let size = u64::from(self.workgroup_size);
        let (lanes, items) = match (folds, self.class) {
            (false, _) => (split.lanes, view.rows() * split.parts),
            (true, AdapterClass::Software) => (1, view.channels),
            (true, _) => {
                let entries = view.samples * split.parts;
                (entries.next_power_of_two().min(size), view.channels)
            }
        };
        let entries = view.samples * split.parts;
        ensure!(
            entries / lanes <= MAX_FOLD,
            "{entries} parts a channel are more than the composition's folds take"
        );
        let gather = match (lanes, kernel) {
            (_, "map") => "",
            (1, _) => ALONE,
            _ => TREE,
        };
        let main = match kernel {
            "reduce" => REDUCE,
            "fold" => FOLD,
            _ => MAP,
        };
        let text = text_of(name)?;
        let text = format!(
            "const WORKGROUP_SIZE: u32 = {size}u;\nconst LANES: u32 = {lanes}u;\n{COMMON}\n\
             struct Terms {{ first: vec4<f32>, second: vec4<f32> }}\n{gather}\n{text}\n{main}"
        );
        let count = (view.samples * view.len) as f32;
        let words = [
            view.rows() as u32,
            view.len as u32,
            view.channels as u32,
            view.samples as u32,
            split.parts as u32,
            split.words as u32,
            count.to_bits(),
            view.eps.to_bits(),
        ];
        let (device, usage) = (&self.machine.gpu.device, wgpu::BufferUsages::UNIFORM);
        let bytes = bytemuck::cast_slice(&words);
        let uniform = buffer_with_bytes(device, "composition", bytes, usage)?;
        let mut buffers = vec![(0, &uniform)];
        buffers.extend(tensors.iter().chain(tables));
        let workgroups = (items * lanes).div_ceil(size);
        let kernels = &self.machine.kernels;
        let dispatch = kernels.dispatch(kernel, text, &buffers, workgroups)?;
        self.sequence.dispatches.push(dispatch);
        self.sequence.transfers += tensors.len() as u64;
        Ok(())
    }

    /// A reduction over a tensor (or two), then its fold over each channel's parts.
    fn reduce(
        &mut self,
        name: &str,
        view: View,
        tensors: &[(u32, &Buffer)],
        tables: &[(u32, &Buffer)],
        results: &[(u32, &Buffer)],
    ) -> Result<()> {
        let split = self.split(view, true);
        let count = 2 * view.rows() * split.parts;
        let parts = zeros(&self.machine.gpu.device, "composition parts", count)?;
        let to = [tables, &[(8, &parts)]].concat();
        self.op("reduce", name, view, split, tensors, &to)?;
        let from = [tables, &[(7, &parts)], results].concat();
        self.op("fold", &format!("fold_{name}"), view, split, &[], &from)
    }

    fn map(
        &mut self,
        name: &str,
        view: View,
        tensors: &[(u32, &Buffer)],
        tables: &[(u32, &Buffer)],
    ) -> Result<()> {
        let split = self.split(view, false);
        self.op("map", name, view, split, tensors, tables)
    }

    fn take(&mut self) -> Sequence {
        std::mem::take(&mut self.sequence)
    }
}

impl Composition {
    fn new(machine: &Machine, workgroup_size: u32, problem: &Problem) -> Result<Self> {
        let device = &machine.gpu.device;
        let tensor = problem.tensor();
        let (samples, channels) = (tensor.num_samples().into(), tensor.num_channels().into());
        let (len, groups) = (u64::from(tensor.row_len()), problem.norm.num_groups as u64);
        // The tensor as it is; its groups as channels of one sample, and as channels of many.
        let eps = desc::CHANNEL_EPS;
        let whole = View {
            samples,
            channels,
            len,
            eps,
        };
        let grouped = View {
            samples: 1,
            channels: samples * groups,
            len: len * channels / groups,
            eps: problem.norm.eps,
        };
        let affine = View {
            samples,
            channels: groups,
            ..grouped
        };
        let padded = tensor.elements().next_multiple_of(4);
        let uploaded = |label, values: &[f32]| {
            let mut values = values.to_vec();
            values.resize(padded as usize, 0.0);
            upload(device, label, &values)
        };
        let made = |label| zeros(device, label, padded);
        let table = |label, entries: u64| zeros(device, label, 2 * entries);
        let x = uploaded("composition x", &problem.x)?;
        let dy = uploaded("composition dy", &problem.grad_y)?;
        let (z, z_hat, scratch) = (made("z")?, made("z_hat")?, made("scratch")?);
        let (y, dx) = (made("y")?, made("dx")?);
        let bn_weight = upload(device, "bn.weight", &problem.bn_weight)?;
        let bn_bias = upload(device, "bn.bias", &problem.bn_bias)?;
        let weight = upload(device, "weight", &problem.weight)?;
        let bias = upload(device, "bias", &problem.bias)?;
        let running = problem.running_mean.iter().zip(&problem.running_var);
        let running = running.flat_map(|(&mean, &var)| [mean, (var + eps).sqrt().recip()]);
        let running = upload(device, "running", &running.collect::<Vec<f32>>())?;
        let batch = table("batch statistics", channels)?;
        let group = table("group statistics", samples * groups)?;
        let channel_means = table("channel means", channels)?;
        let group_means = table("group means", samples * groups)?;
        let unused = table("unused", samples * groups)?;
        let gradients = [
            table("channel gradients", channels)?,
            table("bias gradient", groups)?,
            table("weight gradient", groups)?,
        ];
        let mut builder = Builder {
            machine,
            class: machine.pipelines.tuning().class,
            workgroup_size,
            sequence: Sequence::default(),
        };

        // out = batch_norm(x): 3 transfers in training, 2 in eval.
        let normalized = |builder: &mut Builder, table: &Buffer| {
            let tables = [(3, table), (4, &bn_weight), (5, &bn_bias)];
            builder.map("normalize", whole, &[(1, &x), (10, &z)], &tables)
        };
        // out = batch_norm(out, groups as channels): 3; out = weight * out: 2; out = out + bias: 2.
        let group_part = |builder: &mut Builder| {
            builder.reduce("statistics", grouped, &[(1, &z)], &[], &[(8, &group)])?;
            let tensors = [(1, &z), (10, &z_hat)];
            builder.map("normalize_plain", grouped, &tensors, &[(3, &group)])?;
            let tensors = [(1, &z_hat), (10, &scratch)];
            builder.map("scale", affine, &tensors, &[(4, &weight)])?;
            builder.map("shift", affine, &[(1, &scratch), (10, &y)], &[(5, &bias)])
        };
        builder.reduce("statistics", whole, &[(1, &x)], &[], &[(8, &batch)])?;
        normalized(&mut builder, &batch)?;
        group_part(&mut builder)?;
        let forward = builder.take();
        normalized(&mut builder, &running)?;
        group_part(&mut builder)?;
        let eval = builder.take();

        if problem.backward {
            // Of + bias: the bias's gradient, 1.
            let [channel, of_bias, of_weight] = &gradients;
            builder.reduce("sum", affine, &[(1, &dy)], &[], &[(8, of_bias)])?;
            // Of weight * out: dy * weight, 2; dy * out, 3, and its sum, 1.
            let d_z_hat = &scratch;
            builder.map("scale", affine, &[(1, &dy), (10, d_z_hat)], &[(4, &weight)])?;
            let product = &dx;
            let tensors = [(1, &z_hat), (2, &dy), (10, product)];
            builder.map("multiply", affine, &tensors, &[])?;
            builder.reduce("sum", affine, &[(1, product)], &[], &[(8, of_weight)])?;
            // Of each batch norm: a reduction over dy and x, 2, and the gradient, 3.
            let dz = &y;
            let results = [(8, &group_means), (9, &unused)];
            let tensors = [(1, &z), (2, d_z_hat)];
            builder.reduce("products", grouped, &tensors, &[(3, &group)], &results)?;
            let tensors = [(1, &z), (2, d_z_hat), (10, dz)];
            let tables = [(3, &group), (6, &group_means)];
            builder.map("gradient_plain", grouped, &tensors, &tables)?;
            let results = [(8, &channel_means), (9, channel)];
            let tensors = [(1, &x), (2, dz)];
            builder.reduce("products", whole, &tensors, &[(3, &batch)], &results)?;
            let tensors = [(1, &x), (2, dz), (10, &dx)];
            let tables = [(3, &batch), (4, &bn_weight), (6, &channel_means)];
            builder.map("gradient", whole, &tensors, &tables)?;
        }
        let backward = builder.take();
        Ok(Self {
            workgroup_size,
            sequences: [forward, backward, eval],
            tensor_bytes: tensor.bytes(),
            y,
            dx,
            gradients,
        })
    }

    fn sequence(&self, direction: Direction) -> &Sequence {
        &self.sequences[direction as usize]
    }

    /// Tensor-sized bytes that a direction moves.
    pub fn bytes(&self, direction: Direction) -> u64 {
        self.sequence(direction).transfers * self.tensor_bytes
    }

    fn encode(&self, direction: Direction, pass: &mut wgpu::ComputePass<'_>) {
        let dispatches = &self.sequence(direction).dispatches;
        dispatches.iter().for_each(|dispatch| dispatch.encode(pass));
    }

    /// A direction, to be timed. Backward reads what forward (or eval) left.
    pub fn candidate(&self, direction: Direction) -> Candidate<'_> {
        let dispatches = self.sequence(direction).dispatches.len();
        Candidate::new(dispatches, move |pass| self.encode(direction, pass))
    }

    /// Runs the directions once and compares with the reference: of training, and of eval where it is measured.
    fn check(&self, gpu: &Gpu, parts: &[Part]) -> Result<()> {
        let run = |direction| {
            let mut encoder = gpu.device.create_command_encoder(&Default::default());
            let mut pass = encoder.begin_compute_pass(&Default::default());
            self.encode(direction, &mut pass);
            drop(pass);
            gpu.queue.submit([encoder.finish()]);
        };
        let training = &parts[0].expected;
        for eval in &parts[1..] {
            run(Direction::Eval);
            self.compare(gpu, "y", &eval.expected, &self.y, None)?;
        }
        run(Direction::Forward);
        self.compare(gpu, "y", training, &self.y, None)?;
        if training.contains_key("grad_x") {
            run(Direction::Backward);
        }
        let [channel, bias, weight] = &self.gradients;
        for (name, buffer, of_pair) in [
            ("grad_x", &self.dx, None),
            ("grad_bn.bias", channel, Some(0)),
            ("grad_bn.weight", channel, Some(1)),
            ("grad_bias", bias, Some(0)),
            ("grad_weight", weight, Some(0)),
        ] {
            self.compare(gpu, name, training, buffer, of_pair)?;
        }
        Ok(())
    }

    /// Compares a tensor, or one of the two values of a table's entries.
    fn compare(
        &self,
        gpu: &Gpu,
        name: &str,
        expected: &Expected,
        buffer: &Buffer,
        of_pair: Option<usize>,
    ) -> Result<()> {
        let Some((values, scale)) = expected.get(name) else {
            return Ok(());
        };
        let stride = if of_pair.is_some() { 2 } else { 1 };
        let len = values.len() * stride;
        let got: Vec<f32> = pollster::block_on(read(&gpu.device, &gpu.queue, buffer, 0, len))?;
        let got = got.into_iter().skip(of_pair.unwrap_or(0)).step_by(stride);
        let got: Vec<f32> = got.collect();
        let error = oracle::error(&got, values, *scale);
        ensure!(
            error <= MAX_ERROR,
            "{name} of the op-by-op composition (workgroups of {}) is wrong by {error:.1e}, so it is not \
             timed",
            self.workgroup_size
        );
        Ok(())
    }
}
