//! The layer.

use super::calls::{Backward, Call, Calls, Order, Output};
use super::pass::{Key, Pass, Plans};
use super::state::{self, StateDict, StateValue};
use super::tensor::Tensor;
use crate::desc::{Activation, ChannelStats, Fusion, Mode, NormDesc};
use crate::error::Error;
use crate::gpu::device::{self, Owner};
use crate::gpu::{Bindings, Pipelines, Tables, transfer};
use crate::plan::Direction;
use crate::role::Role;
use std::collections::BTreeMap;

/// A norm of the family with its parameters, gradients and running state on the GPU: what
/// [`NormDesc`]'s constructors name, by the conventions of the `torch.nn` module of that name.
///
/// Nothing here submits or waits but [`state_dict`](Self::state_dict), which reads back. Gradients
/// of the parameters accumulate over calls of [`backward`](Self::backward), as in PyTorch;
/// [`zero_grad`](Self::zero_grad) clears them.
///
/// Each backward goes back through the one forward before it. A second backward, or a backward after two
/// forwards (a layer used twice in a network, microbatches in flight), is an error: give each use a layer of
/// its own, and say [`discard`](Self::discard) after a forward that no backward follows. Forwards without
/// gradients ([`set_grad_enabled`](Self::set_grad_enabled)) may come in between.
///
/// Everything belongs to the device of the [`Pipelines`]: a tensor of another one is
/// [`Error::WrongDevice`]. An encoder or queue of another one cannot be told by the library:
/// [what happens then](crate::gpu#several-devices).
///
/// y, and every gradient of a tensor, has x's type and layout. Parameters, running statistics and
/// their gradients are f32.
///
/// A training loop that gives the same tensors again, to [`forward_into`](Self::forward_into) and
/// [`backward_into`](Self::backward_into) (or their twins with a residual, or in place), records what it
/// recorded before: nothing is checked, allocated or bound anew. For that the layer keeps what it bound in
/// its last four such forwards and their backwards (and four forwards without gradients), and so keeps their tensors alive, as it keeps the x of
/// the last forward alive for backward; [`forget`](Self::forget) lets go of all of it.
///
/// ```
/// use bcnorm::gpu::headless::{DeviceLimits, Gpu};
/// use bcnorm::gpu::Pipelines;
/// use bcnorm::layer::{Norm, Tensor};
/// use bcnorm::NormDesc;
///
/// # fn main() -> Result<(), bcnorm::Error> { pollster::block_on(async {
/// let gpu = Gpu::new(DeviceLimits::Default).await?;
/// let mut norm = Norm::new(&Pipelines::new(&gpu.device), NormDesc::bc_norm(4, 2))?;
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
///
/// A residual block's tail, y = relu(norm(x) + residual), in one go:
///
/// ```
/// # use bcnorm::gpu::headless::{DeviceLimits, Gpu};
/// # use bcnorm::gpu::Pipelines;
/// # use bcnorm::layer::{Norm, Tensor};
/// # use bcnorm::{Activation, NormDesc};
/// # fn main() -> Result<(), bcnorm::Error> { pollster::block_on(async {
/// # let gpu = Gpu::new(DeviceLimits::Default).await?;
/// # let tensor = |v: f32| Tensor::from_slice(&gpu.device, &[2, 4, 3], &[v; 24]);
/// # let (x, residual, grad_y) = (tensor(1.0)?, tensor(2.0)?, tensor(3.0)?);
/// let norm = Norm::new(&Pipelines::new(&gpu.device), NormDesc::batch_norm(4))?;
/// let mut norm = norm.with_activation(Activation::Relu);
/// # let mut encoder = gpu.device.create_command_encoder(&Default::default());
/// let y = norm.forward_residual(&mut encoder, &x, &residual)?;
/// let (grad_x, grad_residual) = norm.backward_residual(&mut encoder, &grad_y)?;
/// # gpu.queue.submit([encoder.finish()]);
/// # assert_eq!(y.read(&gpu.device, &gpu.queue).await?, [2.0; 24]);
/// # assert_eq!(grad_x.read(&gpu.device, &gpu.queue).await?, [0.0; 24]);
/// # assert_eq!(grad_residual.read(&gpu.device, &gpu.queue).await?, [3.0; 24]);
/// # Ok(()) }) }
/// ```
#[derive(Debug)]
pub struct Norm {
    pipelines: Pipelines,
    norm: NormDesc,
    activation: Activation,
    mode: Mode,
    grad_enabled: bool,
    buffers: BTreeMap<Role, wgpu::Buffer>,
    plans: Plans,
    /// Forwards that backward may go back through.
    calls: Calls,
    /// Those that it may not, whose tables are their own: in between they spoil nothing.
    inferences: Calls,
    order: Order,
}

