//! A plan is data: which kernels to run on which buffers. Making one needs no GPU.
//!
//! [`Plan::forward`] and [`Plan::backward`] turn a norm, a tensor and a [`Tuning`] into a list of
//! [`Step`]s. Executors run them ([`gpu`](crate::gpu), [`cpu`](crate::cpu)); they know nothing of
//! norms, and the planner nothing of devices.

mod backward;
mod buffers;
mod elements;
mod forward;
mod geometry;
mod limits;

pub use buffers::BoundBuffer;
pub use limits::Limits;

use crate::desc::{Activation, ChannelPart, Fusion, Mode, NormDesc, TensorDesc, Write};
use crate::error::Error;
use crate::kernels::{Access, Element, Family, KernelId, Spec};
use crate::params::Params;
use crate::role::{Role, RoleKind};
use crate::tuning::Tuning;
use geometry::{Geometry, Split};
use std::num::NonZero;

/// The part of each tensor that a step binds, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Where it begins: a multiple of 256.
    pub offset: u64,
    /// Its size: a multiple of 4.
    pub bytes: u64,
}

/// One dispatch.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The kernel and what its text depends on.
    pub spec: Spec,
    /// Its uniform.
    pub params: Params,
    /// The buffers of the kernel's bindings that are there ([`Spec::bindings`]), in their order.
    pub bindings: Vec<Role>,
    /// What it binds of tensors; `None`: all.
    pub window: Option<Window>,
    /// Workgroups in x and y (more than a dimension holds are folded into two).
    pub workgroups: [u32; 2],
}

/// A buffer that a plan uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// Which.
    pub role: Role,
    /// Its size in bytes.
    pub bytes: u64,
    /// `ReadWrite` where any step writes it.
    pub access: Access,
}

/// Which way a plan goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// x to y.
    Forward,
    /// dy to dx and the parameters' gradients.
    Backward,
}

/// Where the moments of the rows come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum RowSource {
    /// Forward reads x for them.
    #[default]
    Computed,
    /// The caller fills [`Role::Rows`] beforehand, (N, C) [`Moments`](crate::tables::Moments): a
    /// convolution's epilogue, say. Forward then reads x once.
    Given,
}

/// What forward fuses, and where it takes statistics from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ForwardOptions {
    /// y = activation(norm(x) + residual).
    pub fusion: Fusion,
    /// Writes y over x: [`Role::X`] is read and written, there is no [`Role::Y`]. In eval only:
    /// backward reads x.
    pub in_place: bool,
    /// No backward follows: tables that only it reads are not written, and where a group fits on chip
    /// (see [`Tuning::fused_group`]) and its channels' statistics are known, one kernel reads x once.
    pub inference: bool,
    /// Where the moments of the rows come from.
    pub rows: RowSource,
    /// Batch statistics over several devices: the plan stops at [`Plan::exchange`] for the caller to
    /// gather each device's [`Role::ChannelMoments`] into [`Role::ChannelShards`], (shards, C), on every
    /// device.
    pub shards: Option<NonZero<u32>>,
}

/// What backward does with its outputs, and what the forward was that it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct BackwardOptions {
    /// How the gradient of x is written.
    pub x: Write,
    /// How the gradients of the parameters are written.
    pub parameters: Write,
    /// The forward's. With an activation and a residual, [`Role::GradResidual`] is written; without an
    /// activation the residual's gradient is dy itself.
    pub fusion: Fusion,
    /// The forward's.
    pub rows: RowSource,
    /// The forward's: the plan stops at [`Plan::exchange`] for the caller to gather each device's
    /// [`Role::GradientSums`] into [`Role::GradientShards`], (shards, C), on every device.
    pub shards: Option<NonZero<u32>>,
}

