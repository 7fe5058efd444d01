//! The steps on tables, which forward and backward share with the plans for short rows.

use super::builder::{Builder, Slot};
use super::options::BackwardOptions;
use super::work::segments;
use crate::desc::{ChannelPart, GradientMode, Mode};
use crate::error::{Error, within};
use crate::params::{
    ACCUMULATE, CUMULATIVE, ChannelParams, Dispatch, DispatchParams, GroupParams, Norm,
    PER_CHANNEL, Params, SUMS, TableParams, TermParams,
};
use crate::role::Role;

/// Shortens the table of rows where the batch is large, or down to one entry a channel where it is
/// exchanged with other devices. Returns the table that the channel fold reads and its entries per
/// channel.
pub(super) fn sample_fold(b: &mut Builder, exchanged: bool) -> Result<(Role, u32), Error> {
    let empty = b.tensor.elements() == 0;
    // An empty batch has no rows: a table of no entries.
    let (mut table, mut entries) = if empty {
        (Role::ChannelParts, 0)
    } else if b.shape.rows_together > 1 {
        // The rows of each channel, which lie together.
        let (channels, rows) = (b.shape.num_channels, b.shape.rows_together);
        b.push_parts(
            Params::RowFold,
            channels,
            rows,
            Role::Rows,
            Role::ChannelParts,
        )?;
        (Role::ChannelParts, 1)
    } else {
        (Role::Rows, b.num_samples)
    };
    let (count, per_segment) = segments(entries, b.tuning);
    if count > 1 {
        fold_samples(
            b,
            (table, entries),
            (Role::ChannelParts, count),
            per_segment,
        )?;
        (table, entries) = (Role::ChannelParts, count);
    }
    if exchanged {
        fold_samples(b, (table, entries), (Role::ChannelMoments, 1), entries)?;
        (table, entries) = (Role::ChannelMoments, 1);
    }
    Ok((table, entries))
}

fn fold_samples(
    b: &mut Builder,
    (from, entries): (Role, u32),
    (to, segments): (Role, u32),
    per_segment: u32,
) -> Result<(), Error> {
    let table = b.channels(entries, per_segment);
    let items = segments * table.columns;
    let params = TableParams {
        dispatch: Dispatch::of(items),
        table,
    };
    let slots = [
        Some((from, u64::from(entries.max(1)) * u64::from(table.columns))),
        Some((to, u64::from(items))),
    ];
    b.push_fold(Params::SampleFold(params), per_segment, &slots)
}

/// The table of channels: without a channel part there is none.
pub(super) fn channel_fold(
    b: &mut Builder,
    part: ChannelPart,
    table: Option<(Role, u32)>,
) -> Result<(), Error> {
    if part == ChannelPart::None {
        return Ok(());
    }
    let channels = u64::from(b.shape.num_channels);
    let norm = b.norm;
    // The counter is the batches' of nn.BatchNorm; EstBN leaves it as it is.
    let counts = part == ChannelPart::Batch && b.mode == Mode::Train && norm.track_running_stats;
    let cumulative = b.setting.flags & CUMULATIVE != 0;
    if counts && cumulative {
        let params = DispatchParams {
            dispatch: Dispatch::of(1),
        };
        let slots = [Some((Role::NumBatchesTracked, 1))];
        b.push_each(Params::BatchCount(params), &slots)?;
    }
    let (table, entries) = match table {
        Some((role, entries)) => (Some((role, u64::from(entries) * channels)), entries),
        None => (None, 0),
    };
    // The channel part's own affine: BCNorm's bn.weight and bn.bias, or the norm's only one.
    let (weight, bias) = match b.norm.has_group_part(b.mode) {
        true => (
            norm.bn_weight.then_some((Role::BnWeight, channels)),
            norm.bn_bias.then_some((Role::BnBias, channels)),
        ),
        false => (
            norm.weight.then_some((Role::Weight, channels)),
            norm.bias.then_some((Role::Bias, channels)),
        ),
    };
    let per_channel = b.setting.flags & PER_CHANNEL != 0 && norm.weight;
    // Estimates and running statistics are read, too.
    let tracked = counts || part != ChannelPart::Batch;
    let params = ChannelParams {
        dispatch: Dispatch::of(b.shape.num_channels),
        norm: b.setting,
        table: b.channels(entries, entries),
    };
    let slots = [
        table,
        weight,
        bias,
        per_channel.then_some((Role::Weight, channels)),
        counts.then_some((Role::NumBatchesTracked, 1)),
        tracked.then_some((Role::RunningMean, channels)),
        tracked.then_some((Role::RunningVar, channels)),
        Some((Role::Channels, channels)),
    ];
    b.push_fold(Params::ChannelFold(params), entries, &slots)
}