impl Norm {
    /// A layer with PyTorch's initial state: weights 1, biases 0, running mean 0, running variance
    /// 1; in training mode, without an activation.
    ///
    /// # Errors
    /// Those of [`NormDesc::validate`]; [`Error::Limit`] where a parameter is larger than the device's
    /// largest binding; [`Error::Device`] where it has no memory for them or is lost.
    pub fn new(pipelines: &Pipelines, norm: NormDesc) -> Result<Self, Error> {
        norm.validate()?;
        Ok(Self {
            pipelines: pipelines.clone(),
            norm,
            activation: Activation::None,
            mode: Mode::Train,
            grad_enabled: true,
            buffers: missing(pipelines.device(), &norm, &BTreeMap::new())?,
            plans: Plans::default(),
            calls: Calls::default(),
            inferences: Calls::default(),
            order: Order::default(),
        })
    }

    /// Sets what is applied to the output.
    #[must_use]
    pub fn with_activation(mut self, activation: Activation) -> Self {
        self.activation = activation;
        self
    }

    /// The norm.
    pub fn desc(&self) -> &NormDesc {
        &self.norm
    }

    /// What is applied to the output.
    pub fn activation(&self) -> Activation {
        self.activation
    }

    /// Sets training mode.
    pub fn train(&mut self) {
        self.mode = Mode::Train;
    }

    /// Sets evaluation mode.
    pub fn eval(&mut self) {
        self.mode = Mode::Eval;
    }

    /// Whether forward saves what backward needs, as `torch.set_grad_enabled`: true at first. Without it,
    /// forward writes no tables for backward, and may take a whole group in one kernel
    /// ([`ForwardOptions::inference`](crate::ForwardOptions::inference)).
    pub fn set_grad_enabled(&mut self, enabled: bool) {
        self.grad_enabled = enabled;
    }

    /// The mode.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Sets where channel statistics come from from now on: a new momentum, or the next
    /// `estbn_moving_speed` of a training loop.
    ///
    /// # Errors
    /// [`Error::Parameter`]; [`Error::Stats`] where the norm has no such statistics; [`Error::Device`]. The
    /// layer is unchanged then.
    pub fn set_stats(&mut self, stats: ChannelStats) -> Result<(), Error> {
        let norm = self.norm.with_stats(stats);
        norm.validate()?;
        // Estimates are running statistics, which the layer may have gone without.
        let made = missing(self.pipelines.device(), &norm, &self.buffers)?;
        self.buffers.extend(made);
        self.norm = norm;
        Ok(())
    }

    /// The buffer of a parameter, of a running statistic or of a parameter's gradient: bound to an
    /// optimizer's kernels, say. None for tensors and tables, and for what the norm does not have.
    pub fn buffer(&self, role: Role) -> Option<&wgpu::Buffer> {
        self.buffers.get(&role)
    }

    /// Records y = activation(norm(x)) and keeps what backward needs. Allocates y.
    ///
    /// # Errors
    /// Those of [`Plan::forward`](crate::Plan::forward), [`Pipelines::prepare`] and [`PreparedPlan::bind`](crate::gpu::PreparedPlan::bind); nothing is
    /// recorded then.
    pub fn forward(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        x: &Tensor,
    ) -> Result<Tensor, Error> {
        let y = self.like(x, Role::X, Role::Y)?;
        self.encode_forward(encoder, x, None, Output::New(&y))?;
        Ok(y)
    }

