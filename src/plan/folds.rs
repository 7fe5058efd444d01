//! The steps on tables, which forward and backward share with the plans for short rows.

use super::builder::{Builder, Slot};
use super::options::BackwardOptions;
use super::work::{fold_lanes, segments};
use crate::desc::{ChannelPart, GradientMode, Mode};
use crate::error::{Error, within};
use crate::kernels::KernelId;
use crate::params::{ACCUMULATE, CUMULATIVE, PER_CHANNEL, Params, SUMS};
use crate::role::Role;

/// Shortens the table of rows where the batch is large, or down to one entry a channel where it is
/// exchanged with other devices. Returns the table that the channel fold reads and its entries per
/// channel.
pub(super) fn sample_fold(b: &mut Builder, exchanged: bool) -> Result<(Role, u32), Error> {
    let empty = b.tensor.elements() == 0;
    // An empty batch has no rows: a table of no entries.
    let (mut table, mut entries) = if empty {
        (Role::ChannelParts, 0)
    } else if b.params.channel_len > 1 {
        fold_channel_rows(b)?;
        (Role::ChannelParts, 1)
    } else {
        (Role::Rows, b.params.num_samples)
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

/// Merges the rows of each channel, which lie together.
fn fold_channel_rows(b: &mut Builder) -> Result<(), Error> {
    let (channels, rows) = (b.params.num_channels, b.params.channel_len);
    let lanes = fold_lanes(KernelId::RowFold, channels, rows, 2, b.tuning)?;
    let params = Params {
        items: channels,
        parts: rows,
        ..b.params
    };
    let slots = [
        Some((Role::Rows, b.geometry.rows())),
        Some((Role::ChannelParts, u64::from(channels))),
    ];
    b.push(KernelId::RowFold, lanes, params, &slots)
}

fn fold_samples(
    b: &mut Builder,
    (from, entries): (Role, u32),
    (to, segments): (Role, u32),
    per_segment: u32,
) -> Result<(), Error> {
    let columns = b.params.num_channels;
    let lanes = fold_lanes(
        KernelId::SampleFold,
        segments * columns,
        per_segment,
        2,
        b.tuning,
    )?;
    let params = Params {
        items: segments * columns,
        entries,
        entries_per_segment: per_segment,
        columns,
        ..b.params
    };
    let slots = [
        Some((from, u64::from(entries.max(1)) * u64::from(columns))),
        Some((to, u64::from(params.items))),
    ];
    b.push(KernelId::SampleFold, lanes, params, &slots)
}

pub(super) fn channel_fold(
    b: &mut Builder,
    part: ChannelPart,
    table: Option<(Role, u32)>,
) -> Result<(), Error> {
    let channels = u64::from(b.params.num_channels);
    let norm = b.norm;
    // The counter is the batches' of nn.BatchNorm; EstBN leaves it as it is.
    let counts = part == ChannelPart::Batch && b.mode == Mode::Train && norm.track_running_stats;
    let cumulative = b.params.flags & CUMULATIVE != 0;
    if counts && cumulative {
        let params = Params {
            items: 1,
            ..b.params
        };
        let slots = [Some((Role::NumBatchesTracked, 1))];
        b.push(KernelId::BatchCount, 1, params, &slots)?;
    }
    let (table, entries) = match table {
        Some((role, entries)) => (Some((role, u64::from(entries) * channels)), entries),
        None => (None, 0),
    };
    // The channel part's own affine: BCNorm's bn.weight and bn.bias, or the norm's only one.
    let (weight, bias) = match part {
        ChannelPart::None => (None, None),
        _ if b.norm.has_group_part(b.mode) => (
            norm.bn_weight.then_some((Role::BnWeight, channels)),
            norm.bn_bias.then_some((Role::BnBias, channels)),
        ),
        _ => (
            norm.weight.then_some((Role::Weight, channels)),
            norm.bias.then_some((Role::Bias, channels)),
        ),
    };
    let per_channel = b.params.flags & PER_CHANNEL != 0 && norm.weight;
    let tracked = match part {
        ChannelPart::None => false,
        ChannelPart::Batch => norm.track_running_stats && b.mode == Mode::Train,
        ChannelPart::Estimate | ChannelPart::Running => true,
    };
    let lanes = fold_lanes(
        KernelId::ChannelFold,
        b.params.num_channels,
        entries,
        2,
        b.tuning,
    )?;
    let params = Params {
        items: b.params.num_channels,
        entries,
        columns: b.params.num_channels,
        ..b.params
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
    b.push(KernelId::ChannelFold, lanes, params, &slots)
}

pub(super) fn group_fold(b: &mut Builder) -> Result<(), Error> {
    let (rows, channels) = (b.geometry.rows(), u64::from(b.params.num_channels));
    let groups = u64::from(b.params.num_samples) * u64::from(b.params.num_groups);
    let affine = b.norm.affine_len() as u64;
    let per_group = b.params.flags & PER_CHANNEL == 0;
    let slots = [
        Some((Role::Rows, rows)),
        Some((Role::Channels, channels)),
        (per_group && b.norm.weight).then_some((Role::Weight, affine)),
        b.norm.bias.then_some((Role::Bias, affine)),
        Some((Role::Groups, groups)),
        Some((Role::Coefficients, rows)),
    ];
    b.push_groups(KernelId::GroupFold, 4, &slots)
}

/// Without a group part. Where forward did not read x, backward takes its products about the mean in
/// force.
pub(super) fn row_coefficients(b: &mut Builder, has_rows: bool) -> Result<(), Error> {
    let rows = b.geometry.rows();
    let params = Params {
        items: rows as u32,
        ..b.params
    };
    let slots = [
        Some((Role::Channels, u64::from(b.params.num_channels))),
        (!has_rows).then_some((Role::Rows, rows)),
        Some((Role::Coefficients, rows)),
    ];
    b.push(KernelId::RowCoefficients, 1, params, &slots)
}

pub(super) fn running_fold(b: &mut Builder) -> Result<(), Error> {
    let (entries, columns) = (b.params.num_samples, b.params.num_channels);
    let lanes = fold_lanes(KernelId::RunningFold, columns, entries, 1, b.tuning)?;
    let params = Params {
        items: columns,
        entries,
        columns,
        ..b.params
    };
    let slots = [
        Some((Role::Rows, b.geometry.rows())),
        Some((Role::RunningMean, u64::from(columns))),
        Some((Role::RunningVar, u64::from(columns))),
    ];
    b.push(KernelId::RunningFold, lanes, params, &slots)
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
    b.params.channel_columns = if flows || has_affine {
        b.params.num_channels
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
        _ => u64::from(b.params.num_samples),
    };
    let columns = u64::from(b.params.channel_columns) + affine;
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
    b.params.columns = columns as u32;
    Ok(())
}

fn terms(b: &Builder) -> Slot {
    let entries = b.params.num_samples * b.params.channel_len.max(1);
    let count = u64::from(entries) * u64::from(b.params.columns);
    (count > 0).then_some((Role::GradientTerms, count))
}

pub(super) fn group_fold_backward(b: &mut Builder) -> Result<(), Error> {
    let rows = b.geometry.rows();
    let groups = u64::from(b.params.num_samples) * u64::from(b.params.num_groups);
    let slots = [
        Some((Role::Rows, rows)),
        Some((Role::Products, rows)),
        Some((Role::Channels, u64::from(b.params.num_channels))),
        Some((Role::Groups, groups)),
        terms(b),
        Some((Role::RowGradients, rows)),
    ];
    b.push_groups(KernelId::GroupFoldBackward, 4, &slots)
}

pub(super) fn row_terms_backward(b: &mut Builder) -> Result<(), Error> {
    let rows = b.geometry.rows();
    let params = Params {
        items: rows as u32,
        ..b.params
    };
    let slots = [
        Some((Role::Rows, rows)),
        Some((Role::Products, rows)),
        Some((Role::Channels, u64::from(b.params.num_channels))),
        terms(b),
        Some((Role::RowGradients, rows)),
    ];
    b.push(KernelId::RowTermsBackward, 1, params, &slots)
}

/// Shortens a table of terms, (entries, columns), where it is long. Returns the table to go on with, and
/// its entries.
pub(super) fn fold_terms(b: &mut Builder, terms: Role, entries: u32) -> Result<(Role, u32), Error> {
    let (count, per_segment) = segments(entries, b.tuning);
    if count == 1 {
        return Ok((terms, entries));
    }
    let columns = b.params.columns;
    let lanes = fold_lanes(
        KernelId::SampleFoldBackward,
        count * columns,
        per_segment,
        1,
        b.tuning,
    )?;
    let params = Params {
        items: count * columns,
        entries,
        entries_per_segment: per_segment,
        ..b.params
    };
    let slots = [
        Some((terms, u64::from(entries) * u64::from(columns))),
        Some((Role::GradientParts, u64::from(params.items))),
    ];
    b.push(KernelId::SampleFoldBackward, lanes, params, &slots)?;
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
    let lanes = fold_lanes(
        KernelId::ChannelFoldBackward,
        b.params.columns,
        entries,
        1,
        b.tuning,
    )?;
    let channels = u64::from(b.params.num_channels);
    let affine = b.norm.affine_len() as u64;
    let norm = b.norm;
    let exchanged = flows && options.world_size.is_some();
    let flags = match options.parameters {
        GradientMode::Replace => 0,
        GradientMode::Accumulate => ACCUMULATE,
    } | if exchanged { SUMS } else { 0 };
    let params = Params {
        items: b.params.columns,
        entries,
        flags: b.params.flags | flags,
        ..b.params
    };
    let has_channel_columns = b.params.channel_columns > 0;
    let grouped = norm.has_group_part(b.mode);
    let has_affine_columns = grouped && b.params.columns > b.params.channel_columns;
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
        Some((
            table,
            u64::from(entries.max(1)) * u64::from(b.params.columns),
        )),
        counts.then_some((Role::Channels, channels)),
        bn_weight,
        bn_bias,
        (has_affine_columns && norm.weight).then_some((Role::GradWeight, affine)),
        (has_affine_columns && norm.bias).then_some((Role::GradBias, affine)),
        subtracted,
    ];
    b.push(KernelId::ChannelFoldBackward, lanes, params, &slots)
}

/// The same fold over the sums of all devices.
pub(super) fn gathered_fold_backward(b: &mut Builder, world_size: u32) -> Result<(), Error> {
    let channels = b.params.num_channels;
    let lanes = fold_lanes(
        KernelId::ChannelFoldBackward,
        channels,
        world_size,
        1,
        b.tuning,
    )?;
    let params = Params {
        items: channels,
        entries: world_size,
        columns: channels,
        channel_columns: channels,
        ..b.params
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
    b.push(KernelId::ChannelFoldBackward, lanes, params, &slots)
}
