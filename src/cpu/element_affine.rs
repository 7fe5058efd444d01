//! `shaders/element_affine.wgsl`: the mirror's groups, on threads.

use super::parallel::{Rows, for_ranges};
use crate::params::ElementParams;
use crate::stages::channel_table::ChannelTable;
use crate::stages::element_affine::ElementAffine;
use crate::stages::elements::Shape;
use crate::stages::{Call, Element};
use crate::tables::Group;
use std::num::NonZero;

/// Runs the step.
pub(crate) fn element_affine<T: Element>(
    threads: NonZero<usize>,
    params: &ElementParams,
    call: &mut Call<'_>,
) {
    let groups = call.optional_table_mut::<Group>("groups");
    let y = call.tensor_mut::<T>("y");
    let inputs = ElementAffine {
        params,
        shape: Shape::of_groups(params, call.width),
        activation: call.activation,
        x: call.optional_tensor("x"),
        channels: ChannelTable::of(call, params.norm.flags, params.groups.num_channels),
        weight: call.optional_table("weight"),
        bias: call.optional_table("bias"),
        residual: call.optional_tensor("residual"),
    };
    let len = inputs.shape.group_len;
    for_ranges(
        threads,
        0..y.len() / len,
        (groups, Rows { values: y, len }),
        |item| item,
        |range, (mut groups, y): (Option<&mut [Group]>, Rows<T>)| {
            for (index, (item, y)) in range.zip(y.values.chunks_mut(len)).enumerate() {
                let group = inputs.map_group(item, y);
                if let Some(groups) = &mut groups {
                    groups[index] = group;
                }
            }
        },
    );
}