    /// As [`forward`](Self::forward), into a tensor of the caller's. x and y may not share memory:
    /// backward reads x.
    ///
    /// # Errors
    /// As [`forward`](Self::forward), and [`Error::Shape`], [`Error::Storage`] where y is not as x.
    pub fn forward_into(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        x: &Tensor,
        y: &Tensor,
    ) -> Result<(), Error> {
        self.encode_forward(encoder, x, None, Output::Given(y))
    }

    /// Records y = activation(norm(x) + residual) and keeps what backward needs. Allocates y.
    ///
    /// # Errors
    /// As [`forward`](Self::forward), and [`Error::Shape`], [`Error::Storage`] where the residual is
    /// not as x.
    pub fn forward_residual(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        x: &Tensor,
        residual: &Tensor,
    ) -> Result<Tensor, Error> {
        let y = self.like(x, Role::X, Role::Y)?;
        self.encode_forward(encoder, x, Some(residual), Output::New(&y))?;
        Ok(y)
    }

    /// As [`forward_residual`](Self::forward_residual), into a tensor of the caller's.
    ///
    /// # Errors
    /// As [`forward_residual`](Self::forward_residual).
    pub fn forward_residual_into(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        x: &Tensor,
        residual: &Tensor,
        y: &Tensor,
    ) -> Result<(), Error> {
        self.encode_forward(encoder, x, Some(residual), Output::Given(y))
    }

    /// In evaluation, records x = activation(norm(x)): y takes x's place, and no backward follows.
    ///
    /// # Errors
    /// As [`forward`](Self::forward), and [`Error::InPlace`] in training, where backward reads x.
    pub fn forward_in_place(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        x: &Tensor,
    ) -> Result<(), Error> {
        self.encode_forward(encoder, x, None, Output::InPlace)
    }

    /// In evaluation, records x = activation(norm(x) + residual).
    ///
    /// # Errors
    /// As [`forward_residual`](Self::forward_residual) and
    /// [`forward_in_place`](Self::forward_in_place).
    pub fn forward_residual_in_place(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        x: &Tensor,
        residual: &Tensor,
    ) -> Result<(), Error> {
        self.encode_forward(encoder, x, Some(residual), Output::InPlace)
    }

    /// Records a forward.
    fn encode_forward(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        x: &Tensor,
        residual: Option<&Tensor>,
        output: Output<'_>,
    ) -> Result<(), Error> {
        let key = Key {
            norm: self.norm,
            mode: self.mode,
            fusion: Fusion {
                activation: self.activation,
                residual: residual.is_some(),
            },
            in_place: matches!(output, Output::InPlace),
            inference: !self.grad_enabled,
        };
        let with_backward = self.grad_enabled && !key.in_place;
        let calls = match with_backward {
            true => &mut self.calls,
            false => &mut self.inferences,
        };
        if let Some(known) = calls.again(&key, x, residual, output) {
            known.encode(encoder);
            self.went_forward(with_backward, x, output);
            return Ok(());
        }
        let y = output.tensor();
        if let Some(y) = y {
            y.check_like(Role::Y, x)?;
        }
        if let Some(residual) = residual {
            residual.check_like(Role::Residual, x)?;
        }
        let pass = Pass {
            key,
            tensor: x.desc().clone(),
        };
        let forward = self
            .plans
            .prepared(&pass, Direction::Forward, &self.pipelines)?;
        // The tables of the forward before serve again: the layer goes back through its last
        // forward only.
        let calls = match with_backward {
            true => &self.calls,
            false => &self.inferences,
        };
        let tables = forward.create_tables(calls.last().map(|last| &last.tables))?;
        let bindings = x.bind(self.bindings(&tables), Role::X);
        let bindings = bind(bindings, Role::Y, y);
        let bindings = bind(bindings, Role::Residual, residual);
        let bound = forward.bind(&bindings)?;
        bound.encode(encoder);
        let call = Call {
            pass,
            x: x.clone(),
            residual: residual.cloned(),
            tables,
            forward: output.kept().map(|y| (y.cloned(), bound)),
            backward: None,
        };
        match with_backward {
            true => self.calls.push(call),
            false => self.inferences.push(call),
        }
        self.went_forward(with_backward, x, output);
        Ok(())
    }

