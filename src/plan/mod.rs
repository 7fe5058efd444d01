//! A plan is data: which kernels to run on which buffers. Making one needs no GPU.
//!
//! [`Plan::forward`] and [`Plan::backward`] turn a norm, a tensor and a [`Tuning`] into a list of
//! [`Step`]s. Executors run them ([`gpu`](crate::gpu), [`cpu`](crate::cpu)); they know nothing of
//! norms, and the planner nothing of devices.

mod backward;
mod buffers;
mod builder;
mod folds;
mod forward;
mod limits;
mod options;
mod short_rows;
mod split;
mod step;
mod windows;
mod work;

pub use crate::kernels::Access;
pub use crate::limits::Limits;
pub use crate::tables::Moments;
#[doc(hidden)]
pub use buffers::BoundBuffer;
pub use options::{BackwardOptions, ForwardOptions, RowSource};
pub use step::{BufferRequirement, Direction, Step, Window};

use crate::desc::{ChannelPart, Mode, NormDesc, TensorDesc};
use crate::error::{Error, within};
use crate::kernels::KernelId;
use crate::limits::MAX_UNIFORM_STRIDE;
use crate::params::UNIFORM_BYTES;
use crate::role::{Role, RoleKind};
use crate::tuning::Tuning;
use builder::Builder;
use std::num::NonZero;

/// A list of dispatches over named buffers.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    direction: Direction,
    mode: Mode,
    norm: NormDesc,
    tensor: TensorDesc,
    steps: Vec<Step>,
    needs: Vec<BufferRequirement>,
    all_gather_before: Option<usize>,
}

impl Plan {
    /// Plans y = activation(norm(x) + residual): two tensor-sized passes (3 transfers; 2 where the
    /// statistics are known, in eval without a group part), the others on tables. In training the
    /// running statistics are updated. An empty batch makes an empty plan.
    ///
    /// # Errors
    /// Those of [`NormDesc::validate_for`]; [`Error::InPlace`] in training; [`Error::Tuning`] for a
    /// value of the tuning that no plan can be made with; [`Error::Limit`] where the tuning cannot bound a loop, a
    /// dispatch, a binding or the number of steps (4,096 windows of a tensor).
    pub fn forward(
        norm: &NormDesc,
        tensor: &TensorDesc,
        mode: Mode,
        options: ForwardOptions,
        tuning: &Tuning,
    ) -> Result<Plan, Error> {
        validate(norm, tensor, mode, options.world_size)?;
        if options.in_place && mode == Mode::Train {
            return Err(Error::InPlace);
        }
        let mut builder = Builder::new(norm, tensor, mode, options.rows, tuning)?;
        forward::plan(&mut builder, options)?;
        Ok(Plan::of(builder, Direction::Forward))
    }

