//! The steps of the forward plan.

use super::elements::{self, Elements};
use super::geometry::{fold_lanes, segments};
use super::{Builder, ForwardOptions, RowSource};
use crate::desc::{ChannelPart, Mode, NormKind};
use crate::error::Error;
use crate::kernels::KernelId;
use crate::params::{CUMULATIVE, PER_CHANNEL, Params};
use crate::role::Role;

pub(super) fn plan(b: &mut Builder, options: ForwardOptions) -> Result<(), Error> {
    let part = b.norm.channel_part(b.mode);
    let from_batch = part.reads_batch();
    let shards = options.shards.filter(|_| from_batch);
    let empty = b.tensor.elements() == 0;
    if empty && shards.is_none() {
        return Ok(());
    }
    if !empty && let Some(elements) = Elements::of_forward(b, &options) {
        return elements::forward(b, options, &elements);
    }
    let reads_rows = from_batch || b.norm.has_group_part(b.mode);
    if !empty && reads_rows && options.rows == RowSource::Computed {
        row_moments(b)?;
    }
    // In eval nothing of the batch enters the channel part.
    let mut table = None;
    if from_batch {
        let (role, entries) = sample_fold(b, shards.is_some())?;
        table = Some((role, entries));
    }
    if let Some(shards) = shards {
        b.exchange_here(shards.get())?;
        table = Some((Role::ChannelShards, shards.get()));
    }
    channel_fold(b, part, table)?;
    if empty {
        return Ok(());
    }
    if b.norm.has_group_part(b.mode) {
        group_fold(b)?;
    } else {
        // Rows that the caller gave stay as they are.
        row_coefficients(b, reads_rows || options.rows == RowSource::Given)?;
    }
    let updates_instance = b.norm.kind == NormKind::InstanceNorm
        && b.norm.track_running_stats
        && b.mode == Mode::Train;
    if updates_instance {
        running_fold(b)?;
    }

    let rows = b.geometry.rows();
    let output = if options.in_place { Role::X } else { Role::Y };
    b.push_tensor(
        [KernelId::RowAffine, KernelId::ColumnAffine],
        b.geometry.map,
        options.fusion.activation,
        false,
        &[
            (!options.in_place).then_some((Role::X, 0)),
            Some((Role::Coefficients, rows)),
            options.fusion.residual.then_some((Role::Residual, 0)),
            Some((output, 0)),
        ],
    )
}

/// Moments of every row: by parts first, where rows are split.
fn row_moments(b: &mut Builder) -> Result<(), Error> {
    let rows = b.geometry.rows();
    let split = b.geometry.reduce;
    let parts = rows * u64::from(split.parts);
    let output = if split.parts == 1 {
        Role::Rows
    } else {
        Role::RowParts
    };
    b.push_tensor(
        [KernelId::RowMoments, KernelId::ColumnMoments],
        split,
        Default::default(),
        false,
        &[Some((Role::X, 0)), Some((output, parts))],
    )?;
    b.fold_rows(KernelId::RowFold, split, output, Role::Rows)
}

/// Shortens the table of rows where the batch is large, or down to one entry a channel where it is
/// exchanged with other devices. Returns the table that the channel fold reads and its entries per
/// channel.
fn sample_fold(b: &mut Builder, exchanged: bool) -> Result<(Role, u32), Error> {
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

fn group_fold(b: &mut Builder) -> Result<(), Error> {
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
fn row_coefficients(b: &mut Builder, has_rows: bool) -> Result<(), Error> {
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

fn running_fold(b: &mut Builder) -> Result<(), Error> {
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
