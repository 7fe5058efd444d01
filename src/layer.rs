//! The layer in the manner of torch.nn: parameters, running state and saved tables on the GPU, under
//! PyTorch's names.

use crate::desc::{BcNormDesc, ChannelStats, Mode, TensorDesc, Write};
use crate::error::Error;
use crate::gpu::{Bindings, Pipelines, Prepared, Tables, transfer};
use crate::plan::{BackwardOptions, Plan};
use crate::role::Role;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A tensor on the GPU: a buffer, an offset, a shape. Cloning shares the buffer.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    buffer: wgpu::Buffer,
    offset: u64,
    dims: Vec<usize>,
}

impl Tensor {
    /// Uploads values, (N, C, *spatial) row by row.
    ///
    /// # Errors
    /// [`Error::Rank`], [`Error::TooManyElements`], and [`Error::Length`] where `values` is not as
    /// long as the shape asks.
    pub fn from_slice(
        device: &wgpu::Device,
        dims: &[usize],
        values: &[f32],
    ) -> Result<Tensor, Error> {
        let desc = TensorDesc::new(dims)?;
        if values.len() as u64 != desc.elements() {
            return Err(Error::Length {
                what: format!("the data for a tensor of shape {dims:?}"),
                found: values.len(),
                expected: desc.elements() as usize,
            });
        }
        Ok(Tensor {
            buffer: transfer::upload(device, "tensor", values),
            offset: 0,
            dims: dims.to_vec(),
        })
    }

    /// Views a caller's buffer from a byte offset. Whether it is large enough, aligned, and has the
    /// flag STORAGE is checked where it is used.
    pub fn from_buffer(buffer: &wgpu::Buffer, offset: u64, dims: &[usize]) -> Tensor {
        Tensor {
            buffer: buffer.clone(),
            offset,
            dims: dims.to_vec(),
        }
    }

    /// The shape.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// The buffer.
    pub fn buffer(&self) -> &wgpu::Buffer {
        &self.buffer
    }

    /// Where in the buffer it begins, in bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Reads the values back: see [`transfer::read`].
    ///
    /// # Errors
    /// Those of [`transfer::read`].
    pub async fn read(
        &self,
        device: &wgpu::Device,
        queue: &wgpu::Queue,
    ) -> Result<Vec<f32>, Error> {
        let len = TensorDesc::new(&self.dims)?.elements() as usize;
        transfer::read(device, queue, &self.buffer, self.offset, len).await
    }
}

/// Values of a state dict, as PyTorch stores them.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum StateValue {
    /// Parameters and running statistics, with their shape.
    F32 {
        /// Shape.
        dims: Vec<usize>,
        /// Values.
        values: Vec<f32>,
    },
    /// `num_batches_tracked`, a scalar.
    I64(i64),
}

/// Parameters and buffers by PyTorch's names: `weight`, `bias`, `bn.weight`, `bn.bias`,
/// `bn.running_mean`, `bn.running_var`, `bn.num_batches_tracked`, and with
/// [`ChannelStats::Estimate`] `bn.estbn_moving_speed`.
pub type StateDict = BTreeMap<String, StateValue>;

/// The f32 entries: role and whether the length is G (else C).
const F32_ENTRIES: &[(Role, bool)] = &[
    (Role::Weight, true),
    (Role::Bias, true),
    (Role::BnWeight, false),
    (Role::BnBias, false),
    (Role::RunningMean, false),
    (Role::RunningVar, false),
];

/// The parameters' gradients, with the length being G or C as above.
const GRADIENTS: &[(Role, bool)] = &[
    (Role::GradWeight, true),
    (Role::GradBias, true),
    (Role::GradBnWeight, false),
    (Role::GradBnBias, false),
];

/// What forward leaves for backward.
#[derive(Debug)]
struct Saved {
    x: Tensor,
    tables: Tables,
    mode: Mode,
    norm: BcNormDesc,
}

