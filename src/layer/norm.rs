//! The layer.

use super::args::{Backward, Forward, Gradients, Output};
use super::pass::{Key, Pass, Plans};
use super::saved::{BackwardCall, Call, Memory, Pool, Saved, lock};
use super::state::{self, StateDict, StateValue};
use super::tensor::Tensor;
use crate::desc::{Activation, ChannelStats, Fusion, Mode, NormDesc};
use crate::error::Error;
use crate::gpu::device::{self, Owner};
use crate::gpu::{Bindings, Pipelines, Tables, Target, transfer};
use crate::plan::Direction;
use crate::role::Role;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// A norm of the family with its parameters, gradients and running state on the GPU: what
/// [`NormDesc`]'s constructors name, by the conventions of the `torch.nn` module of that name.
///
/// [`record_forward`](Self::record_forward) and [`record_backward`](Self::record_backward) record into an encoder or a
/// compute pass of the caller's; nothing is submitted. [`forward`](Self::forward) and [`backward`](Self::backward) do the
/// same in an encoder of their own and submit it. The browser package has the same verbs (`docs/calls.md` has both side
/// by side).
///
/// A forward returns y and a [`Saved`], which backward takes. Any number of them may live: a layer may be used many
/// times in a network, and micro-batches may be in flight. Backward goes by what was in force at its forward, whatever
/// was set since; where it reads weight (without a channel part), one that was loaded since is refused. Gradients of the parameters add up over backwards, as in PyTorch;
/// [`zero_grad`](Self::zero_grad) clears them.
///
/// **Order.** Submit what a layer recorded in the order in which it was recorded. Running statistics move in that order,
/// and the tables of a [`Saved`] serve the next forward as soon as a backward has used it or it is dropped. Call
/// [`release`](Self::release) before you record what shall be submitted before something recorded earlier: the layer
/// takes new tables then.
///
/// **Memory.** [`memory`](Self::memory) says what the layer holds, [`release`](Self::release) frees what no [`Saved`]
/// needs. A training loop that gives the same tensors again ([`Forward::with_y`], [`Backward::with_grad_x`]) records what
/// it recorded before: nothing is checked, allocated or bound anew. For that the layer keeps its last four calls of each
/// set of tables bound, and so keeps their tensors alive.
///
/// Everything belongs to the device of the [`Pipelines`]: a tensor of another one is
/// [`Error::WrongDevice`]. An encoder or queue of another one cannot be told by the library:
/// [what happens then](crate::gpu#several-devices).
///
/// y, and every gradient of a tensor, has x's type and layout. Parameters, running statistics and
/// their gradients are f32.
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
/// let (y, saved) = norm.record_forward(&mut encoder, &x)?;
/// let gradients = norm.record_backward(&mut encoder, saved, &y)?;
/// gpu.queue.submit([encoder.finish()]);
///
/// // A constant is normalized to the bias, here 0.
/// assert_eq!(y.read(&gpu.device, &gpu.queue).await?, [0.0; 24]);
/// assert_eq!(gradients.x.dims(), [2, 4, 3]);
/// # Ok(()) }) }
/// ```
///
/// A residual block's tail, y = relu(norm(x) + residual), in one go:
///
/// ```
/// # use bcnorm::gpu::headless::{DeviceLimits, Gpu};
/// # use bcnorm::gpu::Pipelines;
/// # use bcnorm::layer::{Forward, Norm, Tensor};
/// # use bcnorm::{Activation, NormDesc};
/// # fn main() -> Result<(), bcnorm::Error> { pollster::block_on(async {
/// # let gpu = Gpu::new(DeviceLimits::Default).await?;
/// # let tensor = |v: f32| Tensor::from_slice(&gpu.device, &[2, 4, 3], &[v; 24]);
/// # let (x, residual, grad_y) = (tensor(1.0)?, tensor(2.0)?, tensor(3.0)?);
/// let norm = Norm::new(&Pipelines::new(&gpu.device), NormDesc::batch_norm(4))?;
/// let mut norm = norm.with_activation(Activation::Relu);
/// let (y, saved) = norm.forward(&gpu.queue, Forward::new(&x).with_residual(&residual))?;
/// let gradients = norm.backward(&gpu.queue, saved, &grad_y)?;
/// # assert_eq!(y.read(&gpu.device, &gpu.queue).await?, [2.0; 24]);
/// # assert_eq!(gradients.x.read(&gpu.device, &gpu.queue).await?, [0.0; 24]);
/// # let residual = gradients.residual.expect("there was a residual");
/// # assert_eq!(residual.read(&gpu.device, &gpu.queue).await?, [3.0; 24]);
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
    pool: Arc<Mutex<Pool>>,
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
            pool: Arc::default(),
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

    /// Records y = activation(norm(x) + residual), and returns y and what backward needs. In training it moves the
    /// running statistics.
    ///
    /// x, residual and y are (N, C, *spatial) of one shape, type and layout. y is a new tensor unless
    /// [`Forward`] names one. x and the residual must stay as they are until backward has run. Backward of a call that
    /// was in place, or without gradients ([`set_grad_enabled`](Self::set_grad_enabled)), is [`Error::NothingSaved`].
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::Storage`] where the residual or y is not as x; [`Error::InPlace`] in training, where
    /// backward reads x; those of [`Plan::forward`](crate::Plan::forward), [`Pipelines::prepare`] and
    /// [`PreparedPlan::bind`](crate::gpu::PreparedPlan::bind). Nothing is recorded then.
    pub fn record_forward<'a>(
        &mut self,
        target: &mut impl Target,
        args: impl Into<Forward<'a>>,
    ) -> Result<(Tensor, Saved), Error> {
        self.encode_forward(target, args.into())
    }

    /// As [`record_forward`](Self::record_forward), into an encoder of its own, which is submitted.
    ///
    /// # Errors
    /// Those of [`record_forward`](Self::record_forward); [`Error::Device`] where the device is lost or objects
    /// (natively).
    pub fn forward<'a>(
        &mut self,
        queue: &wgpu::Queue,
        args: impl Into<Forward<'a>>,
    ) -> Result<(Tensor, Saved), Error> {
        let device = self.pipelines.device().clone();
        transfer::submit(&device, queue, "forward", |encoder| {
            self.record_forward(encoder, args)
        })
    }

    /// Records the gradients of the forward that returned `saved`: returns those of x and of the residual, and adds those
    /// of the parameters to their buffers ([`buffer`](Self::buffer) with [`Role::GradWeight`] and so on).
    ///
    /// `grad_y` and the gradients are tensors as x. The mode, the statistics and the parameters are those of that
    /// forward, whatever was set or loaded since; but where there is no channel part (GroupNorm, LayerNorm, InstanceNorm) weight is
    /// read again, and must stay as it is until backward has run. `saved` is used up, by a call that is refused, too.
    ///
    /// # Errors
    /// [`Error::ForeignSaved`] of another layer's; [`Error::NothingSaved`] where forward was in place or without
    /// gradients, or where the layer wrote over its x or residual, or
    /// loaded over the weight that backward reads, since; [`Error::NoResidualGradient`] for a
    /// `grad_residual` that nothing would be written to; [`Error::Shape`] or [`Error::Storage`] where a tensor is not as
    /// x; those of [`Plan::backward`](crate::Plan::backward), [`Pipelines::prepare`] and
    /// [`PreparedPlan::bind`](crate::gpu::PreparedPlan::bind). Nothing is recorded then.
    pub fn record_backward<'a>(
        &mut self,
        target: &mut impl Target,
        saved: Saved,
        args: impl Into<Backward<'a>>,
    ) -> Result<Gradients, Error> {
        self.encode_backward(target, &saved, args.into())
    }

    /// As [`record_backward`](Self::record_backward), into an encoder of its own, which is submitted.
    ///
    /// # Errors
    /// Those of [`record_backward`](Self::record_backward); [`Error::Device`] where the device is lost or objects
    /// (natively).
    pub fn backward<'a>(
        &mut self,
        queue: &wgpu::Queue,
        saved: Saved,
        args: impl Into<Backward<'a>>,
    ) -> Result<Gradients, Error> {
        let device = self.pipelines.device().clone();
        transfer::submit(&device, queue, "backward", |encoder| {
            self.record_backward(encoder, saved, args)
        })
    }

    fn encode_forward(
        &mut self,
        target: &mut dyn Target,
        args: Forward<'_>,
    ) -> Result<(Tensor, Saved), Error> {
        let Forward { x, residual, .. } = args;
        let in_place = matches!(args.output, Output::InPlace);
        // In training that is refused, and so it is not to be taken for an evaluation.
        let (norm, mode) = match args.recompute && !in_place {
            true => recomputed(self.norm, self.mode),
            false => (self.norm, self.mode),
        };
        let key = Key {
            norm,
            mode,
            fusion: Fusion {
                activation: self.activation,
                residual: residual.is_some(),
            },
            in_place,
            inference: !self.grad_enabled,
        };
        let mut pool = lock(&self.pool);
        let given = args.output.given();
        let again = |call: &Call| call.is(&key, x, residual, given);
        let known = match args.output {
            Output::New => None,
            Output::Given(_) | Output::InPlace => pool.again(again),
        };
        let (workspace, y) = if let Some((workspace, bound)) = known {
            bound.encode(target);
            (workspace, given.unwrap_or(x).clone())
        } else {
            let pass = Pass {
                key,
                tensor: x.desc().clone(),
            };
            if let Some(residual) = residual {
                residual.check_like(Role::Residual, x)?;
            }
            let y = match args.output {
                Output::New => x.like(self.owner(), Role::X, Role::Y)?,
                Output::Given(y) => y.clone(),
                Output::InPlace => x.clone(),
            };
            y.check_like(Role::Y, x)?;
            let plans = &mut self.plans;
            let forward = plans.prepared(&pass, Direction::Forward, &self.pipelines)?;
            let workspace = pool.idle(forward.plan());
            let tables = forward.create_tables(Some(&pool.workspaces[workspace].tables))?;
            let bindings = x.bind(self.bindings(&tables), Role::X);
            let bindings = bind(bindings, Role::Y, (!in_place).then_some(&y));
            let bindings = bind(bindings, Role::Residual, residual);
            let bound = forward.bind(&bindings)?;
            bound.encode(target);
            let call = Call {
                pass,
                x: x.clone(),
                residual: residual.cloned(),
                y: given.cloned(),
                bound: (!matches!(args.output, Output::New)).then_some(bound),
                backward: None,
            };
            pool.workspaces[workspace].set_tables(tables, 0);
            pool.workspaces[workspace].push(call);
            (workspace, y)
        };
        pool.wrote(&y);
        let saved = Saved::of(&self.pool, &mut pool, workspace);
        drop(pool);
        let saved = if in_place {
            saved.nothing(
                "that was in place, over the x that backward reads",
                "give forward a y of its own",
            )
        } else if !self.grad_enabled {
            saved.nothing(
                "without gradients",
                "call set_grad_enabled(true) before forward",
            )
        } else {
            saved
        };
        Ok((y, saved))
    }

    fn encode_backward(
        &mut self,
        target: &mut dyn Target,
        saved: &Saved,
        args: Backward<'_>,
    ) -> Result<Gradients, Error> {
        let grad_y = args.grad_y;
        let mut pool = lock(&self.pool);
        let workspace = saved.workspace(&self.pool, &mut pool)?;
        let call = &workspace.calls[0];
        let fusion = call.pass.key.fusion;
        // Without an activation the residual has no part in it.
        let through = fusion.residual && fusion.activation != Activation::None;
        if args.grad_residual.is_some() && !through {
            return Err(Error::NoResidualGradient {
                residual: fusion.residual,
            });
        }
        let known = call.backward.as_ref().filter(|known| known.is(&args));
        let (grad_x, grad_residual) = if let Some(known) = known {
            known.bound.encode(target);
            (known.grad_x.clone(), known.grad_residual.clone())
        } else {
            grad_y.check_like(Role::GradY, &call.x)?;
            let owner = self.pipelines.owner();
            let gradient = |given: Option<&Tensor>, role| match given {
                Some(given) => given.check_like(role, &call.x).map(|()| given.clone()),
                None => call.x.like(owner, Role::X, role),
            };
            let grad_x = gradient(args.grad_x, Role::GradX)?;
            let grad_residual = through.then(|| gradient(args.grad_residual, Role::GradResidual));
            let grad_residual = grad_residual.transpose()?;
            // The mode, the statistics and the activation of that forward, whatever was set since.
            let mut pass = call.pass.clone();
            pass.key.fusion.residual = through;
            let plans = &mut self.plans;
            let backward = plans.prepared(&pass, Direction::Backward, &self.pipelines)?;
            let tables = backward.create_tables(Some(&workspace.tables))?;
            let bindings = call.x.bind(self.bindings(&tables), Role::X);
            let bindings = grad_y.bind(bindings, Role::GradY);
            let bindings = grad_x.bind(bindings, Role::GradX);
            let bindings = bind(bindings, Role::Residual, call.residual.as_ref());
            let bindings = bind(bindings, Role::GradResidual, grad_residual.as_ref());
            let bound = backward.bind(&bindings)?;
            bound.encode(target);
            workspace.set_tables(tables, 1);
            if args.grad_x.is_some() && args.grad_residual.is_some() == through {
                workspace.calls[0].backward = Some(BackwardCall {
                    grad_y: grad_y.clone(),
                    grad_x: grad_x.clone(),
                    grad_residual: grad_residual.clone(),
                    bound,
                });
            }
            (grad_x, grad_residual)
        };
        for written in [Some(&grad_x), grad_residual.as_ref()]
            .into_iter()
            .flatten()
        {
            pool.wrote(written);
        }
        let own = fusion.residual.then(|| grad_y.clone());
        Ok(Gradients {
            x: grad_x,
            residual: grad_residual.or(own),
        })
    }

    /// What the layer holds of the GPU's memory: its state, tables of [`Saved`]s, tables of the pool. Tensors are the
    /// caller's and not counted.
    pub fn memory(&self) -> Memory {
        let pool = lock(&self.pool);
        Memory {
            state: self.buffers.values().map(wgpu::Buffer::size).sum(),
            saved: pool.bytes(true),
            idle: pool.bytes(false),
        }
    }

    /// Frees what no [`Saved`] needs: the tables that are idle, the plans, and the calls that are kept bound with their
    /// tensors. Parameters and state stay, and every [`Saved`] can still go back.
    pub fn release(&mut self) {
        lock(&self.pool).release();
        self.plans = Plans::default();
    }

    /// Records the clearing of the parameters' gradients.
    pub fn record_zero_grad(&self, encoder: &mut wgpu::CommandEncoder) {
        let gradients = state::entries(&self.norm).into_iter();
        for gradient in gradients.filter_map(|entry| entry.gradient) {
            if let Some(buffer) = self.buffers.get(&gradient) {
                encoder.clear_buffer(buffer, 0, None);
            }
        }
    }

    /// As [`record_zero_grad`](Self::record_zero_grad), into an encoder of its own, which is submitted.
    ///
    /// # Errors
    /// [`Error::Device`] where the device is lost or objects (natively).
    pub fn zero_grad(&self, queue: &wgpu::Queue) -> Result<(), Error> {
        transfer::submit(self.pipelines.device(), queue, "zero_grad", |encoder| {
            self.record_zero_grad(encoder);
            Ok(())
        })
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
        lock(&self.pool).loaded();
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

    fn owner(&self) -> &Owner {
        self.pipelines.owner()
    }
}

/// What computes again what a training forward computed, from the batch or from the estimates that it left, and moves
/// nothing.
fn recomputed(norm: NormDesc, mode: Mode) -> (NormDesc, Mode) {
    match norm.stats {
        _ if mode == Mode::Eval || !norm.has_running_stats() => (norm, mode),
        ChannelStats::Batch { .. } => (norm.with_track_running_stats(false), mode),
        ChannelStats::Estimate { .. } => (norm, Mode::Eval),
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
