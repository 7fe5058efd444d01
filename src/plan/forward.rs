//! The steps of the forward plan.

use super::builder::Builder;
use super::folds::{channel_fold, group_fold, row_coefficients, running_fold, sample_fold};
use super::options::{ForwardOptions, RowSource};
use super::short_rows::{self, Elements};
use crate::desc::{Mode, NormKind};
use crate::error::Error;
use crate::params::Params;
use crate::role::Role;

pub(super) fn plan(b: &mut Builder, options: ForwardOptions) -> Result<(), Error> {
    let part = b.norm.channel_part(b.mode);
    let from_batch = part.reads_batch();
    let world_size = options.world_size.filter(|_| from_batch);
    let empty = b.tensor.elements() == 0;
    if empty && world_size.is_none() {
        return Ok(());
    }
    if !empty && let Some(elements) = Elements::of_forward(b, &options) {
        return short_rows::forward(b, options, &elements);
    }
    let reads_rows = from_batch || b.norm.has_group_part(b.mode);
    if !empty && reads_rows && options.rows == RowSource::Computed {
        row_moments(b)?;
    }
    // In eval nothing of the batch enters the channel part.
    let mut table = None;
    if from_batch {
        let (role, entries) = sample_fold(b, world_size.is_some())?;
        table = Some((role, entries));
    }
    if let Some(world_size) = world_size {
        b.all_gather_here(world_size.get())?;
        table = Some((Role::GatheredMoments, world_size.get()));
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
        Params::RowAffine,
        Params::ColumnAffine,
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
        Params::RowMoments,
        Params::ColumnMoments,
        split,
        Default::default(),
        false,
        &[Some((Role::X, 0)), Some((output, parts))],
    )?;
    b.fold_rows(Params::RowFold, split, output, Role::Rows)
}