/// Prepared plans of one shape and mode.
#[derive(Debug)]
struct Plans {
    forward: Arc<Prepared>,
    backward: Arc<Prepared>,
}

/// Batch-Channel Normalization with its parameters, gradients and running state on the GPU.
///
/// Nothing here submits or waits but [`state_dict`](Self::state_dict), which reads back. Gradients
/// of the parameters accumulate over calls of [`backward`](Self::backward), as in PyTorch;
/// [`zero_grad`](Self::zero_grad) clears them.
///
/// ```
/// use bcnorm::gpu::headless::{DeviceLimits, Gpu};
/// use bcnorm::gpu::Pipelines;
/// use bcnorm::layer::{BcNorm, Tensor};
/// use bcnorm::BcNormDesc;
///
/// # fn main() -> Result<(), bcnorm::Error> { pollster::block_on(async {
/// let gpu = Gpu::new(DeviceLimits::Default).await?;
/// let mut norm = BcNorm::new(&Pipelines::new(&gpu.device), BcNormDesc::new(4, 2))?;
/// let x = Tensor::from_slice(&gpu.device, &[2, 4, 3], &[1.0; 24])?;
///
/// let mut encoder = gpu.device.create_command_encoder(&Default::default());
/// let y = norm.forward(&mut encoder, &x)?;
/// gpu.queue.submit([encoder.finish()]);
///
/// // A constant is normalized to the bias, here 0.
/// assert_eq!(y.read(&gpu.device, &gpu.queue).await?, [0.0; 24]);
/// # Ok(()) }) }
/// ```
#[derive(Debug)]
pub struct BcNorm {
    pipelines: Pipelines,
    norm: BcNormDesc,
    mode: Mode,
    buffers: BTreeMap<Role, wgpu::Buffer>,
    plans: Vec<(TensorDesc, Mode, BcNormDesc, Plans)>,
    saved: Option<Saved>,
}

/// Plans kept per layer: training and evaluation of a few shapes.
const MAX_PLANS: usize = 8;

impl BcNorm {
    /// A layer with PyTorch's initial state: weights 1, biases 0, running mean 0, running variance
    /// 1; in training mode.
    ///
    /// # Errors
    /// Those of [`BcNormDesc::validate`].
    pub fn new(pipelines: &Pipelines, norm: BcNormDesc) -> Result<Self, Error> {
        norm.validate()?;
        let device = pipelines.device();
        let length = |per_group: bool| {
            if per_group {
                norm.num_groups
            } else {
                norm.num_channels
            }
        };
        let mut buffers = BTreeMap::new();
        for &(role, per_group) in F32_ENTRIES {
            let initial = match role {
                Role::Weight | Role::BnWeight | Role::RunningVar => 1.0,
                _ => 0.0,
            };
            let values = vec![initial; length(per_group)];
            buffers.insert(role, transfer::upload(device, role.name(), &values));
        }
        for &(role, per_group) in GRADIENTS {
            let len = length(per_group) as u64;
            buffers.insert(role, transfer::zeros(device, role.name(), len));
        }
        let count = transfer::zeros(device, Role::NumBatchesTracked.name(), 1);
        buffers.insert(Role::NumBatchesTracked, count);
        Ok(Self {
            pipelines: pipelines.clone(),
            norm,
            mode: Mode::Train,
            buffers,
            plans: Vec::new(),
            saved: None,
        })
    }

    /// The norm.
    pub fn desc(&self) -> &BcNormDesc {
        &self.norm
    }

    /// Sets training mode.
    pub fn train(&mut self) {
        self.mode = Mode::Train;
    }

    /// Sets evaluation mode.
    pub fn eval(&mut self) {
        self.mode = Mode::Eval;
    }

