//! Mirror of `shaders/element_affine_backward.wgsl`.

use super::channel_table::ChannelTable;
use super::element::Element;
use super::elements::{Shape, above_mean, gradient_of, group_gradient_of, row_of};
use super::precise::x_above_mean;
use crate::params::ElementColumnParams;
use crate::tables::{Channel, GradientPair, GroupGradient};

/// dx = scale (dz - mean of dz - x-hat mean of dz x-hat), added to what is there where `accumulate`.
#[expect(
    clippy::too_many_arguments,
    reason = "one for each binding of the kernel"
)]
pub fn element_affine_backward<T: Element>(
    params: &ElementColumnParams,
    accumulate: bool,
    x: &[T],
    grad_y: &[T],
    channels: Option<&[Channel]>,
    weight: Option<&[f32]>,
    group_gradients: &[GroupGradient],
    channel_gradients: Option<&[GradientPair]>,
    grad_x: &mut [T],
) {
    let inputs = ElementAffineBackward {
        params,
        shape: Shape::of_columns(params),
        accumulate,
        x,
        grad_y,
        channels: ChannelTable::new(
            params.norm.flags,
            params.groups.num_channels,
            channels,
            weight,
        ),
        group_gradients,
        channel_gradients,
    };
    for element in 0..inputs.shape.sample_len {
        for sample in 0..params.split.num_samples as usize {
            let out = &mut grad_x[sample * inputs.shape.sample_len + element];
            inputs.map(sample, element, out);
        }
    }
}

/// What the kernel reads.
pub(crate) struct ElementAffineBackward<'a, T> {
    pub params: &'a ElementColumnParams,
    pub shape: Shape,
    pub accumulate: bool,
    pub x: &'a [T],
    pub grad_y: &'a [T],
    pub channels: ChannelTable<'a>,
    pub group_gradients: &'a [GroupGradient],
    pub channel_gradients: Option<&'a [GradientPair]>,
}

impl<T: Element> ElementAffineBackward<'_, T> {
    /// Writes dx of an element of a sample.
    pub fn map(&self, sample: usize, element: usize, grad_x: &mut T) {
        let (params, shape) = (self.params, &self.shape);
        let (c, i) = (shape.channel(element), sample * shape.sample_len + element);
        let group = sample * shape.num_groups + element / shape.group_len;
        let (channel, group) = (&self.channels.entries[c], &self.group_gradients[group]);
        let (x, dy) = (self.x[i], self.grad_y[i].to_f32());
        let above = above_mean(self.channels.has_channel_part, x, channel, group);
        let gradient = gradient_of(&params.norm, dy, channel);
        let mut dz = group_gradient_of(gradient, above, group);
        if let Some(means) = self.channel_gradients.map(|means| &means[c]) {
            let above = x_above_mean(&row_of(x), channel);
            dz = (dz - means.bias) - (means.weight * channel.rstd) * above;
        }
        let mut dx = channel.scale * dz;
        if self.accumulate {
            dx += grad_x.to_f32();
        }
        *grad_x = T::from_f32(dx);
    }
}
