//! Short rows, and groups that one kernel takes whole: every element is a row of its own.
//!
//! A table with an entry for each row moves more bytes than the tensor where rows are short, so there is
//! none: the `element_*` kernels make what they need of an element from x, its channel and its group. Sums
//! over the batch take a sample's elements as columns over the samples (`column_moments` does, as if
//! channels were last), and fold the columns of a channel afterwards.

use super::builder::{Builder, Slot, column_split};
use super::folds::{channel_fold, channel_fold_backward, columns, fold_terms};
use super::options::{BackwardOptions, ForwardOptions, RowSource};
use super::split::Geometry;
use crate::desc::{Activation, ChannelPart, DType, GradientMode, Layout, Mode, NormKind};
use crate::error::Error;
use crate::kernels::{Family, KernelId, Spec};
use crate::limits::MAX_ITERATIONS;
use crate::params::{
    ColumnParams, Dispatch, ElementColumnParams, ElementGroups, ElementParams, PER_CHANNEL, Params,
    SampleSplit,
};
use crate::role::Role;
use crate::tables::{GradientPair, GroupGradient, Moments};

/// A tensor seen so.
#[derive(Debug)]
pub(super) struct Elements {
    /// Its samples as positions of one sample, its elements of a sample as channels.
    view: Geometry,
    /// Elements of a word.
    width: u32,
    /// Whether a word is all one channel's.
    aligned: bool,
    /// Words of a group.
    group_words: u32,
    /// Invocations that share a group.
    lanes: u32,
}

/// Words that a lane takes at a time, the first of them kept in registers (`CHUNK` in `layout/group_words.wgsl`): a group
/// of more words gets another lane.
const CHUNK: u32 = 4;

/// Largest C for which `place_of` (`layout/elements.wgsl`) is exact.
const MAX_CHANNELS: u32 = 1 << 20;

impl Elements {
    /// For a forward, where its plan takes this way.
    pub fn of_forward(b: &Builder, options: &ForwardOptions) -> Option<Self> {
        let inference = options.inference || options.in_place;
        let updates_rows = b.norm.kind == NormKind::InstanceNorm
            && b.norm.track_running_stats
            && b.mode == Mode::Train;
        let of_batch = b.norm.channel_part(b.mode).reads_batch();
        let shared = options.world_size.is_some() && of_batch;
        if shared || options.rows == RowSource::Given || updates_rows {
            return None;
        }
        let size = group_len(b)?;
        let fused = inference
            && !of_batch
            && size <= b.tuning.inference.max_group
            && b.tensor.elements() <= u64::from(b.tuning.inference.max_tensor);
        let elements = Self::new(b, size)?;
        // Backward derives this choice again, so it may not depend on options that only forward has.
        let short = b.tensor.row_len() <= b.tuning.short_rows.max_row
            && (inference || options.fusion.activation == Activation::None);
        ((fused || short) && elements.tables_fit(b, inference)).then_some(elements)
    }

    /// Whether the tables fit a binding: of groups of an element or two they are larger than the tensor,
    /// and than the tables of rows.
    fn tables_fit(&self, b: &Builder, inference: bool) -> bool {
        let groups = u64::from(b.num_samples) * u64::from(b.shape.num_groups);
        let columns = u64::from(self.view.channels);
        let moments = match b.norm.channel_part(b.mode).reads_batch() {
            true => u64::from(self.view.reduce.parts),
            false => 0,
        };
        // Of backward, whose forward must have gone the same way.
        let (groups, terms) = match inference {
            true => (0, 0),
            false => (groups, u64::from(self.view.map.parts)),
        };
        let tables = [
            (groups, size_of::<GroupGradient>()),
            (columns * moments, size_of::<Moments>()),
            (columns * terms, size_of::<GradientPair>()),
        ];
        tables.iter().all(|&(entries, bytes)| {
            // Kernels number entries in u32.
            entries <= u64::from(u32::MAX)
                && entries * bytes as u64 <= b.tuning.limits.max_binding_bytes
        })
    }

    /// For the backward of a forward that took this way without being asked for inference.
    pub fn of_backward(b: &Builder, options: &BackwardOptions) -> Option<Self> {
        let forward = ForwardOptions::default()
            .with_fusion(options.fusion)
            .with_rows(options.rows)
            .with_world_size(options.world_size);
        Self::of_forward(b, &forward)
    }

