//! Mirror of `shaders/element_affine_backward.wgsl`.

use super::element::Element;
use super::elements::{Shape, above_mean, gradient_of, group_gradient_of, row_of};
use super::parallel::for_ranges;
use super::precise::x_above_mean;
use crate::params::ElementColumnParams;
use crate::tables::{Channel, GradientPair, GroupGradient};
use std::num::NonZero;

/// dx = scale (dz - mean of dz - x-hat mean of dz x-hat), added to what is there where `accumulate`.
#[allow(clippy::too_many_arguments)] // The kernel's bindings.
pub fn element_affine_backward<T: Element>(
    threads: NonZero<usize>,
    params: &ElementColumnParams,
    accumulate: bool,
    x: &[T],
    grad_y: &[T],
    channels: &[Channel],
    group_gradients: &[GroupGradient],
    channel_gradients: Option<&[GradientPair]>,
    grad_x: &mut [T],
) {
    let shape = Shape::of_columns(params);
    for_ranges(
        threads,
        0..params.split.num_samples as usize,
        grad_x,
        |sample| sample * shape.sample_len,
        |range, grad_x: &mut [T]| {
            for (sample, grad_x) in range.zip(grad_x.chunks_mut(shape.sample_len)) {
                let begin = sample * shape.sample_len;
                for (element, out) in grad_x.iter_mut().enumerate() {
                    let c = shape.channel(element);
                    let group = sample * shape.num_groups + element / shape.group_len;
                    let (channel, group) = (&channels[c], &group_gradients[group]);
                    let (x, dy) = (x[begin + element], grad_y[begin + element].to_f32());
                    let above = above_mean(&params.norm, x, channel, group);
                    let gradient = gradient_of(&params.norm, dy, channel);
                    let mut dz = group_gradient_of(gradient, above, group);
                    if let Some(means) = channel_gradients.map(|means| &means[c]) {
                        let above = x_above_mean(&row_of(x), channel);
                        dz = (dz - means.bias) - (means.weight * channel.rstd) * above;
                    }
                    let dx = channel.scale * dz;
                    *out = T::from_f32(if accumulate { out.to_f32() + dx } else { dx });
                }
            }
        },
    );
}
