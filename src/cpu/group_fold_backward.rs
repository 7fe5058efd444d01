//! `shaders/group_fold_backward.wgsl`: the mirror's samples, on threads.

use super::parallel::{Rows, for_ranges};
use crate::params::TermParams;
use crate::stages::Call;
use crate::stages::channel_table::ChannelTable;
use crate::stages::group_fold_backward::GroupFoldBackward;
use crate::tables::{GradientPair, RowGradient};
use std::num::NonZero;

/// Runs the step.
pub(crate) fn group_fold_backward(
    threads: NonZero<usize>,
    params: &TermParams,
    call: &mut Call<'_>,
) {
    let terms = call.optional_table_mut::<GradientPair>("gradient_terms");
    let row_gradients = call.table_mut::<RowGradient>("row_gradients");
    let inputs = GroupFoldBackward {
        params,
        rows: call.table("rows"),
        products: call.table("products"),
        channels: ChannelTable::of(call, params.norm.flags, params.shape.num_channels),
        groups: call.table("groups"),
    };
    let (columns, rows) = (
        params.table.columns as usize,
        params.shape.num_channels as usize,
    );
    let samples = inputs.groups.len() / params.shape.num_groups as usize;
    let terms = terms.map(|values| Rows {
        values,
        len: columns,
    });
    let row_gradients = Rows {
        values: row_gradients,
        len: rows,
    };
    for_ranges(
        threads,
        0..samples,
        (terms, row_gradients),
        |sample| sample,
        |range, (terms, row_gradients): (Option<Rows<GradientPair>>, Rows<RowGradient>)| {
            let mut terms = terms.map(|terms| terms.values.chunks_mut(columns));
            for (sample, row_gradients) in range.zip(row_gradients.values.chunks_mut(rows)) {
                let terms = terms.as_mut().and_then(Iterator::next);
                inputs.fold_sample(sample, terms, row_gradients);
            }
        },
    );
}
