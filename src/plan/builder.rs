//! Collects the steps of a plan: windows of tensors, what kernels bind, what a plan needs of its buffers.

use super::options::RowSource;
use super::split::{Geometry, Split};
use super::step::{BufferRequirement, Step, Window};
use super::work::{fold_lanes, workgroups};
use crate::desc::{
    Activation, CHANNEL_EPS, ChannelPart, ChannelStats, DType, Mode, NormDesc, NormKind, TensorDesc,
};
use crate::error::{Error, within};
use crate::kernels::{Access, Element, Family, Spec};
use crate::params::{
    CUMULATIVE, ColumnParams, ColumnSplit, Dispatch, ESTIMATE, Norm, PER_CHANNEL, Params,
    PartParams, Parts, RowParams, RowSplit, Shape, TRAINING, Table, UNBIASED,
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
    /// How the kernels are told the norm.
    pub setting: Norm,
    /// Samples, as the tables have them.
    pub num_samples: u32,
    /// Channels, groups and rows, as the tables have them.
    pub shape: Shape,
    /// Columns of the table of gradient terms: the channel part's first.
    pub columns: u32,
    pub channel_columns: u32,
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
            setting: setting(norm, mode),
            num_samples: geometry.samples,
            shape: shape(norm, mode, &geometry),
            columns: 0,
            channel_columns: 0,
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

    /// The table of channels, which there is where there is a channel part.
    pub fn channel_table(&self) -> Slot {
        let part = self.norm.channel_part(self.mode);
        (part != ChannelPart::None).then_some((Role::Channels, u64::from(self.shape.num_channels)))
    }

    /// The group part's weight where it is per channel and no table of channels has it.
    pub fn channel_weight(&self) -> Slot {
        let read = self.norm.backward_reads_weight(self.mode);
        read.then_some((Role::Weight, self.norm.affine_len() as u64))
    }

    /// The group part's weight, per group or per channel, unless the table of channels has it.
    pub fn group_weight(&self) -> Slot {
        let per_channel = self.setting.flags & PER_CHANNEL != 0;
        let in_table = per_channel && self.channel_table().is_some();
        (self.norm.weight && !in_table).then_some((Role::Weight, self.norm.affine_len() as u64))
    }

    /// Adds a kernel on tables, each invocation for itself.
    pub fn push_each(&mut self, params: Params, slots: &[Slot]) -> Result<(), Error> {
        self.push_lanes(1, params, slots)
    }

    /// Adds a fold: each item goes over `entries`, as often as its kernel says.
    pub fn push_fold(&mut self, params: Params, entries: u32, slots: &[Slot]) -> Result<(), Error> {
        let (kernel, items) = (params.kernel(), params.dispatch().items);
        let lanes = fold_lanes(kernel, items, entries, self.tuning)?;
        self.push_lanes(lanes, params, slots)
    }

    fn push_lanes(&mut self, lanes: u32, params: Params, slots: &[Slot]) -> Result<(), Error> {
        let workgroup_size = self.tuning.fold.workgroup_size.next_multiple_of(lanes);
        let spec = Spec::new(params.kernel(), workgroup_size, lanes);
        self.push_step(spec, params, slots, None)
    }

    /// The table that gradient terms are written to, and read from.
    pub fn terms(&self, entries: u32, entries_per_segment: u32) -> Table {
        Table {
            columns: self.columns,
            channel_columns: self.channel_columns,
            entries,
            entries_per_segment,
        }
    }

    /// A table with a column for each channel.
    pub fn channels(&self, entries: u32, entries_per_segment: u32) -> Table {
        Table {
            columns: self.shape.num_channels,
            channel_columns: self.shape.num_channels,
            entries,
            entries_per_segment,
        }
    }

    /// Adds a kernel that merges the `parts` of every one of `items` rows.
    pub fn push_parts(
        &mut self,
        kernel: fn(PartParams) -> Params,
        items: u32,
        parts: u32,
        from: Role,
        to: Role,
    ) -> Result<(), Error> {
        let params = kernel(PartParams {
            dispatch: Dispatch::of(items),
            parts: Parts::of(parts),
        });
        let slots = [
            Some((from, u64::from(items) * u64::from(parts))),
            Some((to, u64::from(items))),
        ];
        self.push_fold(params, parts, &slots)
    }

    /// Merges the parts of every row, where rows are split.
    pub fn fold_rows(
        &mut self,
        kernel: fn(PartParams) -> Params,
        split: Split,
        from: Role,
        to: Role,
    ) -> Result<(), Error> {
        match split.parts {
            1 => Ok(()),
            parts => self.push_parts(kernel, self.geometry.rows() as u32, parts, from, to),
        }
    }

    /// Adds a tensor-sized kernel, in as many windows as it takes. `rows` is the one for channels first, `columns` the
    /// one for channels last.
    pub fn push_tensor(
        &mut self,
        rows: fn(RowParams) -> Params,
        columns: fn(ColumnParams) -> Params,
        split: Split,
        activation: Activation,
        accumulate: bool,
        slots: &[Slot],
    ) -> Result<(), Error> {
        for window in self.geometry.windows(&split, self.tuning)? {
            let dispatch = Dispatch {
                items: window.items,
                first_item: window.first_item,
                first_word: window.first_word,
                zero: 0,
            };
            let params = match self.geometry.channels_last {
                false => rows(RowParams {
                    dispatch,
                    split: row_split(&self.geometry, &split),
                }),
                true => columns(ColumnParams {
                    dispatch,
                    split: ColumnSplit {
                        // At most 2^32 of 2 bytes, fewer in a binding.
                        num_words: u32::try_from(window.words).unwrap_or(u32::MAX),
                        ..column_split(&self.geometry, &split)
                    },
                }),
            };
            let workgroup_size = match params.kernel().kernel().family {
                Family::ColumnReduce => self.tuning.columns.workgroup_size,
                Family::RowReduce => self.tuning.reduction.workgroup_size,
                _ => self.tuning.map.workgroup_size,
            };
            let spec = Spec {
                dtype: self.geometry.dtype,
                width: split.width,
                column_words: window.column_words,
                aligned: split.aligned,
                accumulate,
                activation,
                ..Spec::new(params.kernel(), workgroup_size, split.lanes)
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
        let half = spec.dtype == DType::F16;
        spec.native_unpack = half && self.tuning.limits.native_unpack != 0;
        spec.native_pack = half && self.tuning.limits.native_pack != 0 && spec.writes_tensors();
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
        let workgroups = workgroups(&spec, params.dispatch().items, self.tensor, self.tuning)?;
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
        let entries = u64::from(world_size) * u64::from(self.shape.num_channels);
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

/// How the kernels are told a norm.
fn setting(norm: &NormDesc, mode: Mode) -> Norm {
    let part = norm.channel_part(mode);
    let momentum = match norm.stats {
        ChannelStats::Batch { momentum } => momentum,
        ChannelStats::Estimate { moving_speed } => Some(moving_speed),
    };
    let cumulative = part == ChannelPart::Batch
        && mode == Mode::Train
        && norm.track_running_stats
        && momentum.is_none();
    let group_part = norm.has_group_part(mode);
    let per_channel = group_part && (norm.kind != NormKind::BcNorm || norm.per_channel_affine);
    let flags = [
        (TRAINING, part.reads_batch()),
        (ESTIMATE, part == ChannelPart::Estimate),
        (CUMULATIVE, cumulative),
        (PER_CHANNEL, per_channel),
        (UNBIASED, norm.kind == NormKind::WeightStandardization),
    ];
    Norm {
        flags: flags
            .iter()
            .map(|&(flag, on)| if on { flag } else { 0 })
            .sum(),
        eps: norm.eps,
        channel_eps: if group_part { CHANNEL_EPS } else { norm.eps },
        // InstanceNorm without a momentum keeps its statistics, as in PyTorch.
        momentum: momentum.unwrap_or(0.0),
    }
}

/// Channels, groups and rows of the tables.
fn shape(norm: &NormDesc, mode: Mode, geometry: &Geometry) -> Shape {
    let rows_together = geometry.channel_len.max(1);
    Shape {
        num_channels: geometry.channels / rows_together,
        num_groups: match norm.has_group_part(mode) {
            // A divisor of num_channels, which is a u32.
            true => norm.num_groups as u32,
            false => 0,
        },
        rows_together,
        row_len: geometry.row_len,
    }
}

fn row_split(geometry: &Geometry, split: &Split) -> RowSplit {
    RowSplit {
        // Of a tensor, a u32.
        num_rows: geometry.rows() as u32,
        row_len: geometry.row_len,
        parts: split.parts,
        words_per_part: split.words_per_part,
    }
}

/// All but the words of a window.
pub(super) fn column_split(geometry: &Geometry, split: &Split) -> ColumnSplit {
    ColumnSplit {
        num_samples: geometry.samples,
        num_channels: geometry.channels,
        row_len: geometry.row_len,
        words_per_position: geometry.channels.div_ceil(split.width),
        parts: split.parts,
        positions_per_part: split.words_per_part,
        num_words: 0,
        unused: 0,
    }
}