    /// The mode.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Sets where channel statistics come from from now on: a new momentum, or the next
    /// `estbn_moving_speed` of a training loop.
    ///
    /// # Errors
    /// [`Error::Parameter`]; the layer is unchanged then.
    pub fn set_stats(&mut self, stats: ChannelStats) -> Result<(), Error> {
        let norm = self.norm.with_stats(stats);
        norm.validate()?;
        self.norm = norm;
        Ok(())
    }

    /// The buffer of a parameter, of a running statistic or of a parameter's gradient: bound to an
    /// optimizer's kernels, say. None for tensors and tables.
    pub fn buffer(&self, role: Role) -> Option<&wgpu::Buffer> {
        self.buffers.get(&role)
    }

    /// Records y = BCNorm(x) and keeps what backward needs. Allocates y.
    ///
    /// # Errors
    /// Those of [`Plan::forward`], [`Pipelines::prepare`] and [`Prepared::bind`]; nothing is
    /// recorded then.
    pub fn forward(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        x: &Tensor,
    ) -> Result<Tensor, Error> {
        let y = self.like(x, "y")?;
        self.forward_into(encoder, x, &y)?;
        Ok(y)
    }

    /// As [`forward`](Self::forward), into a tensor of the caller's. x and y may not share memory:
    /// backward reads x.
    ///
    /// # Errors
    /// As [`forward`](Self::forward), and [`Error::Shape`].
    pub fn forward_into(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        x: &Tensor,
        y: &Tensor,
    ) -> Result<(), Error> {
        same_shape("y", y, x)?;
        let plans = self.plans(x.dims())?;
        let forward = plans.forward.clone();
        // The tables of the forward before serve again: the layer goes back through its last
        // forward only.
        let previous = self.saved.as_ref().map(|saved| &saved.tables);
        let tables = forward.create_tables(previous);
        let bindings = self
            .bindings(&tables)
            .with_offset(Role::X, &x.buffer, x.offset)
            .with_offset(Role::Y, &y.buffer, y.offset);
        forward.encode(encoder, &bindings)?;
        self.saved = Some(Saved {
            x: x.clone(),
            tables,
            mode: self.mode,
            norm: self.norm,
        });
        Ok(())
    }

    /// Records the gradients for the x of the last forward: returns that of x, adds those of the
    /// parameters to their buffers ([`buffer`](Self::buffer) with [`Role::GradWeight`] and so on).
    ///
    /// # Errors
    /// [`Error::BackwardWithoutForward`], [`Error::Shape`] where `grad_y` is not of y's shape, and
    /// those of [`Prepared::bind`]; nothing is recorded then.
    pub fn backward(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        grad_y: &Tensor,
    ) -> Result<Tensor, Error> {
        let saved = self.saved.as_ref().ok_or(Error::BackwardWithoutForward)?;
        let grad_x = self.like(&saved.x, "grad_x")?;
        self.backward_into(encoder, grad_y, &grad_x)?;
        Ok(grad_x)
    }

    /// As [`backward`](Self::backward), into a tensor of the caller's.
    ///
    /// # Errors
    /// As [`backward`](Self::backward).
    pub fn backward_into(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        grad_y: &Tensor,
        grad_x: &Tensor,
    ) -> Result<(), Error> {
        let saved = self.saved.take().ok_or(Error::BackwardWithoutForward)?;
        let result = self.encode_backward(encoder, &saved, grad_y, grad_x);
        self.saved = Some(saved);
        result
    }

    fn encode_backward(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        saved: &Saved,
        grad_y: &Tensor,
        grad_x: &Tensor,
    ) -> Result<(), Error> {
        same_shape("grad_y", grad_y, &saved.x)?;
        same_shape("grad_x", grad_x, &saved.x)?;
        // The mode and the statistics of that forward, whatever was set since.
        let backward = self.plans_of(saved.x.dims(), saved.mode, saved.norm)?;
        let backward = backward.backward.clone();
        let tables = backward.create_tables(Some(&saved.tables));
        let bindings = self
            .bindings(&tables)
            .with_offset(Role::X, &saved.x.buffer, saved.x.offset)
            .with_offset(Role::GradY, &grad_y.buffer, grad_y.offset)
            .with_offset(Role::GradX, &grad_x.buffer, grad_x.offset);
        backward.encode(encoder, &bindings)
    }

