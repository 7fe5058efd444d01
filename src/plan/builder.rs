//! Collects the steps of a plan: windows of tensors, what kernels bind, what a plan needs of its buffers.

use super::options::RowSource;
use super::split::{Geometry, Split};
use super::step::{BufferRequirement, Step, Window};
use super::work::{fold_lanes, workgroups};
use crate::desc::{
    Activation, CHANNEL_EPS, ChannelPart, ChannelStats, Mode, NormDesc, NormKind, TensorDesc,
};
use crate::error::{Error, within};
use crate::kernels::{Access, Element, Family, KernelId, Spec};
use crate::params::{
    CUMULATIVE, ESTIMATE, NO_CHANNEL_PART, PER_CHANNEL, Params, TRAINING, UNBIASED,
};
use crate::role::Role;
use crate::tuning::Tuning;

/// Collects the steps of a plan.
pub(super) struct Builder<'a> {
    pub norm: &'a NormDesc,
    pub tensor: &'a TensorDesc,
    pub mode: Mode,
    pub tuning: &'a Tuning,
    pub geometry: Geometry,
    pub params: Params,
    pub steps: Vec<Step>,
    pub needs: Vec<BufferRequirement>,
    pub all_gather_before: Option<usize>,
}

/// A buffer of a step and its number of entries; `None` for an optional binding that is not there.
pub(super) type Slot = Option<(Role, u64)>;

impl<'a> Builder<'a> {
    pub fn new(
        norm: &'a NormDesc,
        tensor: &'a TensorDesc,
        mode: Mode,
        rows: RowSource,
        tuning: &'a Tuning,
    ) -> Result<Self, Error> {
        let geometry = Geometry::new(norm, tensor, mode, rows, tuning)?;
        Ok(Self {
            params: base_params(norm, mode, &geometry),
            norm,
            tensor,
            mode,
            tuning,
            geometry,
            steps: Vec::new(),
            needs: Vec::new(),
            all_gather_before: None,
        })
    }

    /// Adds a kernel on tables.
    pub fn push(
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
    pub fn push_groups(
        &mut self,
        kernel: KernelId,
        loops: u32,
        slots: &[Slot],
    ) -> Result<(), Error> {
        let items = self.params.num_samples * self.params.num_groups;
        let size = self.params.num_channels / self.params.num_groups;
        let lanes = fold_lanes(kernel, items, size, loops, self.tuning)?;
        let spec = self.fold_spec(kernel, lanes);
        let params = Params {
            items,
            ..self.params
        };
        self.push_step(spec, params, slots, None)
    }

    pub fn fold_spec(&self, kernel: KernelId, lanes: u32) -> Spec {
        let workgroup_size = self.tuning.fold.workgroup_size.next_multiple_of(lanes);
        Spec::new(kernel, workgroup_size, lanes)
    }

    /// Merges the parts of every row, where rows are split.
    pub fn fold_rows(
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
        let lanes = fold_lanes(kernel, rows as u32, split.parts, 2, self.tuning)?;
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
    pub fn push_tensor(
        &mut self,
        kernels: [KernelId; 2],
        split: Split,
        activation: Activation,
        accumulate: bool,
        slots: &[Slot],
    ) -> Result<(), Error> {
        let geometry = &self.geometry;
        let kernel = kernels[usize::from(geometry.channels_last)];
        let family = kernel.kernel().family;
        let workgroup_size = match family {
            Family::ColumnReduce => self.tuning.columns.workgroup_size,
            Family::RowReduce => self.tuning.reduction.workgroup_size,
            _ => self.tuning.map.workgroup_size,
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
    pub fn push_step(
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
            spec.subgroup_size = self.tuning.limits.subgroup_size.min(spec.lanes);
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
        let workgroups = workgroups(&spec, params.items, self.tensor, self.tuning)?;
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
            None => self.needs.push(BufferRequirement {
                role,
                bytes,
                access,
            }),
        }
    }

    /// What comes next reads tables of other devices, (world_size, C).
    pub fn all_gather_here(&mut self, world_size: u32) -> Result<(), Error> {
        let entries = u64::from(world_size) * u64::from(self.params.num_channels);
        within(
            || "the number of entries of all devices, world_size * C,".into(),
            entries,
            u64::from(u32::MAX),
            "u32 index",
            "gather fewer devices at a time",
        )?;
        self.all_gather_before = Some(self.steps.len());
        Ok(())
    }
}

/// The fields that all steps share.
fn base_params(norm: &NormDesc, mode: Mode, geometry: &Geometry) -> Params {
    let part = norm.channel_part(mode);
    let momentum = match norm.stats {
        ChannelStats::Batch { momentum } => momentum,
        ChannelStats::Estimate { moving_speed } => Some(moving_speed),
    };
    let training = part.reads_batch();
    let cumulative = part == ChannelPart::Batch
        && mode == Mode::Train
        && norm.track_running_stats
        && momentum.is_none();
    let group_part = norm.has_group_part(mode);
    let flags = [
        (TRAINING, training),
        (ESTIMATE, part == ChannelPart::Estimate),
        (CUMULATIVE, cumulative),
        (NO_CHANNEL_PART, part == ChannelPart::None),
        (
            PER_CHANNEL,
            group_part && (norm.kind != NormKind::BcNorm || norm.per_channel_affine),
        ),
        (UNBIASED, norm.kind == NormKind::WeightStandardization),
    ];
    Params {
        num_samples: geometry.samples,
        num_channels: geometry.channels / geometry.channel_len.max(1),
        channel_len: geometry.channel_len,
        // A divisor of num_channels, which is a u32.
        num_groups: if group_part {
            norm.num_groups as u32
        } else {
            0
        },
        row_len: geometry.row_len,
        flags: flags
            .iter()
            .map(|&(flag, on)| if on { flag } else { 0 })
            .sum(),
        eps: norm.eps,
        channel_eps: if group_part { CHANNEL_EPS } else { norm.eps },
        // InstanceNorm without a momentum keeps its statistics, as in PyTorch.
        momentum: momentum.unwrap_or(0.0),
        ..Params::default()
    }
}
