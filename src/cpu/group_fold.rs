//! `shaders/group_fold.wgsl`: the mirror's groups, on threads.

use super::parallel::{Rows, for_ranges};
use crate::params::GroupParams;
use crate::stages::Call;
use crate::stages::group_fold::GroupFold;
use crate::tables::{Affine, Group};
use std::num::NonZero;

/// Runs the step.
pub(crate) fn group_fold(threads: NonZero<usize>, params: &GroupParams, call: &mut Call<'_>) {
    let groups = call.table_mut::<Group>("groups");
    let coefficients = call.table_mut::<Affine>("coefficients");
    let inputs = GroupFold {
        params,
        rows: call.table("rows"),
        channels: call.table("channels"),
        weight: call.optional_table("weight"),
        bias: call.optional_table("bias"),
    };
    let len = (params.shape.num_channels / params.shape.num_groups) as usize;
    let values = coefficients;
    for_ranges(
        threads,
        0..groups.len(),
        (groups, Rows { values, len }),
        |item| item,
        |range, (groups, coefficients): (&mut [Group], Rows<Affine>)| {
            let outputs = groups.iter_mut().zip(coefficients.values.chunks_mut(len));
            for (item, (group, coefficients)) in range.zip(outputs) {
                *group = inputs.fold(item, coefficients);
            }
        },
    );
}