    fn new(b: &Builder, size: u32) -> Option<Self> {
        let tensor = b.tensor;
        let row_len = tensor.row_len();
        let together = tensor.layout() == Layout::ChannelsFirst || row_len == 1;
        let fits = tensor.buffer_bytes() <= b.tuning.limits.max_binding_bytes
            && tensor.num_channels() <= MAX_CHANNELS;
        let width = match tensor.dtype() {
            _ if size.is_multiple_of(4) => 4,
            DType::F32 => 1,
            DType::F16 | DType::BF16 if size.is_multiple_of(2) => 2,
            DType::F16 | DType::BF16 => return None,
        };
        if !together || !fits {
            return None;
        }
        let group_words = size / width;
        let lanes = group_words
            .div_ceil(CHUNK)
            .checked_next_power_of_two()
            .unwrap_or(b.tuning.reduction.lanes)
            .min(b.tuning.reduction.lanes);
        let loops = KernelId::ElementAffine
            .kernel()
            .loops
            .max(KernelId::ElementProducts.kernel().loops);
        if group_words.div_ceil(lanes) > MAX_ITERATIONS / loops {
            return None;
        }
        // What fits a binding is no more than u32s count.
        let elements = u32::try_from(tensor.elements()).ok()?;
        let view = b.geometry.samples_as_positions(elements, width, b.tuning);
        Some(Self {
            view: view.ok()?,
            width,
            aligned: row_len.is_multiple_of(width),
            group_words,
            lanes,
        })
    }

    /// The tensor's elements as columns over the samples.
    fn column_params(&self, b: &Builder) -> ElementColumnParams {
        let split = &self.view.map;
        ElementColumnParams {
            dispatch: Dispatch::of(split.items),
            norm: b.setting,
            groups: self.groups(b),
            split: SampleSplit {
                num_samples: self.view.row_len,
                words_per_sample: split.items / split.parts,
                parts: split.parts,
                samples_per_part: split.words_per_part,
            },
        }
    }

    /// The tensor's groups.
    fn group_params(&self, b: &Builder) -> ElementParams {
        ElementParams {
            dispatch: Dispatch::of(b.num_samples * b.shape.num_groups),
            norm: b.setting,
            groups: self.groups(b),
        }
    }

    fn groups(&self, b: &Builder) -> ElementGroups {
        ElementGroups {
            num_channels: b.shape.num_channels,
            num_groups: b.shape.num_groups,
            channel_len: b.tensor.row_len(),
            words_per_group: self.group_words,
        }
    }

    fn spec(&self, b: &Builder, kernel: KernelId, lanes: u32) -> Spec {
        Spec {
            dtype: b.tensor.dtype(),
            width: self.width,
            aligned: self.aligned,
            resident: kernel.kernel().family == Family::ElementReduce
                && self.group_words <= CHUNK * self.lanes,
            ..Spec::new(kernel, b.tuning.reduction.workgroup_size, lanes)
        }
    }
}

/// Elements of a group, where there is a group part.
fn group_len(b: &Builder) -> Option<u32> {
    let channels = b.norm.num_channels.checked_div(b.norm.num_groups)?;
    let group = channels as u64 * u64::from(b.tensor.row_len());
    u32::try_from(group)
        .ok()
        .filter(|_| b.norm.has_group_part(b.mode))
}

pub(super) fn forward(b: &mut Builder, options: ForwardOptions, e: &Elements) -> Result<(), Error> {
    let part = b.norm.channel_part(b.mode);
    let mut table = None;
    if part.reads_batch() {
        column_moments(b, e)?;
        table = Some((Role::ChannelParts, 1));
    }
    channel_fold(b, part, table)?;

    let affine = b.norm.affine_len() as u64;
    let groups = b.num_samples * b.shape.num_groups;
    let inference = options.inference || options.in_place;
    let spec = Spec {
        activation: options.fusion.activation,
        ..e.spec(b, KernelId::ElementAffine, e.lanes)
    };
    let output = if options.in_place { Role::X } else { Role::Y };
    let slots: [Slot; 7] = [
        b.channel_table(),
        b.group_weight(),
        (!options.in_place).then_some((Role::X, 0)),
        b.norm.bias.then_some((Role::Bias, affine)),
        options.fusion.residual.then_some((Role::Residual, 0)),
        (!inference).then_some((Role::Groups, u64::from(groups))),
        Some((output, 0)),
    ];
    let params = Params::ElementAffine(e.group_params(b));
    b.push_step(spec, params, &slots, None)
}

