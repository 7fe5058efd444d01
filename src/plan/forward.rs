//! The steps of the forward plan.

use super::Builder;
use super::geometry::{Split, fold_lanes, segments};
use crate::desc::{ChannelStats, Mode};
use crate::error::Error;
use crate::kernels::{KernelId, Spec};
use crate::params::Params;
use crate::role::Role;

pub(super) fn plan(b: &mut Builder) -> Result<(), Error> {
    if b.tensor.elements() == 0 {
        return Ok(());
    }
    let samples = b.tensor.num_samples();
    let channels = u64::from(b.tensor.num_channels());
    let rows = b.tensor.rows();

    row_moments(b)?;
    let training = b.mode == Mode::Train;
    if training && matches!(b.norm.stats, ChannelStats::Batch { .. }) {
        let spec = b.fold_spec(KernelId::BatchCount, 1);
        let params = Params {
            items: 1,
            ..b.params
        };
        b.push(spec, params, &[(Role::NumBatchesTracked, 1)])?;
    }
    // In eval nothing of the batch enters the channel part.
    let (table, entries) = if training {
        sample_fold(b)?
    } else {
        (Role::Rows, 0)
    };
    let lanes = fold_lanes(KernelId::ChannelFold, entries, 2, b.tuning)?;
    let params = Params {
        items: b.params.num_channels,
        entries,
        columns: b.params.num_channels,
        ..b.params
    };
    b.push(
        b.fold_spec(KernelId::ChannelFold, lanes),
        params,
        &[
            (table, u64::from(entries.max(1)) * channels),
            (Role::BnWeight, channels),
            (Role::BnBias, channels),
            (Role::NumBatchesTracked, 1),
            (Role::RunningMean, channels),
            (Role::RunningVar, channels),
            (Role::Channels, channels),
        ],
    )?;

    let groups = u64::from(b.params.num_groups);
    let items = samples * b.params.num_groups;
    let size = b.params.num_channels / b.params.num_groups;
    let lanes = fold_lanes(KernelId::GroupFold, size, 4, b.tuning)?;
    b.push(
        b.fold_spec(KernelId::GroupFold, lanes),
        Params { items, ..b.params },
        &[
            (Role::Rows, rows),
            (Role::Channels, channels),
            (Role::Weight, groups),
            (Role::Bias, groups),
            (Role::Groups, u64::from(items)),
            (Role::Coefficients, rows),
        ],
    )?;

    let split = b.geometry.map;
    let words = u64::from(b.geometry.num_words);
    b.push(
        b.row_spec(KernelId::RowAffine, split),
        b.row_params(split),
        &[
            (Role::X, words),
            (Role::Coefficients, rows),
            (Role::Y, words),
        ],
    )
}

/// Moments of every row: by parts first, where rows are split.
fn row_moments(b: &mut Builder) -> Result<(), Error> {
    let rows = b.tensor.rows();
    let split = b.geometry.reduce;
    let words = u64::from(b.geometry.num_words);
    let parts = rows * u64::from(split.parts);
    let output = if split.parts == 1 {
        Role::Rows
    } else {
        Role::RowParts
    };
    b.push(
        b.row_spec(KernelId::RowMoments, split),
        b.row_params(split),
        &[(Role::X, words), (output, parts)],
    )?;
    if split.parts > 1 {
        let lanes = fold_lanes(KernelId::RowFold, split.parts, 1, b.tuning)?;
        let params = Params {
            items: rows as u32,
            parts: split.parts,
            ..b.params
        };
        b.push(
            b.fold_spec(KernelId::RowFold, lanes),
            params,
            &[(Role::RowParts, parts), (Role::Rows, rows)],
        )?;
    }
    Ok(())
}

/// Shortens the table of rows where the batch is large. Returns the table that the channel fold
/// reads and its entries per channel.
fn sample_fold(b: &mut Builder) -> Result<(Role, u32), Error> {
    let entries = b.params.num_samples;
    let (count, per_segment) = segments(entries, b.tuning);
    if count == 1 {
        return Ok((Role::Rows, entries));
    }
    let lanes = fold_lanes(KernelId::SampleFold, per_segment, 1, b.tuning)?;
    let columns = b.params.num_channels;
    let params = Params {
        items: count * columns,
        entries,
        entries_per_segment: per_segment,
        columns,
        ..b.params
    };
    b.push(
        b.fold_spec(KernelId::SampleFold, lanes),
        params,
        &[
            (Role::Rows, b.tensor.rows()),
            (Role::ChannelParts, u64::from(params.items)),
        ],
    )?;
    Ok((Role::ChannelParts, count))
}

impl Builder<'_> {
    /// A kernel on tables.
    pub(super) fn fold_spec(&self, kernel: KernelId, lanes: u32) -> Spec {
        Spec {
            kernel,
            workgroup_size: self.tuning.fold_workgroup_size.next_multiple_of(lanes),
            lanes,
            width: 1,
            aligned: true,
            accumulate: false,
            fence: false,
        }
    }

    /// A tensor-sized kernel.
    pub(super) fn row_spec(&self, kernel: KernelId, split: Split) -> Spec {
        Spec {
            kernel,
            workgroup_size: self.tuning.workgroup_size,
            lanes: split.lanes,
            width: self.geometry.width,
            aligned: self.geometry.aligned,
            accumulate: false,
            fence: self.tuning.fence,
        }
    }

    /// Its uniform. `Geometry` made sure that the items are a u32.
    pub(super) fn row_params(&self, split: Split) -> Params {
        Params {
            items: (self.tensor.rows() * u64::from(split.parts)) as u32,
            parts: split.parts,
            words_per_part: split.words_per_part,
            ..self.params
        }
    }
}