    /// What a forward that was recorded means for backward.
    fn went_forward(&mut self, with_backward: bool, x: &Tensor, output: Output<'_>) {
        if with_backward {
            self.order.went_forward();
            return;
        }
        let written = output.tensor().unwrap_or(x);
        let read = self.calls.last().into_iter();
        let mut read = read.flat_map(|call| [Some(&call.x), call.residual.as_ref()]);
        let overwritten = read.any(|tensor| tensor.is_some_and(|read| read.overlaps(written)));
        match output {
            _ if overwritten => self.order.settle(Error::BackwardAfterInPlace),
            Output::InPlace => self.order.passed(Error::BackwardAfterInPlace),
            _ => self.order.passed(Error::BackwardWithoutGrad),
        }
    }

    /// Records the gradients for the x of the last forward: returns that of x, adds those of the
    /// parameters to their buffers ([`buffer`](Self::buffer) with [`Role::GradWeight`] and so on).
    ///
    /// # Errors
    /// [`Error::BackwardAmbiguous`] after two forwards since the last backward, [`Error::BackwardTwice`]
    /// after none; [`Error::BackwardWithoutForward`]; [`Error::BackwardAfterInPlace`];
    /// [`Error::BackwardWithoutGrad`]; [`Error::ResidualGradient`] where that forward had a residual, whose gradient is
    /// [`backward_residual`](Self::backward_residual)'s to return; [`Error::Shape`] or
    /// [`Error::Storage`] where `grad_y` is not as y; and those of [`Plan::backward`](crate::Plan::backward),
    /// [`Pipelines::prepare`] and [`PreparedPlan::bind`](crate::gpu::PreparedPlan::bind). Nothing is recorded then.
    pub fn backward(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        grad_y: &Tensor,
    ) -> Result<Tensor, Error> {
        let saved = self.saved(false)?;
        let grad_x = self.like(&saved.x, Role::X, Role::GradX)?;
        self.encode_backward(encoder, grad_y, &grad_x, None, false)?;
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
        self.saved(false)?;
        self.encode_backward(encoder, grad_y, grad_x, None, true)
    }

    /// As [`backward`](Self::backward), after a forward with a residual: returns the gradients of x
    /// and of the residual. The latter is `grad_y` itself where no activation came after the sum.
    ///
    /// # Errors
    /// As [`backward`](Self::backward), with [`Error::ResidualGradient`] where the last forward had
    /// no residual.
    pub fn backward_residual(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        grad_y: &Tensor,
    ) -> Result<(Tensor, Tensor), Error> {
        let saved = self.saved(true)?;
        let grad_x = self.like(&saved.x, Role::X, Role::GradX)?;
        if saved.pass.key.fusion.activation == Activation::None {
            self.encode_backward(encoder, grad_y, &grad_x, None, false)?;
            return Ok((grad_x, grad_y.clone()));
        }
        let grad_residual = self.like(&saved.x, Role::X, Role::GradResidual)?;
        self.encode_backward(encoder, grad_y, &grad_x, Some(&grad_residual), false)?;
        Ok((grad_x, grad_residual))
    }

    /// As [`backward_residual`](Self::backward_residual), into tensors of the caller's. Without an
    /// activation the residual's gradient is `grad_y` itself, and nothing is written to `grad_residual`:
    /// give None.
    ///
    /// # Errors
    /// As [`backward_residual`](Self::backward_residual), and [`Error::ResidualTensor`] where
    /// `grad_residual` is None after an activation, or not None without one.
    pub fn backward_residual_into(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        grad_y: &Tensor,
        grad_x: &Tensor,
        grad_residual: Option<&Tensor>,
    ) -> Result<(), Error> {
        let saved = self.saved(true)?;
        let activation = saved.pass.key.fusion.activation != Activation::None;
        if activation != grad_residual.is_some() {
            return Err(Error::ResidualTensor { activation });
        }
        self.encode_backward(encoder, grad_y, grad_x, grad_residual, true)
    }

