//! The steps of the backward plan.

use super::builder::{Builder, Slot};
use super::folds::{
    channel_fold_backward, columns, fold_terms, gathered_fold_backward, group_fold_backward,
    row_terms_backward, term_entries,
};
use super::options::BackwardOptions;
use super::short_rows::{self, Elements};
use crate::desc::{Activation, ChannelPart, GradientMode};
use crate::error::Error;
use crate::params::{Dispatch, GroupParams, Params};
use crate::role::Role;

pub(super) fn plan(b: &mut Builder, options: BackwardOptions) -> Result<(), Error> {
    let part = b.norm.channel_part(b.mode);
    // Gradients flow through the batch's statistics only.
    let flows = part == ChannelPart::Batch;
    let exchanged = options.world_size.filter(|_| flows);
    columns(b, part, flows)?;
    if b.tensor.elements() == 0 {
        // No terms: gradients of zero.
        if b.columns > 0 {
            channel_fold_backward(b, options, flows, Role::GradientParts, 0)?;
        }
        if let Some(world_size) = exchanged {
            b.all_gather_here(world_size.get())?;
        }
        return Ok(());
    }
    if let Some(elements) = Elements::of_backward(b, &options) {
        return short_rows::backward(b, options, &elements);
    }
    let rows = b.geometry.rows();
    let channels = u64::from(b.shape.num_channels);
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
    if b.columns > 0 {
        let entries = term_entries(b);
        let (table, entries) = fold_terms(b, Role::GradientTerms, entries)?;
        channel_fold_backward(b, options, flows, table, entries)?;
    }
    if let Some(world_size) = exchanged {
        b.all_gather_here(world_size.get())?;
        gathered_fold_backward(b, world_size.get())?;
    }

    let params = GroupParams {
        dispatch: Dispatch::of(rows as u32),
        norm: b.setting,
        shape: b.shape,
    };
    let slots = [
        Some((Role::Rows, rows)),
        Some((Role::Products, rows)),
        b.channel_table(),
        Some((Role::RowGradients, rows)),
        flows.then_some((Role::ChannelGradients, channels)),
        Some((Role::CoefficientsBackward, rows)),
    ];
    b.push_each(Params::RowCoefficientsBackward(params), &slots)?;

    b.push_tensor(
        Params::RowAffineBackward,
        Params::ColumnAffineBackward,
        b.geometry.map,
        options.fusion.activation,
        options.x == GradientMode::Accumulate,
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
        Params::RowProducts,
        Params::ColumnProducts,
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
    b.fold_rows(Params::RowFoldBackward, split, output, Role::Products)
}
