//! The steps of the backward plan.

use super::geometry::{fold_lanes, segments};
use super::{BackwardOptions, Builder};
use crate::desc::Write;
use crate::error::Error;
use crate::kernels::{KernelId, Spec};
use crate::params::{ACCUMULATE, Params};
use crate::role::Role;

pub(super) fn plan(b: &mut Builder, options: BackwardOptions) -> Result<(), Error> {
    let columns = u64::from(b.params.num_channels) + u64::from(b.params.num_groups);
    // An empty batch has no terms, whatever its N; its columns are those of the gradients.
    let samples = match b.tensor.elements() {
        0 => 1,
        _ => u64::from(b.params.num_samples),
    };
    let terms = samples * columns;
    if terms > u64::from(u32::MAX) {
        return Err(Error::Limit {
            what: "the number of gradient terms, N * (C + G),".into(),
            value: terms,
            limit: u64::from(u32::MAX),
            limit_name: "u32 index",
            way_out: "split the batch, or use fewer groups",
        });
    }
    b.params.columns = columns as u32;
    if b.tensor.elements() == 0 {
        // No terms: gradients of zero.
        return channel_fold_backward(b, options, Role::GradientParts, 0);
    }
    let rows = b.tensor.rows();
    let channels = u64::from(b.params.num_channels);
    let groups = u64::from(b.params.num_samples) * u64::from(b.params.num_groups);

    row_products(b)?;

    let size = b.params.num_channels / b.params.num_groups;
    let lanes = fold_lanes(KernelId::GroupFoldBackward, size, 4, b.tuning)?;
    let params = Params {
        items: groups as u32,
        ..b.params
    };
    b.push(
        b.fold_spec(KernelId::GroupFoldBackward, lanes),
        params,
        &[
            (Role::Rows, rows),
            (Role::Products, rows),
            (Role::Channels, channels),
            (Role::Groups, groups),
            (Role::GradientTerms, terms),
        ],
    )?;

    let (table, entries) = sample_fold_backward(b)?;
    channel_fold_backward(b, options, table, entries)?;

    let params = Params {
        items: rows as u32,
        ..b.params
    };
    b.push(
        b.fold_spec(KernelId::RowCoefficientsBackward, 1),
        params,
        &[
            (Role::Rows, rows),
            (Role::Products, rows),
            (Role::Channels, channels),
            (Role::Groups, groups),
            (Role::GradientTerms, terms),
            (Role::ChannelGradients, channels),
            (Role::CoefficientsBackward, rows),
        ],
    )?;

    let split = b.geometry.map;
    let words = u64::from(b.geometry.num_words);
    let spec = Spec {
        accumulate: options.x == Write::Accumulate,
        ..b.row_spec(KernelId::RowAffineBackward, split)
    };
    b.push(
        spec,
        b.row_params(split),
        &[
            (Role::X, words),
            (Role::GradY, words),
            (Role::CoefficientsBackward, rows),
            (Role::GradX, words),
        ],
    )
}

/// Sums of every row: by parts first, where rows are split.
fn row_products(b: &mut Builder) -> Result<(), Error> {
    let rows = b.tensor.rows();
    let split = b.geometry.reduce;
    let words = u64::from(b.geometry.num_words);
    let parts = rows * u64::from(split.parts);
    let output = if split.parts == 1 {
        Role::Products
    } else {
        Role::ProductParts
    };
    b.push(
        b.row_spec(KernelId::RowProducts, split),
        b.row_params(split),
        &[
            (Role::X, words),
            (Role::GradY, words),
            (Role::Rows, rows),
            (output, parts),
        ],
    )?;
    if split.parts > 1 {
        let lanes = fold_lanes(KernelId::RowFoldBackward, split.parts, 1, b.tuning)?;
        let params = Params {
            items: rows as u32,
            parts: split.parts,
            ..b.params
        };
        b.push(
            b.fold_spec(KernelId::RowFoldBackward, lanes),
            params,
            &[(Role::ProductParts, parts), (Role::Products, rows)],
        )?;
    }
    Ok(())
}

/// Shortens the table of terms where the batch is large.
fn sample_fold_backward(b: &mut Builder) -> Result<(Role, u32), Error> {
    let entries = b.params.num_samples;
    let (count, per_segment) = segments(entries, b.tuning);
    if count == 1 {
        return Ok((Role::GradientTerms, entries));
    }
    let lanes = fold_lanes(KernelId::SampleFoldBackward, per_segment, 1, b.tuning)?;
    let columns = b.params.columns;
    let params = Params {
        items: count * columns,
        entries,
        entries_per_segment: per_segment,
        ..b.params
    };
    b.push(
        b.fold_spec(KernelId::SampleFoldBackward, lanes),
        params,
        &[
            (Role::GradientTerms, u64::from(entries) * u64::from(columns)),
            (Role::GradientParts, u64::from(params.items)),
        ],
    )?;
    Ok((Role::GradientParts, count))
}

fn channel_fold_backward(
    b: &mut Builder,
    options: BackwardOptions,
    table: Role,
    entries: u32,
) -> Result<(), Error> {
    let lanes = fold_lanes(KernelId::ChannelFoldBackward, entries, 1, b.tuning)?;
    let channels = u64::from(b.params.num_channels);
    let groups = u64::from(b.params.num_groups);
    let accumulate = match options.parameters {
        Write::Replace => 0,
        Write::Accumulate => ACCUMULATE,
    };
    let columns = b.params.columns;
    let params = Params {
        items: columns,
        entries,
        flags: b.params.flags | accumulate,
        ..b.params
    };
    b.push(
        b.fold_spec(KernelId::ChannelFoldBackward, lanes),
        params,
        &[
            (table, u64::from(entries.max(1)) * u64::from(columns)),
            (Role::GradBnWeight, channels),
            (Role::GradBnBias, channels),
            (Role::GradWeight, groups),
            (Role::GradBias, groups),
            (Role::ChannelGradients, channels),
        ],
    )
}
