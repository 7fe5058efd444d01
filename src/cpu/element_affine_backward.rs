//! `shaders/element_affine_backward.wgsl`: samples on threads, line by line.

use super::parallel::{Rows, for_ranges};
use crate::params::ElementColumnParams;
use crate::stages::channel_table::ChannelTable;
use crate::stages::element_affine_backward::ElementAffineBackward;
use crate::stages::elements::Shape;
use crate::stages::{Call, Element};
use std::num::NonZero;

/// Runs the step.
pub(crate) fn element_affine_backward<T: Element>(
    threads: NonZero<usize>,
    params: &ElementColumnParams,
    call: &mut Call<'_>,
) {
    let grad_x = call.tensor_mut::<T>("grad_x");
    let inputs = ElementAffineBackward {
        params,
        shape: Shape::of_columns(params),
        accumulate: call.accumulate,
        x: call.tensor("x"),
        grad_y: call.tensor("grad_y"),
        channels: ChannelTable::of(call, params.norm.flags, params.groups.num_channels),
        group_gradients: call.table("group_gradients"),
        channel_gradients: call.optional_table("channel_gradients"),
    };
    let len = inputs.shape.sample_len;
    for_ranges(
        threads,
        0..params.split.num_samples as usize,
        Rows {
            values: grad_x,
            len,
        },
        |sample| sample,
        |range, grad_x: Rows<T>| {
            for (sample, grad_x) in range.zip(grad_x.values.chunks_mut(len)) {
                for (element, out) in grad_x.iter_mut().enumerate() {
                    inputs.map(sample, element, out);
                }
            }
        },
    );
}