    /// Records the clearing of the parameters' gradients.
    pub fn zero_grad(&self, encoder: &mut wgpu::CommandEncoder) {
        for (role, _) in GRADIENTS {
            if let Some(buffer) = self.buffers.get(role) {
                encoder.clear_buffer(buffer, 0, None);
            }
        }
    }

    /// Reads parameters and running state back: submits a copy each and waits.
    ///
    /// # Errors
    /// Those of [`transfer::read`].
    pub async fn state_dict(&self, queue: &wgpu::Queue) -> Result<StateDict, Error> {
        let device = self.pipelines.device();
        let mut state = StateDict::new();
        for &(role, per_group) in F32_ENTRIES {
            let dims = self.entry_dims(per_group);
            let len = dims.iter().product();
            let values = transfer::read(device, queue, &self.buffers[&role], 0, len).await?;
            state.insert(role.name().into(), StateValue::F32 { dims, values });
        }
        let count = &self.buffers[&Role::NumBatchesTracked];
        let count: Vec<u32> = transfer::read(device, queue, count, 0, 1).await?;
        let count = StateValue::I64(count.first().copied().unwrap_or(0).into());
        state.insert(Role::NumBatchesTracked.name().into(), count);
        if let ChannelStats::Estimate { moving_speed } = self.norm.stats {
            let speed = StateValue::F32 {
                dims: vec![1],
                values: vec![moving_speed],
            };
            state.insert(MOVING_SPEED.into(), speed);
        }
        Ok(state)
    }

    /// Loads parameters and running state, strictly: every entry must be there, no other, each of
    /// the right length (`weight` and `bias` may be (G), or (1, G, 1) as in the authors' code). It
    /// takes effect with the next submission.
    ///
    /// # Errors
    /// [`Error::StateDict`] with every mismatch; nothing is loaded then.
    pub fn load_state_dict(&mut self, queue: &wgpu::Queue, state: &StateDict) -> Result<(), Error> {
        let norm = self.check_state(state)?;
        for &(role, _) in F32_ENTRIES {
            if let Some(StateValue::F32 { values, .. }) = state.get(role.name()) {
                queue.write_buffer(&self.buffers[&role], 0, bytemuck::cast_slice(values));
            }
        }
        if let Some(&StateValue::I64(count)) = state.get(Role::NumBatchesTracked.name()) {
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            let buffer = &self.buffers[&Role::NumBatchesTracked];
            queue.write_buffer(buffer, 0, &count.to_le_bytes());
        }
        self.norm = norm;
        Ok(())
    }

