//! `shaders/element_products.wgsl`: the mirror's groups, on threads.

use super::parallel::for_ranges;
use crate::params::ElementParams;
use crate::stages::channel_table::ChannelTable;
use crate::stages::element_products::ElementProducts;
use crate::stages::elements::Shape;
use crate::stages::{Call, Element};
use crate::tables::{GradientPair, GroupGradient};
use std::num::NonZero;

/// Runs the step.
pub(crate) fn element_products<T: Element>(
    threads: NonZero<usize>,
    params: &ElementParams,
    call: &mut Call<'_>,
) {
    let terms = call.optional_table_mut("affine_terms");
    let gradients = call.table_mut("group_gradients");
    let inputs = ElementProducts {
        params,
        shape: Shape::of_groups(params, call.width),
        x: call.tensor::<T>("x"),
        grad_y: call.tensor("grad_y"),
        channels: ChannelTable::of(call, params.norm.flags, params.groups.num_channels),
        groups: call.table("groups"),
    };
    for_ranges(
        threads,
        0..inputs.x.len() / inputs.shape.group_len,
        (terms, gradients),
        |item| item,
        |range, (mut terms, gradients): (Option<&mut [GradientPair]>, &mut [GroupGradient])| {
            for (index, (item, gradient)) in range.zip(gradients).enumerate() {
                let term;
                (*gradient, term) = inputs.project(item);
                if let Some(terms) = &mut terms {
                    terms[index] = term;
                }
            }
        },
    );
}