    /// Plans the gradients of x and of all parameters from x, dy and the tables that the forward
    /// plan of the same norm, tensor and mode saved: two tensor-sized passes (5 transfers; with an
    /// activation and a residual 8). An empty batch yields parameter gradients of zero. Where there is no channel part
    /// (group, layer and instance norm) it reads `weight` again, which must be what it was in forward.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn backward(
        norm: &NormDesc,
        tensor: &TensorDesc,
        mode: Mode,
        options: BackwardOptions,
        tuning: &Tuning,
    ) -> Result<Plan, Error> {
        validate(norm, tensor, mode, options.world_size)?;
        let mut builder = Builder::new(norm, tensor, mode, options.rows, tuning)?;
        backward::plan(&mut builder, options)?;
        Ok(Plan::of(builder, Direction::Backward))
    }

    fn of(builder: Builder<'_>, direction: Direction) -> Plan {
        Plan {
            direction,
            mode: builder.mode,
            norm: *builder.norm,
            tensor: builder.tensor.clone(),
            steps: builder.steps,
            needs: builder.needs,
            all_gather_before: builder.all_gather_before,
        }
    }

    /// The step before which the caller gathers tables of all devices, where [`ForwardOptions::world_size`] (or the
    /// backward's) asks for it and the norm has batch statistics: record the steps before it, gather, record the rest
    /// ([`BoundPlan::encode_steps`](crate::gpu::BoundPlan::encode_steps)).
    pub fn all_gather_before(&self) -> Option<usize> {
        self.all_gather_before
    }

    /// The dispatches, in order.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Every buffer, each role once.
    pub fn needs(&self) -> &[BufferRequirement] {
        &self.needs
    }

    /// The buffers of one kind.
    pub fn needs_of(&self, kind: RoleKind) -> impl Iterator<Item = &BufferRequirement> {
        self.needs
            .iter()
            .filter(move |need| need.role.kind() == kind)
    }

    /// What the plan needs of one buffer, if anything.
    pub fn need(&self, role: Role) -> Option<&BufferRequirement> {
        self.needs.iter().find(|need| need.role == role)
    }

    /// Which way it goes.
    pub fn direction(&self) -> Direction {
        self.direction
    }

    /// Training or inference.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The norm it computes.
    pub fn norm(&self) -> &NormDesc {
        &self.norm
    }

    /// The shape it computes it for.
    pub fn tensor(&self) -> &TensorDesc {
        &self.tensor
    }

    /// The uniforms of all steps, one every `stride` bytes (no less than the largest uniform has).
    ///
    /// # Errors
    /// [`Error::Limit`] where the stride is far more than any device's alignment of uniforms (256 at most by WebGPU's
    /// default).
    #[doc(hidden)]
    pub fn uniforms(&self, stride: usize) -> Result<Vec<u8>, Error> {
        within(
            || "the stride of a plan's uniforms, in bytes,".into(),
            stride as u64,
            MAX_UNIFORM_STRIDE,
            "largest alignment",
            "use min_uniform_buffer_offset_alignment of the device",
        )?;
        let stride = stride.max(UNIFORM_BYTES);
        let mut bytes = vec![0u8; stride * self.steps.len()];
        for (slot, step) in bytes.chunks_exact_mut(stride).zip(&self.steps) {
            let bytes = step.params.as_bytes();
            slot[..bytes.len()].copy_from_slice(bytes);
        }
        Ok(bytes)
    }

    /// Checks the plan against what a device grants.
    ///
    /// # Errors
    /// [`Error::Limit`] where a buffer, a workgroup or a dispatch exceeds it.
    pub fn check_limits(&self, limits: &Limits) -> Result<(), Error> {
        limits::check(self, limits)
    }

    /// Checks buffers that an executor is about to bind: that all are there, are large enough, lie at an
    /// aligned offset, that nothing written overlaps anything else, and, unless all are bound as `read_write`, that no
    /// dispatch writes a buffer that it reads as another role.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::BufferTooSmall`], [`Error::Misaligned`], [`Error::Usage`],
    /// [`Error::Aliasing`].
    #[doc(hidden)]
    pub fn check_buffers(
        &self,
        buffers: &[BoundBuffer<'_>],
        read_write: bool,
        limits: &Limits,
    ) -> Result<(), Error> {
        buffers::check(self, buffers, read_write, limits)
    }

    /// Bytes of tensor-sized data that the plan moves: 3 transfers forward, 5 backward (6 where dx
    /// is accumulated, and so read).
    pub fn tensor_bytes(&self) -> u64 {
        self.steps.iter().map(|step| self.step_bytes(step)).sum()
    }

    /// Of them, those of one of its steps.
    pub fn step_bytes(&self, step: &Step) -> u64 {
        // What it binds of tensors, each as often as it is read and written.
        let bound = step.spec.bindings().zip(&step.bindings);
        let transfers = bound.filter(|(_, role)| role.is_tensor()).count();
        let in_place = step.bindings.contains(&Role::X)
            && matches!(
                step.spec.kernel,
                KernelId::RowAffine | KernelId::ColumnAffine | KernelId::ElementAffine
            )
            && !self.needs.iter().any(|need| need.role == Role::Y);
        let reread = usize::from(step.spec.accumulate) + usize::from(in_place);
        let bytes = step
            .window
            .map_or(self.tensor.bytes(), |window| window.bytes);
        bytes.saturating_mul((transfers + reread) as u64)
    }
}

/// The norm against the tensor. With several devices the others may hold the values that this one
/// lacks.
fn validate(
    norm: &NormDesc,
    tensor: &TensorDesc,
    mode: Mode,
    world_size: Option<NonZero<u32>>,
) -> Result<(), Error> {
    match norm.validate_for(tensor, mode) {
        Err(Error::OneValuePerChannel { .. })
            if world_size.is_some() && norm.channel_part(mode) == ChannelPart::Batch =>
        {
            Ok(())
        }
        result => result,
    }
}
