//! A layer whose batch statistics are those of all ranks.

use bcnorm::gpu::{Bindings, Pipelines, PreparedPlan, Tables, ranks, transfer};
use bcnorm::{
    Activation, BackwardOptions, ForwardOptions, Fusion, GradientMode, Mode, Norm, NormDesc, Plan,
    Role, Tensor, TensorDesc,
};
use mpi::collective::SystemOperation;
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, CommunicatorCollectives};
use pollster::block_on;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::num::NonZero;
use std::sync::Arc;

/// Why a call failed. Let [`run`](crate::run) end the job then: the other ranks wait for this one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Of this rank's layer or device.
    #[error(transparent)]
    Norm(#[from] bcnorm::Error),
    /// Ranks were given different norms.
    #[error("rank {rank} was given another norm than rank 0: give all ranks the same NormDesc")]
    OtherNorm {
        /// The first such rank.
        rank: usize,
    },
}

/// What a forward leaves for its backward: x, the residual, and tables on the GPU.
#[derive(Debug)]
pub struct Saved {
    key: Key,
    x: Tensor,
    residual: Option<Tensor>,
    tables: Tables,
}

/// What a plan is for.
#[derive(Debug, Clone, PartialEq)]
struct Key {
    norm: NormDesc,
    mode: Mode,
    tensor: TensorDesc,
    fusion: Fusion,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    Forward,
    Backward,
}

/// Plans kept: both directions, training and evaluation, of a few shapes.
const MAX_PLANS: usize = 16;

/// A [`Norm`] whose batch statistics are those of all ranks of a communicator, as `nn.SyncBatchNorm`'s; BCNorm's, too.
///
/// Each rank has a device of its own and its share of the batch, which may be larger than another's, or empty. In training
/// with the batch's statistics, forward exchanges a (count, mean, variance) a channel over the ranks, 16 bytes each, and
/// backward a pair of sums: each of them waits for the device, gathers, and goes on. Everything else exchanges nothing: evaluation,
/// norms without a channel part, a communicator of one rank; with estimated statistics backward.
///
/// The calls that exchange are collective: all ranks make them, in one order.
pub struct SyncNorm {
    norm: Norm,
    pipelines: Pipelines,
    world: SimpleCommunicator,
    plans: Vec<(Key, Way, Arc<PreparedPlan>)>,
    /// Of the last backward, for the next forward.
    idle: Option<Tables>,
}

impl SyncNorm {
    /// A layer with [`Norm`]'s initial state, the same on all ranks. Collective: it duplicates the communicator, so that its
    /// messages mix with no others.
    ///
    /// # Errors
    /// Those of [`Norm::new`]; [`Error::OtherNorm`].
    pub fn new(
        pipelines: &Pipelines,
        norm: NormDesc,
        world: &impl Communicator,
    ) -> Result<Self, Error> {
        let layer = Norm::new(pipelines, norm)?;
        let world = world.duplicate();
        let own = fingerprint(&norm);
        let mut all = vec![0u64; world.size() as usize];
        world.all_gather_into(&own, &mut all[..]);
        if let Some(rank) = all.iter().position(|other| *other != all[0]) {
            return Err(Error::OtherNorm { rank });
        }
        Ok(Self {
            norm: layer,
            pipelines: pipelines.clone(),
            world,
            plans: Vec::new(),
            idle: None,
        })
    }

    /// Sets what is applied to the output.
    #[must_use]
    pub fn with_activation(mut self, activation: Activation) -> Self {
        self.norm = self.norm.with_activation(activation);
        self
    }

    /// The layer with this rank's copy of parameters and running statistics: state dicts, buffers, mode. Its own `forward`
    /// and `backward` would exchange nothing.
    pub fn norm(&self) -> &Norm {
        &self.norm
    }

    /// The layer, to change: `train`, `eval`, `load_state_dict`, `zero_grad`, the same on all ranks.
    pub fn norm_mut(&mut self) -> &mut Norm {
        &mut self.norm
    }

    /// y = activation(norm(x) + residual) of this rank's share x, (N, C, *spatial), with the statistics of all ranks' shares.
    /// Submits to `queue`. In training it moves the running statistics, by the same bits on all ranks. x and the residual
    /// must stay as they are until backward has run.
    ///
    /// # Errors
    /// Those of [`Norm::forward`].
    pub fn forward(
        &mut self,
        queue: &wgpu::Queue,
        x: &Tensor,
        residual: Option<&Tensor>,
    ) -> Result<(Tensor, Saved), Error> {
        let key = Key {
            norm: *self.norm.desc(),
            mode: self.norm.mode(),
            tensor: x.desc().clone(),
            fusion: Fusion::NONE
                .with_activation(self.norm.activation())
                .with_residual(residual.is_some()),
        };
        let forward = self.prepared(&key, Way::Forward)?;
        let y = self.like(x, Role::Y)?;
        let tables = forward.create_tables(self.idle.take().as_ref())?;
        let mut tensors = vec![(Role::X, x), (Role::Y, &y)];
        tensors.extend(residual.map(|residual| (Role::Residual, residual)));
        self.execute(queue, &forward, &tables, &tensors)?;
        let saved = Saved {
            key,
            x: x.clone(),
            residual: residual.cloned(),
            tables,
        };
        Ok((y, saved))
    }