    /// Lists all that does not fit; returns the norm with the dict's moving speed.
    fn check_state(&self, state: &StateDict) -> Result<BcNormDesc, Error> {
        let mut problems = Vec::new();
        let mut known = Vec::new();
        for &(role, per_group) in F32_ENTRIES {
            let name = role.name();
            known.push(name);
            let expected = self.entry_dims(per_group);
            let len: usize = expected.iter().product();
            match state.get(name) {
                None => problems.push(format!("{name} is missing")),
                Some(StateValue::I64(_)) => problems.push(format!("{name} is i64, expected f32")),
                Some(StateValue::F32 { dims, values }) => {
                    let flat: Vec<usize> = dims.iter().copied().filter(|&size| size != 1).collect();
                    let expected_flat = if len == 1 { vec![] } else { vec![len] };
                    if flat != expected_flat || values.len() != len {
                        problems.push(format!(
                            "{name} has shape {dims:?} and {} values, expected {expected:?}",
                            values.len()
                        ));
                    }
                }
            }
        }
        let name = Role::NumBatchesTracked.name();
        known.push(name);
        match state.get(name) {
            Some(StateValue::I64(0..)) => {}
            Some(other) => problems.push(format!("{name} is {other:?}, expected an i64 from 0")),
            None => problems.push(format!("{name} is missing")),
        }
        let mut norm = self.norm;
        if let ChannelStats::Estimate { .. } = self.norm.stats {
            known.push(MOVING_SPEED);
            match state.get(MOVING_SPEED) {
                Some(StateValue::F32 { values, .. }) if values.len() == 1 => {
                    norm.stats = ChannelStats::Estimate {
                        moving_speed: values[0],
                    };
                    if let Err(error) = norm.validate() {
                        problems.push(error.to_string());
                    }
                }
                Some(_) => problems.push(format!("{MOVING_SPEED} is not one f32")),
                None => problems.push(format!("{MOVING_SPEED} is missing")),
            }
        }
        let extra = state.keys().filter(|name| !known.contains(&name.as_str()));
        problems.extend(extra.map(|name| format!("{name} is not of this layer")));
        if problems.is_empty() {
            Ok(norm)
        } else {
            Err(Error::StateDict { problems })
        }
    }

    /// PyTorch's shape: (1, G, 1) of the group part, (C) of the channel part.
    fn entry_dims(&self, per_group: bool) -> Vec<usize> {
        if per_group {
            vec![1, self.norm.num_groups, 1]
        } else {
            vec![self.norm.num_channels]
        }
    }

    fn bindings(&self, tables: &Tables) -> Bindings {
        let bind = |bindings: Bindings, (&role, buffer)| bindings.with(role, buffer);
        self.buffers
            .iter()
            .fold(Bindings::new().with_tables(tables), bind)
    }

    fn like(&self, x: &Tensor, label: &str) -> Result<Tensor, Error> {
        let elements = TensorDesc::new(x.dims())?.elements();
        Ok(Tensor {
            buffer: transfer::zeros(self.pipelines.device(), label, elements),
            offset: 0,
            dims: x.dims.clone(),
        })
    }

    fn plans(&mut self, dims: &[usize]) -> Result<&Plans, Error> {
        self.plans_of(dims, self.mode, self.norm)
    }

    /// The plans of a shape, made once: the most recent ones are kept.
    fn plans_of(&mut self, dims: &[usize], mode: Mode, norm: BcNormDesc) -> Result<&Plans, Error> {
        let tensor = TensorDesc::new(dims)?;
        let known = self
            .plans
            .iter()
            .position(|(known, known_mode, known_norm, _)| {
                *known == tensor && *known_mode == mode && *known_norm == norm
            });
        let entry = match known {
            Some(index) => self.plans.remove(index),
            None => {
                let tuning = *self.pipelines.tuning();
                let options = BackwardOptions {
                    x: Write::Replace,
                    parameters: Write::Accumulate,
                };
                let forward = Plan::forward(&norm, &tensor, mode, &tuning)?;
                let backward = Plan::backward(&norm, &tensor, mode, options, &tuning)?;
                let plans = Plans {
                    forward: Arc::new(self.pipelines.prepare(forward)?),
                    backward: Arc::new(self.pipelines.prepare(backward)?),
                };
                (tensor, mode, norm, plans)
            }
        };
        self.plans.truncate(MAX_PLANS - 1);
        self.plans.insert(0, entry);
        Ok(&self.plans[0].3)
    }
}

const MOVING_SPEED: &str = "bn.estbn_moving_speed";

fn same_shape(what: &str, tensor: &Tensor, like: &Tensor) -> Result<(), Error> {
    if tensor.dims == like.dims {
        return Ok(());
    }
    Err(Error::Shape {
        what: what.into(),
        found: tensor.dims.clone(),
        expected: like.dims.clone(),
    })
}