pub(super) fn group_fold(b: &mut Builder) -> Result<(), Error> {
    let rows = b.geometry.rows();
    let groups = b.num_samples * b.shape.num_groups;
    let params = GroupParams {
        dispatch: Dispatch::of(groups),
        norm: b.setting,
        shape: b.shape,
    };
    let affine = b.norm.affine_len() as u64;
    let slots = [
        b.channel_table(),
        b.group_weight(),
        Some((Role::Rows, rows)),
        b.norm.bias.then_some((Role::Bias, affine)),
        Some((Role::Groups, u64::from(groups))),
        Some((Role::Coefficients, rows)),
    ];
    let rows_of_group = b.shape.num_channels / b.shape.num_groups;
    b.push_fold(Params::GroupFold(params), rows_of_group, &slots)
}

/// Without a group part. Where forward did not read x, backward takes its products about the mean in
/// force.
pub(super) fn row_coefficients(b: &mut Builder, has_rows: bool) -> Result<(), Error> {
    let rows = b.geometry.rows();
    let params = GroupParams {
        dispatch: Dispatch::of(rows as u32),
        norm: b.setting,
        shape: b.shape,
    };
    let slots = [
        b.channel_table(),
        (!has_rows).then_some((Role::Rows, rows)),
        Some((Role::Coefficients, rows)),
    ];
    b.push_each(Params::RowCoefficients(params), &slots)
}

pub(super) fn running_fold(b: &mut Builder) -> Result<(), Error> {
    let (entries, columns) = (b.num_samples, b.shape.num_channels);
    let params = ChannelParams {
        dispatch: Dispatch::of(columns),
        norm: b.setting,
        table: b.channels(entries, entries),
    };
    let slots = [
        Some((Role::Rows, b.geometry.rows())),
        Some((Role::RunningMean, u64::from(columns))),
        Some((Role::RunningVar, u64::from(columns))),
    ];
    b.push_fold(Params::RunningFold(params), entries, &slots)
}

/// Columns of the terms: the channel part's, where anyone wants them, then the affine's.
pub(super) fn columns(b: &mut Builder, part: ChannelPart, flows: bool) -> Result<(), Error> {
    let norm = b.norm;
    let grouped = norm.has_group_part(b.mode);
    let has_affine = match (part, grouped) {
        (ChannelPart::None, _) => false,
        (_, true) => norm.bn_weight || norm.bn_bias,
        (_, false) => norm.weight || norm.bias,
    };
    b.channel_columns = if flows || has_affine {
        b.shape.num_channels
    } else {
        0
    };
    let affine = if grouped && (norm.weight || norm.bias) {
        norm.affine_len() as u64
    } else {
        0
    };
    // An empty batch has no terms, whatever its N; its columns are those of the gradients.
    let samples = match b.tensor.elements() {
        0 => 1,
        _ => u64::from(b.num_samples),
    };
    let columns = u64::from(b.channel_columns) + affine;
    let terms = samples * columns;
    within(
        || "the number of gradient terms, N * (C + the values of weight),".into(),
        terms,
        u64::from(u32::MAX),
        "u32 index",
        match samples {
            1 => "use fewer channels or groups",
            _ => "split the batch",
        },
    )?;
    b.columns = columns as u32;
    Ok(())
}

/// Entries of the terms that kernels on rows write: of samples, and of a channel's rows that lie together (one of the two
/// is 1).
pub(super) fn term_entries(b: &Builder) -> u32 {
    b.num_samples * b.shape.rows_together
}

fn terms(b: &Builder) -> Slot {
    let entries = term_entries(b);
    let count = u64::from(entries) * u64::from(b.columns);
    (count > 0).then_some((Role::GradientTerms, count))
}

fn term_params(b: &Builder, items: u32) -> TermParams {
    let entries = term_entries(b);
    TermParams {
        dispatch: Dispatch::of(items),
        norm: b.setting,
        shape: b.shape,
        table: b.terms(entries, entries),
    }
}

pub(super) fn group_fold_backward(b: &mut Builder) -> Result<(), Error> {
    let rows = b.geometry.rows();
    let groups = b.num_samples * b.shape.num_groups;
    let params = term_params(b, groups);
    let slots = [
        b.channel_table(),
        b.channel_weight(),
        Some((Role::Rows, rows)),
        Some((Role::Products, rows)),
        Some((Role::Groups, u64::from(groups))),
        terms(b),
        Some((Role::RowGradients, rows)),
    ];
    let rows_of_group = b.shape.num_channels / b.shape.num_groups;
    b.push_fold(Params::GroupFoldBackward(params), rows_of_group, &slots)
}

