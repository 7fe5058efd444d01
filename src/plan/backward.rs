//! The steps of the backward plan.

use super::elements::{self, Elements};
use super::geometry::{fold_lanes, segments};
use super::{BackwardOptions, Builder, Slot, within};
use crate::desc::{Activation, ChannelPart, Write};
use crate::error::Error;
use crate::kernels::KernelId;
use crate::params::{ACCUMULATE, Params, SUMS};
use crate::role::Role;

pub(super) fn plan(b: &mut Builder, options: BackwardOptions) -> Result<(), Error> {
    let part = b.norm.channel_part(b.mode);
    // Gradients flow through the batch's statistics only.
    let flows = part == ChannelPart::Batch;
    let exchanged = options.shards.filter(|_| flows);
    columns(b, part, flows)?;
    if b.tensor.elements() == 0 {
        // No terms: gradients of zero.
        if b.params.columns > 0 {
            channel_fold_backward(b, options, flows, Role::GradientParts, 0)?;
        }
        if let Some(shards) = exchanged {
            b.exchange_here(shards.get())?;
        }
        return Ok(());
    }
    if let Some(elements) = Elements::of_backward(b, &options) {
        return elements::backward(b, options, &elements);
    }
    let rows = b.geometry.rows();
    let channels = u64::from(b.params.num_channels);
    // What a fused activation is recomputed from.
    let fused = options.fusion.activation != Activation::None;
    let recompute: [Slot; 2] = [
        fused.then_some((Role::Coefficients, rows)),
        (fused && options.fusion.residual).then_some((Role::Residual, 0)),
    ];

    row_products(b, options.fusion.activation, recompute)?;
    if b.norm.has_group_part(b.mode) {
        group_fold_backward(b)?;
    } else {
        row_terms_backward(b)?;
    }
    if b.params.columns > 0 {
        // Of samples, and of a channel's rows that lie together (one of the two is 1).
        let entries = b.params.num_samples * b.params.channel_len.max(1);
        let (table, entries) = fold_terms(b, Role::GradientTerms, entries)?;
        channel_fold_backward(b, options, flows, table, entries)?;
    }
    if let Some(shards) = exchanged {
        b.exchange_here(shards.get())?;
        shard_fold_backward(b, shards.get())?;
    }

    let params = Params {
        items: rows as u32,
        ..b.params
    };
    let slots = [
        Some((Role::Rows, rows)),
        Some((Role::Products, rows)),
        Some((Role::Channels, channels)),
        Some((Role::RowGradients, rows)),
        flows.then_some((Role::ChannelGradients, channels)),
        Some((Role::CoefficientsBackward, rows)),
    ];
    b.push(KernelId::RowCoefficientsBackward, 1, params, &slots)?;

    b.push_tensor(
        [KernelId::RowAffineBackward, KernelId::ColumnAffineBackward],
        b.geometry.map,
        options.fusion.activation,
        options.x == Write::Accumulate,
        &[
            // Without a group part, and with statistics that no gradient flows through, dx is dy times a
            // constant of the channel.
            (fused || flows || b.norm.has_group_part(b.mode)).then_some((Role::X, 0)),
            Some((Role::GradY, 0)),
            Some((Role::CoefficientsBackward, rows)),
            recompute[0],
            recompute[1],
            Some((Role::GradX, 0)),
            recompute[1].map(|_| (Role::GradResidual, 0)),
        ],
    )
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

/// Sums of every row: by parts first, where rows are split.
fn row_products(
    b: &mut Builder,
    activation: Activation,
    recompute: [Slot; 2],
) -> Result<(), Error> {
    let rows = b.geometry.rows();
    let split = b.geometry.reduce;
    let parts = rows * u64::from(split.parts);
    let output = if split.parts == 1 {
        Role::Products
    } else {
        Role::ProductParts
    };
    b.push_tensor(
        [KernelId::RowProducts, KernelId::ColumnProducts],
        split,
        activation,
        false,
        &[
            Some((Role::X, 0)),
            Some((Role::GradY, 0)),
            Some((Role::Rows, rows)),
            recompute[0],
            recompute[1],
            Some((output, parts)),
        ],
    )?;
    b.fold_rows(KernelId::RowFoldBackward, split, output, Role::Products)
}

fn terms(b: &Builder) -> Slot {
    let entries = b.params.num_samples * b.params.channel_len.max(1);
    let count = u64::from(entries) * u64::from(b.params.columns);
    (count > 0).then_some((Role::GradientTerms, count))
}

fn group_fold_backward(b: &mut Builder) -> Result<(), Error> {
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

fn row_terms_backward(b: &mut Builder) -> Result<(), Error> {
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
    let exchanged = flows && options.shards.is_some();
    let flags = match options.parameters {
        Write::Replace => 0,
        Write::Accumulate => ACCUMULATE,
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
fn shard_fold_backward(b: &mut Builder, shards: u32) -> Result<(), Error> {
    let channels = b.params.num_channels;
    let lanes = fold_lanes(KernelId::ChannelFoldBackward, channels, shards, 1, b.tuning)?;
    let params = Params {
        items: channels,
        entries: shards,
        columns: channels,
        channel_columns: channels,
        ..b.params
    };
    let slots = [
        Some((
            Role::GradientShards,
            u64::from(shards) * u64::from(channels),
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