/// Moments of every column over the samples, then of every channel over its columns.
fn column_moments(b: &mut Builder, e: &Elements) -> Result<(), Error> {
    let channels = b.shape.num_channels;
    let split = &e.view.reduce;
    // A channel's elements, each once for a part of the samples.
    let entries = b.tensor.row_len() * split.parts;
    let columns = u64::from(channels) * u64::from(entries);
    let output = match entries {
        1 => Role::ChannelParts,
        _ => Role::RowParts,
    };
    let spec = Spec {
        workgroup_size: b.tuning.columns.workgroup_size,
        width: split.width,
        aligned: split.aligned,
        ..e.spec(b, KernelId::ColumnMoments, split.lanes)
    };
    let slots = [Some((Role::X, 0)), Some((output, columns))];
    let params = ColumnParams {
        dispatch: Dispatch::of(split.items),
        split: column_split(&e.view, split),
    };
    b.push_step(spec, Params::ColumnMoments(params), &slots, None)?;
    if entries == 1 {
        return Ok(());
    }
    b.push_parts(
        Params::RowFold,
        channels,
        entries,
        output,
        Role::ChannelParts,
    )
}

pub(super) fn backward(
    b: &mut Builder,
    options: BackwardOptions,
    e: &Elements,
) -> Result<(), Error> {
    let part = b.norm.channel_part(b.mode);
    let flows = part == ChannelPart::Batch;
    columns(b, part, flows)?;
    let per_channel = b.setting.flags & PER_CHANNEL != 0;
    let channels = b.shape.num_channels;
    let groups = b.num_samples * b.shape.num_groups;
    let has_affine = b.norm.weight || b.norm.bias;
    let has_channel_terms = b.channel_columns > 0;
    let (channel_table, channel_weight) = (b.channel_table(), b.channel_weight());
    let group_table = Some((Role::GroupGradients, u64::from(groups)));

    let slots = [
        channel_table,
        channel_weight,
        Some((Role::X, 0)),
        Some((Role::GradY, 0)),
        Some((Role::Groups, u64::from(groups))),
        (has_affine && !per_channel).then_some((Role::AffineTerms, u64::from(groups))),
        group_table,
    ];
    b.push_step(
        e.spec(b, KernelId::ElementProducts, e.lanes),
        Params::ElementProducts(e.group_params(b)),
        &slots,
        None,
    )?;

    let split = &e.view.map;
    let entries = b.tensor.row_len() * split.parts;
    let terms = u64::from(entries) * u64::from(channels);
    if has_channel_terms || (has_affine && per_channel) {
        let slots = [
            channel_table,
            channel_weight,
            Some((Role::X, 0)),
            Some((Role::GradY, 0)),
            group_table,
            has_channel_terms.then_some((Role::ChannelTerms, terms)),
            (has_affine && per_channel).then_some((Role::AffineTerms, terms)),
        ];
        let spec = e.spec(b, KernelId::ElementTerms, 1);
        let params = Params::ElementTerms(e.column_params(b));
        b.push_step(spec, params, &slots, None)?;
    }
    // The two tables differ in their entries: a fold each.
    let (columns, channel_columns) = (b.columns, b.channel_columns);
    if has_channel_terms {
        b.columns = channels;
        let (table, entries) = fold_terms(b, Role::ChannelTerms, entries)?;
        channel_fold_backward(b, options, flows, table, entries)?;
    }
    if has_affine {
        let entries = if per_channel { entries } else { b.num_samples };
        b.columns = columns - channel_columns;
        b.channel_columns = 0;
        let (table, entries) = fold_terms(b, Role::AffineTerms, entries)?;
        channel_fold_backward(b, options, false, table, entries)?;
    }
    (b.columns, b.channel_columns) = (columns, channel_columns);

    let spec = Spec {
        accumulate: options.x == GradientMode::Accumulate,
        ..e.spec(b, KernelId::ElementAffineBackward, 1)
    };
    let slots = [
        channel_table,
        channel_weight,
        Some((Role::X, 0)),
        Some((Role::GradY, 0)),
        group_table,
        flows.then_some((Role::ChannelGradients, u64::from(channels))),
        Some((Role::GradX, 0)),
    ];
    let params = Params::ElementAffineBackward(e.column_params(b));
    b.push_step(spec, params, &slots, None)
}