pub(super) fn row_terms_backward(b: &mut Builder) -> Result<(), Error> {
    let rows = b.geometry.rows();
    let params = term_params(b, rows as u32);
    let slots = [
        Some((Role::Rows, rows)),
        Some((Role::Products, rows)),
        b.channel_table(),
        terms(b),
        Some((Role::RowGradients, rows)),
    ];
    b.push_each(Params::RowTermsBackward(params), &slots)
}

/// Shortens a table of terms, (entries, columns), where it is long. Returns the table to go on with, and
/// its entries.
pub(super) fn fold_terms(b: &mut Builder, terms: Role, entries: u32) -> Result<(Role, u32), Error> {
    let (count, per_segment) = segments(entries, b.tuning);
    if count == 1 {
        return Ok((terms, entries));
    }
    let items = count * b.columns;
    let params = TableParams {
        dispatch: Dispatch::of(items),
        table: b.terms(entries, per_segment),
    };
    let slots = [
        Some((terms, u64::from(entries) * u64::from(b.columns))),
        Some((Role::GradientParts, u64::from(items))),
    ];
    b.push_fold(Params::SampleFoldBackward(params), per_segment, &slots)?;
    Ok((Role::GradientParts, count))
}

/// The parameters' gradients, and this batch's part in what the channel part subtracts.
pub(super) fn channel_fold_backward(
    b: &mut Builder,
    options: BackwardOptions,
    flows: bool,
    table: Role,
    entries: u32,
) -> Result<(), Error> {
    let channels = u64::from(b.shape.num_channels);
    let affine = b.norm.affine_len() as u64;
    let norm = b.norm;
    let exchanged = flows && options.world_size.is_some();
    let flags = match options.parameters {
        GradientMode::Replace => 0,
        GradientMode::Accumulate => ACCUMULATE,
    } | if exchanged { SUMS } else { 0 };
    let params = ChannelParams {
        dispatch: Dispatch::of(b.columns),
        norm: Norm {
            flags: b.setting.flags | flags,
            ..b.setting
        },
        table: b.terms(entries, entries),
    };
    let has_channel_columns = b.channel_columns > 0;
    let grouped = norm.has_group_part(b.mode);
    let has_affine_columns = grouped && b.columns > b.channel_columns;
    let (bn_weight, bn_bias) = match (has_channel_columns, grouped) {
        (false, _) => (None, None),
        (true, true) => (
            norm.bn_weight.then_some((Role::GradBnWeight, channels)),
            norm.bn_bias.then_some((Role::GradBnBias, channels)),
        ),
        (true, false) => (
            norm.weight.then_some((Role::GradWeight, channels)),
            norm.bias.then_some((Role::GradBias, channels)),
        ),
    };
    // An empty batch has no dx to subtract from, and no counts; other devices want its zeros.
    let empty = b.tensor.elements() == 0;
    let subtracted = match (flows, exchanged) {
        (true, true) => Some((Role::GradientSums, channels)),
        (true, false) if !empty => Some((Role::ChannelGradients, channels)),
        _ => None,
    };
    let counts = subtracted.is_some() && !exchanged;
    let slots = [
        Some((table, u64::from(entries.max(1)) * u64::from(b.columns))),
        counts.then_some((Role::Channels, channels)),
        bn_weight,
        bn_bias,
        (has_affine_columns && norm.weight).then_some((Role::GradWeight, affine)),
        (has_affine_columns && norm.bias).then_some((Role::GradBias, affine)),
        subtracted,
    ];
    b.push_fold(Params::ChannelFoldBackward(params), entries, &slots)
}

/// The same fold over the sums of all devices.
pub(super) fn gathered_fold_backward(b: &mut Builder, world_size: u32) -> Result<(), Error> {
    let channels = b.shape.num_channels;
    let params = ChannelParams {
        dispatch: Dispatch::of(channels),
        norm: b.setting,
        table: b.channels(world_size, world_size),
    };
    let slots = [
        Some((
            Role::GatheredGradients,
            u64::from(world_size) * u64::from(channels),
        )),
        Some((Role::Channels, u64::from(channels))),
        None,
        None,
        None,
        None,
        Some((Role::ChannelGradients, u64::from(channels))),
    ];
    b.push_fold(Params::ChannelFoldBackward(params), world_size, &slots)
}