    /// The last forward, which backward can go back through.
    fn saved(&self, residual: bool) -> Result<&Call, Error> {
        self.order.check()?;
        let saved = self.calls.last().ok_or(Error::BackwardWithoutForward)?;
        let key = &saved.pass.key;
        if key.fusion.residual != residual {
            return Err(Error::ResidualGradient {
                forward: key.fusion.residual,
            });
        }
        Ok(saved)
    }

    /// Records the backward of the last forward. `again`: whether it may come again with the same
    /// tensors.
    fn encode_backward(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        grad_y: &Tensor,
        grad_x: &Tensor,
        grad_residual: Option<&Tensor>,
        again: bool,
    ) -> Result<(), Error> {
        let saved = self.calls.last().ok_or(Error::BackwardWithoutForward)?;
        if let Some(known) = saved.backward_again(grad_y, grad_x, grad_residual) {
            known.encode(encoder);
            self.order.settle(Error::BackwardTwice);
            return Ok(());
        }
        grad_y.check_like(Role::GradY, &saved.x)?;
        grad_x.check_like(Role::GradX, &saved.x)?;
        if let Some(grad_residual) = grad_residual {
            grad_residual.check_like(Role::GradResidual, &saved.x)?;
        }
        // The mode, the statistics and the activation of that forward, whatever was set since.
        let mut pass = saved.pass.clone();
        // Without an activation the residual has no part in it.
        pass.key.fusion.residual = grad_residual.is_some();
        let backward = self
            .plans
            .prepared(&pass, Direction::Backward, &self.pipelines)?;
        let saved = self.calls.last().ok_or(Error::BackwardWithoutForward)?;
        let tables = backward.create_tables(Some(&saved.tables))?;
        let bindings = saved.x.bind(self.bindings(&tables), Role::X);
        let bindings = grad_y.bind(bindings, Role::GradY);
        let bindings = grad_x.bind(bindings, Role::GradX);
        let bindings = bind(bindings, Role::Residual, saved.residual.as_ref());
        let bindings = bind(bindings, Role::GradResidual, grad_residual);
        let bound = backward.bind(&bindings)?;
        bound.encode(encoder);
        let known = again.then(|| Backward {
            grad_y: grad_y.clone(),
            grad_x: grad_x.clone(),
            grad_residual: grad_residual.cloned(),
            bound,
        });
        self.calls.went_back(tables, known);
        self.order.settle(Error::BackwardTwice);
        Ok(())
    }

    /// Says that no backward follows the forwards so far, such as an evaluation with gradients enabled or a
    /// step that is given up: the next forward is the only one again. What they added to running statistics
    /// stays.
    pub fn discard(&mut self) {
        self.order.settle(Error::BackwardWithoutForward);
    }

    /// Lets go of what the layer keeps of its calls: the last forward, which backward can then not go back
    /// through, the tensors and tables of recent ones, and the plans. Parameters and state stay.
    pub fn forget(&mut self) {
        self.calls = Calls::default();
        self.inferences = Calls::default();
        self.order = Order::default();
        self.plans = Plans::default();
    }