    /// The gradients of the loss by x, and by the residual where there was one, from that by y. What the batch's statistics make of them is of
    /// all ranks. Adds this rank's terms to the parameters' gradients: [`all_reduce_gradients`](Self::all_reduce_gradients)
    /// adds up those of all ranks.
    ///
    /// # Errors
    /// Those of [`Norm::backward`].
    pub fn backward(
        &mut self,
        queue: &wgpu::Queue,
        saved: Saved,
        grad_y: &Tensor,
    ) -> Result<(Tensor, Option<Tensor>), Error> {
        let Saved {
            mut key,
            x,
            residual,
            tables,
        } = saved;
        // Without an activation the residual has no part in it: its gradient is grad_y.
        let through = residual.is_some() && key.fusion.activation != Activation::None;
        key.fusion = key.fusion.with_residual(through);
        let backward = self.prepared(&key, Way::Backward)?;
        let grad_x = self.like(&x, Role::GradX)?;
        let grad_residual = through
            .then(|| self.like(&x, Role::GradResidual))
            .transpose()?;
        let tables = backward.create_tables(Some(&tables))?;
        let mut tensors = vec![(Role::X, &x), (Role::GradY, grad_y), (Role::GradX, &grad_x)];
        let through = residual.as_ref().zip(grad_residual.as_ref());
        if let Some((residual, gradient)) = through {
            tensors.extend([(Role::Residual, residual), (Role::GradResidual, gradient)]);
        }
        self.execute(queue, &backward, &tables, &tensors)?;
        self.idle = Some(tables);
        let own = residual.map(|_| grad_y.clone());
        Ok((grad_x, grad_residual.or(own)))
    }

    /// Puts the sum over all ranks into the parameters' gradients: once a step, behind the last backward.
    /// Where the loss is a mean over a rank's share, divide it by the whole batch instead, or the sum by the number of ranks.
    ///
    /// # Errors
    /// Those of [`transfer::read`].
    pub fn all_reduce_gradients(&self, queue: &wgpu::Queue) -> Result<(), Error> {
        let roles = [
            Role::GradWeight,
            Role::GradBias,
            Role::GradBnWeight,
            Role::GradBnBias,
        ];
        for buffer in roles.iter().filter_map(|role| self.norm.buffer(*role)) {
            let len = buffer.size() as usize / 4;
            let own: Vec<f32> = block_on(transfer::read(
                self.pipelines.device(),
                queue,
                buffer,
                0,
                len,
            ))?;
            let mut sum = vec![0f32; len];
            self.world
                .all_reduce_into(&own[..], &mut sum[..], SystemOperation::sum());
            queue.write_buffer(buffer, 0, bytemuck::cast_slice(&sum));
        }
        Ok(())
    }

    fn prepared(&mut self, key: &Key, direction: Way) -> Result<Arc<PreparedPlan>, Error> {
        let known = self
            .plans
            .iter()
            .position(|(known, way, _)| known == key && *way == direction);
        let entry = match known {
            Some(index) => self.plans.remove(index),
            None => {
                let plan = plan(key, direction, self.world.size(), &self.pipelines)?;
                (
                    key.clone(),
                    direction,
                    Arc::new(self.pipelines.prepare(plan)?),
                )
            }
        };
        let prepared = entry.2.clone();
        self.plans.truncate(MAX_PLANS - 1);
        self.plans.insert(0, entry);
        Ok(prepared)
    }

    /// A new tensor of x's description.
    fn like(&self, x: &Tensor, role: Role) -> Result<Tensor, Error> {
        let device = self.pipelines.device();
        let buffer = transfer::zeroed(device, role.name(), x.desc().buffer_bytes())?;
        Ok(Tensor::from_buffer(device, &buffer, 0, x.desc().clone()))
    }

    /// Runs a plan, with an all-gather where it exchanges.
    fn execute(
        &self,
        queue: &wgpu::Queue,
        prepared: &PreparedPlan,
        tables: &Tables,
        tensors: &[(Role, &Tensor)],
    ) -> Result<(), Error> {
        let mut bindings = Bindings::new().with_tables(tables);
        for role in prepared.plan().needs().iter().map(|need| need.role) {
            if let Some(buffer) = self.norm.buffer(role) {
                bindings = bindings.with(role, buffer);
            }
        }
        for (role, tensor) in tensors {
            bindings = bindings.with_offset(*role, tensor.buffer(), tensor.offset());
        }
        block_on(ranks::submit(prepared, queue, &bindings, |own| {
            let mut all = vec![0u32; own.len() * self.world.size() as usize];
            self.world.all_gather_into(&own[..], &mut all[..]);
            all
        }))?;
        Ok(())
    }
}

fn plan(key: &Key, direction: Way, size: i32, pipelines: &Pipelines) -> Result<Plan, Error> {
    let world_size = NonZero::new(size as u32).filter(|size| size.get() > 1);
    let Key {
        norm,
        mode,
        tensor,
        fusion,
    } = key;
    let plan = match direction {
        Way::Forward => {
            let options = ForwardOptions::default()
                .with_fusion(*fusion)
                .with_world_size(world_size);
            Plan::forward(norm, tensor, *mode, options, pipelines.tuning())
        }
        Way::Backward => {
            let options = BackwardOptions::default()
                .with_parameters(GradientMode::Accumulate)
                .with_fusion(*fusion)
                .with_world_size(world_size);
            Plan::backward(norm, tensor, *mode, options, pipelines.tuning())
        }
    };
    Ok(plan?)
}

/// A number that differs where norms do, and is the same in all ranks of a program.
fn fingerprint(norm: &NormDesc) -> u64 {
    let mut hasher = DefaultHasher::new();
    format!("{norm:?}").hash(&mut hasher);
    hasher.finish()
}