/// A list of dispatches over named buffers.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    direction: Direction,
    mode: Mode,
    norm: NormDesc,
    tensor: TensorDesc,
    steps: Vec<Step>,
    needs: Vec<Need>,
    exchange: Option<usize>,
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
        validate(norm, tensor, mode, options.shards)?;
        if options.in_place && mode == Mode::Train {
            return Err(Error::InPlace);
        }
        let mut builder = Builder::new(norm, tensor, mode, options.rows, tuning)?;
        forward::plan(&mut builder, options)?;
        Ok(builder.finish(Direction::Forward))
    }

    /// Plans the gradients of x and of all parameters from x, dy and the tables that the forward
    /// plan of the same norm, tensor and mode saved: two tensor-sized passes (5 transfers; with an
    /// activation and a residual 8). An empty batch yields parameter gradients of zero.
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
        validate(norm, tensor, mode, options.shards)?;
        let mut builder = Builder::new(norm, tensor, mode, options.rows, tuning)?;
        backward::plan(&mut builder, options)?;
        Ok(builder.finish(Direction::Backward))
    }

    /// The step before which the caller exchanges tables with other devices, where
    /// [`ForwardOptions::shards`] (or the backward's) asks for it and the norm has batch statistics:
    /// record the steps before it, gather, record the rest
    /// ([`Bound::encode_steps`](crate::gpu::Bound::encode_steps)).
    pub fn exchange(&self) -> Option<usize> {
        self.exchange
    }

    /// The dispatches, in order.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Every buffer, each role once.
    pub fn needs(&self) -> &[Need] {
        &self.needs
    }

    /// The buffers of one kind.
    pub fn needs_of(&self, kind: RoleKind) -> impl Iterator<Item = &Need> {
        self.needs
            .iter()
            .filter(move |need| need.role.kind() == kind)
    }

    /// What the plan needs of one buffer, if anything.
    pub fn need(&self, role: Role) -> Option<&Need> {
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

    /// The uniforms of all steps, one every `stride` bytes (no less than a [`Params`] has).
    ///
    /// # Errors
    /// [`Error::Limit`] where the stride is far more than any device's alignment of uniforms (256 at most by WebGPU's
    /// default).
    pub fn uniforms(&self, stride: usize) -> Result<Vec<u8>, Error> {
        within(
            || "the stride of a plan's uniforms, in bytes,".into(),
            stride as u64,
            MAX_STRIDE,
            "largest alignment",
            "use min_uniform_buffer_offset_alignment of the device",
        )?;
        let stride = stride.max(size_of::<Params>());
        let mut bytes = vec![0u8; stride * self.steps.len()];
        for (slot, step) in bytes.chunks_exact_mut(stride).zip(&self.steps) {
            slot[..size_of::<Params>()].copy_from_slice(bytemuck::bytes_of(&step.params));
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
    /// aligned offset, and that nothing written overlaps anything else.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::BufferTooSmall`], [`Error::Misaligned`], [`Error::Usage`],
    /// [`Error::Aliasing`].
    pub fn check_buffers(&self, buffers: &[BoundBuffer<'_>], limits: &Limits) -> Result<(), Error> {
        buffers::check(self, buffers, limits)
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

/// An error where `value` is more than `limit`, and only there.
fn within(
    what: impl FnOnce() -> String,
    value: u64,
    limit: u64,
    limit_name: &'static str,
    way_out: &'static str,
) -> Result<(), Error> {
    if value <= limit {
        return Ok(());
    }
    Err(Error::Limit {
        what: what(),
        value,
        limit,
        limit_name,
        way_out,
    })
}

/// The norm against the tensor. With several devices the others may hold the values that this one
/// lacks.
fn validate(
    norm: &NormDesc,
    tensor: &TensorDesc,
    mode: Mode,
    shards: Option<NonZero<u32>>,
) -> Result<(), Error> {
    match norm.validate_for(tensor, mode) {
        Err(Error::OneValuePerChannel { .. })
            if shards.is_some() && norm.channel_part(mode) == ChannelPart::Batch =>
        {
            Ok(())
        }
        result => result,
    }
}

/// Most bytes between uniforms: WebGPU's default alignment of them is 256.
const MAX_STRIDE: u64 = 4096;

/// Collects the steps of a plan.
struct Builder<'a> {
    norm: &'a NormDesc,
    tensor: &'a TensorDesc,
    mode: Mode,
    tuning: &'a Tuning,
    geometry: Geometry,
    params: Params,
    steps: Vec<Step>,
    needs: Vec<Need>,
    exchange: Option<usize>,
}

/// A buffer of a step and its number of entries; `None` for an optional binding that is not there.
type Slot = Option<(Role, u64)>;

impl<'a> Builder<'a> {
    fn new(
        norm: &'a NormDesc,
        tensor: &'a TensorDesc,
        mode: Mode,
        rows: RowSource,
        tuning: &'a Tuning,
    ) -> Result<Self, Error> {
        let geometry = Geometry::new(norm, tensor, mode, rows, tuning)?;
        Ok(Self {
            params: geometry::base_params(norm, mode, &geometry),
            norm,
            tensor,
            mode,
            tuning,
            geometry,
            steps: Vec::new(),
            needs: Vec::new(),
            exchange: None,
        })
    }

    /// Adds a kernel on tables.
    fn push(
        &mut self,
        kernel: KernelId,
        lanes: u32,
        params: Params,
        slots: &[Slot],
    ) -> Result<(), Error> {
        let spec = self.fold_spec(kernel, lanes);
        self.push_step(spec, params, slots, None)
    }

    /// Adds a kernel on the rows of every (sample, group), which reads them several times: `loops`.
    fn push_groups(&mut self, kernel: KernelId, loops: u32, slots: &[Slot]) -> Result<(), Error> {
        let items = self.params.num_samples * self.params.num_groups;
        let size = self.params.num_channels / self.params.num_groups;
        let lanes = geometry::fold_lanes(kernel, items, size, loops, self.tuning)?;
        let spec = self.fold_spec(kernel, lanes);
        let params = Params {
            items,
            ..self.params
        };
        self.push_step(spec, params, slots, None)
    }

    fn fold_spec(&self, kernel: KernelId, lanes: u32) -> Spec {
        let workgroup_size = self.tuning.fold_workgroup_size.next_multiple_of(lanes);
        Spec::new(kernel, workgroup_size, lanes)
    }

    /// Merges the parts of every row, where rows are split.
    fn fold_rows(
        &mut self,
        kernel: KernelId,
        split: Split,
        from: Role,
        to: Role,
    ) -> Result<(), Error> {
        if split.parts == 1 {
            return Ok(());
        }
        let rows = self.geometry.rows();
        let lanes = geometry::fold_lanes(kernel, rows as u32, split.parts, 2, self.tuning)?;
        let params = Params {
            items: rows as u32,
            parts: split.parts,
            ..self.params
        };
        let slots = [
            Some((from, rows * u64::from(split.parts))),
            Some((to, rows)),
        ];
        self.push(kernel, lanes, params, &slots)
    }

    /// Adds a tensor-sized kernel, in as many windows as it takes. `kernels` are those for channels
    /// first and last.
    fn push_tensor(
        &mut self,
        kernels: [KernelId; 2],
        split: Split,
        activation: Activation,
        accumulate: bool,
        slots: &[Slot],
    ) -> Result<(), Error> {
        let geometry = &self.geometry;
        let kernel = kernels[usize::from(geometry.channels_last)];
        let reduces = kernel.kernel().family == Family::ColumnReduce;
        let workgroup_size = match reduces {
            true => self.tuning.column_workgroup_size,
            false => self.tuning.workgroup_size,
        };
        let spec = Spec {
            dtype: geometry.dtype,
            width: split.width,
            aligned: split.aligned,
            accumulate,
            activation,
            ..Spec::new(kernel, workgroup_size, split.lanes)
        };
        let num_channels = geometry.channels;
        let columns = num_channels.div_ceil(split.width);
        for window in geometry.windows(&split, self.tuning)? {
            let params = Params {
                items: window.items,
                first_item: window.first_item,
                first_word: window.first_word,
                // At most 2^32 of 2 bytes, fewer in a binding.
                num_words: u32::try_from(window.words).unwrap_or(u32::MAX),
                parts: split.parts,
                words_per_part: split.words_per_part,
                columns,
                num_channels,
                ..self.params
            };
            let spec = Spec {
                column_words: window.column_words,
                ..spec
            };
            self.push_step(spec, params, slots, window.window)?;
        }
        Ok(())
    }

    /// Adds a dispatch, and what it needs of its buffers.
    fn push_step(
        &mut self,
        spec: Spec,
        params: Params,
        slots: &[Slot],
        window: Option<Window>,
    ) -> Result<(), Error> {
        let kernel = spec.kernel.kernel();
        debug_assert_eq!(kernel.bindings.len(), slots.len(), "{}", kernel.name);
        let mut spec = spec;
        if kernel.family.reduces_side_by_side() {
            spec.subgroup_size = self.tuning.subgroup_size.min(spec.lanes);
        }
        let mut bindings = Vec::with_capacity(slots.len());
        for (index, (declared, slot)) in kernel.bindings.iter().zip(slots).enumerate() {
            let &Some((role, count)) = slot else {
                debug_assert!(declared.optional, "{}.{}", kernel.name, declared.name);
                spec.absent |= 1 << index;
                continue;
            };
            let bytes = match declared.element {
                Element::Word => self.tensor.buffer_bytes(),
                element => count * element.bytes(&spec),
            };
            self.need(role, bytes, declared.access);
            bindings.push(role);
        }
        let workgroups = geometry::workgroups(&spec, params.items, self.tensor, self.tuning)?;
        self.steps.push(Step {
            spec,
            params,
            bindings,
            window,
            workgroups,
        });
        Ok(())
    }

    fn need(&mut self, role: Role, bytes: u64, access: Access) {
        match self.needs.iter_mut().find(|need| need.role == role) {
            Some(need) => {
                need.bytes = need.bytes.max(bytes);
                if access == Access::ReadWrite {
                    need.access = access;
                }
            }
            None => self.needs.push(Need {
                role,
                bytes,
                access,
            }),
        }
    }

    /// What comes next reads tables of other devices, (shards, C).
    fn exchange_here(&mut self, shards: u32) -> Result<(), Error> {
        let entries = u64::from(shards) * u64::from(self.params.num_channels);
        within(
            || "the number of entries of all devices, shards * C,".into(),
            entries,
            u64::from(u32::MAX),
            "u32 index",
            "gather fewer shards at a time",
        )?;
        self.exchange = Some(self.steps.len());
        Ok(())
    }

    fn finish(self, direction: Direction) -> Plan {
        Plan {
            direction,
            mode: self.mode,
            norm: *self.norm,
            tensor: self.tensor.clone(),
            steps: self.steps,
            needs: self.needs,
            exchange: self.exchange,
        }
    }
}