    /// Records the clearing of the parameters' gradients.
    pub fn zero_grad(&self, encoder: &mut wgpu::CommandEncoder) {
        let gradients = state::entries(&self.norm).into_iter();
        for gradient in gradients.filter_map(|entry| entry.gradient) {
            if let Some(buffer) = self.buffers.get(&gradient) {
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
        for entry in state::entries(&self.norm) {
            let dims = entry.dims;
            let len = dims.iter().product();
            let values = transfer::read(device, queue, &self.buffers[&entry.role], 0, len).await?;
            state.insert(entry.name.into(), StateValue::F32 { dims, values });
        }
        if let Some(name) = state::batch_count(&self.norm) {
            let count = &self.buffers[&Role::NumBatchesTracked];
            let count: Vec<u32> = transfer::read(device, queue, count, 0, 1).await?;
            let count = StateValue::I64(count.first().copied().unwrap_or(0).into());
            state.insert(name.into(), count);
        }
        if let Some((name, moving_speed)) = state::moving_speed(&self.norm) {
            let speed = StateValue::F32 {
                dims: vec![1],
                values: vec![moving_speed],
            };
            state.insert(name.into(), speed);
        }
        Ok(state)
    }

    /// Loads parameters and running state, strictly: every entry must be there, no other, each of
    /// the right shape, give or take sizes of 1 (BCNorm's `weight` and `bias` may be (G), or
    /// (1, G, 1) as in the authors' code). `pbn.*` is read as `bn.*`: the authors' ImageNet
    /// checkpoints call BCNorm's inner norm so. It takes effect with the next submission. Values are
    /// taken as they are, as in PyTorch; [`state::fit`] says which of them make no sense
    /// ([`Fit::warnings`](state::Fit::warnings)).
    ///
    /// # Errors
    /// [`Error::StateDict`] with every mismatch; nothing is loaded then. [`Error::Device`] where the device
    /// is lost or objects (natively).
    pub fn load_state_dict(&mut self, queue: &wgpu::Queue, state: &StateDict) -> Result<(), Error> {
        let fit = state::fit(&self.norm, state)?;
        device::guarded(self.pipelines.device(), "loading a state dict", || {
            for (role, values) in fit.values {
                queue.write_buffer(&self.buffers[&role], 0, bytemuck::cast_slice(values));
            }
            if let Some(count) = fit.batch_count {
                // The kernels' count stops there as well.
                let count = u32::try_from(count).unwrap_or(u32::MAX);
                let buffer = &self.buffers[&Role::NumBatchesTracked];
                queue.write_buffer(buffer, 0, &count.to_le_bytes());
            }
            Ok(())
        })?;
        self.norm = fit.norm;
        Ok(())
    }

    /// The layer's own buffers and a plan's tables.
    fn bindings(&self, tables: &Tables) -> Bindings {
        let owner = Some(self.owner());
        let bind =
            |bindings: Bindings, (&role, buffer)| bindings.with_owner(role, buffer, 0, owner);
        self.buffers
            .iter()
            .fold(Bindings::new().with_tables(tables), bind)
    }

    fn like(&self, tensor: &Tensor, role: Role, new: Role) -> Result<Tensor, Error> {
        tensor.like(self.owner(), role, new)
    }

    fn owner(&self) -> &Owner {
        self.pipelines.owner()
    }
}

/// The buffers that a norm has and that are not there yet, with PyTorch's initial values.
fn missing(
    device: &wgpu::Device,
    norm: &NormDesc,
    there: &BTreeMap<Role, wgpu::Buffer>,
) -> Result<BTreeMap<Role, wgpu::Buffer>, Error> {
    // Before anything is allocated here or there. A binding has all of a parameter.
    let largest = device.limits().max_storage_buffer_binding_size;
    let bytes = (norm.num_channels as u64).saturating_mul(4);
    if bytes > largest && !state::entries(norm).is_empty() {
        return Err(Error::Limit {
            what: format!(
                "the size of a parameter of {} channels in bytes",
                norm.num_channels
            ),
            value: bytes,
            limit: largest,
            limit_name: "max_storage_buffer_binding_size of the device",
            way_out: "request the device with the adapter's limits, or use fewer channels",
        });
    }
    let mut made = BTreeMap::new();
    for entry in state::entries(norm) {
        let len: usize = entry.dims.iter().product();
        if !there.contains_key(&entry.role) {
            let values = vec![entry.initial; len];
            made.insert(entry.role, transfer::upload(device, entry.name, &values)?);
        }
        if let Some(gradient) = entry.gradient.filter(|role| !there.contains_key(role)) {
            let zeros = transfer::zeros(device, gradient.name(), len as u64)?;
            made.insert(gradient, zeros);
        }
    }
    let count = state::batch_count(norm);
    if let Some(name) = count.filter(|_| !there.contains_key(&Role::NumBatchesTracked)) {
        let zeros = transfer::zeros(device, name, 1)?;
        made.insert(Role::NumBatchesTracked, zeros);
    }
    Ok(made)
}

/// Binds a tensor, if there is one.
fn bind(bindings: Bindings, role: Role, tensor: Option<&Tensor>) -> Bindings {
    match tensor {
        Some(tensor) => tensor.bind(bindings, role),
        None => bindings,
    }
}
