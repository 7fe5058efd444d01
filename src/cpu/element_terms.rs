//! `shaders/element_terms.wgsl`: ranges of elements on threads, which go over the samples line by line.

use super::parallel::for_ranges;
use crate::params::ElementColumnParams;
use crate::stages::channel_table::ChannelTable;
use crate::stages::element_terms::{ElementTerms, TermSums};
use crate::stages::elements::Shape;
use crate::stages::{Call, Element};
use std::num::NonZero;

/// Runs the step.
pub(crate) fn element_terms<T: Element>(
    threads: NonZero<usize>,
    params: &ElementColumnParams,
    call: &mut Call<'_>,
) {
    let mut channel_terms = call.optional_table_mut("channel_terms");
    let mut affine_terms = call.optional_table_mut("affine_terms");
    let inputs = ElementTerms {
        params,
        shape: Shape::of_columns(params),
        x: call.tensor::<T>("x"),
        grad_y: call.tensor("grad_y"),
        channels: ChannelTable::of(call, params.norm.flags, params.groups.num_channels),
        group_gradients: call.table("group_gradients"),
    };
    let elements = 0..inputs.shape.sample_len;
    let mut sums = vec![TermSums::default(); elements.len()];
    for part in 0..params.split.parts as usize {
        for_ranges(
            threads,
            elements.clone(),
            &mut sums[..],
            |element| element,
            |elements, sums: &mut [TermSums]| {
                sums.fill(TermSums::default());
                for sample in inputs.samples(part) {
                    for (element, sums) in elements.clone().zip(&mut *sums) {
                        inputs.add(sample, element, sums);
                    }
                }
            },
        );
        for (element, sums) in sums.iter().enumerate() {
            inputs.put(part, element, sums, &mut channel_terms, &mut affine_terms);
        }
    }
}
