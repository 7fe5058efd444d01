//! Mirror of `shaders/element_products.wgsl`.

use super::channel_table::ChannelTable;
use super::element::Element;
use super::elements::{Shape, gradient_above, gradient_of, row_of};
use super::precise::{above_group_mean, degrees_of_freedom, ratio};
use crate::params::ElementParams;
use crate::tables::{Channel, GradientPair, Group, GroupGradient};

/// What every (sample, group) makes of dy; with `affine_terms`, its terms of the gradients of weight and
/// bias. `width` is the step's.
#[expect(
    clippy::too_many_arguments,
    reason = "one for each binding of the kernel"
)]
pub fn element_products<T: Element>(
    params: &ElementParams,
    width: u32,
    x: &[T],
    grad_y: &[T],
    channels: Option<&[Channel]>,
    weight: Option<&[f32]>,
    groups: &[Group],
    mut affine_terms: Option<&mut [GradientPair]>,
    group_gradients: &mut [GroupGradient],
) {
    let inputs = ElementProducts {
        params,
        shape: Shape::of_groups(params, width),
        x,
        grad_y,
        channels: ChannelTable::new(
            params.norm.flags,
            params.groups.num_channels,
            channels,
            weight,
        ),
        groups,
    };
    for (item, gradient) in group_gradients.iter_mut().enumerate() {
        let term;
        (*gradient, term) = inputs.project(item);
        if let Some(terms) = &mut affine_terms {
            terms[item] = term;
        }
    }
}

/// What the kernel reads.
pub(crate) struct ElementProducts<'a, T> {
    pub params: &'a ElementParams,
    pub shape: Shape,
    pub x: &'a [T],
    pub grad_y: &'a [T],
    pub channels: ChannelTable<'a>,
    pub groups: &'a [Group],
}

impl<T: Element> ElementProducts<'_, T> {
    /// What a (sample, group) makes of dy, and its terms of the gradients.
    pub fn project(&self, item: usize) -> (GroupGradient, GradientPair) {
        let (params, shape, group) = (self.params, &self.shape, &self.groups[item]);
        let begin = item * shape.group_len;
        let x = &self.x[begin..][..shape.group_len];
        let grad_y = &self.grad_y[begin..][..shape.group_len];
        let size = shape.num_channels() / shape.num_groups;
        let has_channel_part = self.channels.has_channel_part;
        let channels = &self.channels.entries[item % shape.num_groups * size..][..size];
        let channel_len = x.len() / channels.len();
        let count = x.len() as f32;
        // Every element's z less its mean, and its dy.
        let elements = || {
            x.iter().zip(grad_y).enumerate().map(|(i, (&x, dy))| {
                let channel = &channels[i / channel_len];
                let above = above_group_mean(has_channel_part, &row_of(x), channel, group);
                (above, gradient_of(&params.norm, dy.to_f32(), channel))
            })
        };
        let origin = gradient_of(&params.norm, grad_y[0].to_f32(), &channels[0]);
        let (mut pivots, mut offsets) = (0.0, 0.0);
        // z's multiple in dy, about the same element: z less its mean has none in that.
        let (mut product, mut spread) = (0.0, 0.0);
        for (above, gradient) in elements() {
            let (high, low) = (gradient.0 - origin.0, gradient.1 - origin.1);
            pivots += f64::from(high);
            offsets += f64::from(low);
            product += f64::from((high + low) * above);
            spread += f64::from(above) * f64::from(above);
        }
        let (pivot, offset) = (
            origin.0 + (pivots / f64::from(count)) as f32,
            origin.1 + (offsets / f64::from(count)) as f32,
        );
        let c = ratio(product, spread);
        let (mut left, mut product_left) = (0.0, 0.0);
        for (above, gradient) in elements() {
            let rest = gradient_above(gradient, pivot, offset) - c * above;
            left += f64::from(rest);
            product_left += f64::from(rest * above);
        }
        let left = left as f32;
        let c_left = ratio(product_left, spread);
        let variance = (spread / f64::from(degrees_of_freedom(&params.norm, count))) as f32;
        let kept =
            (c + c_left) * ratio(params.norm.eps.into(), (variance + params.norm.eps).into());
        let gradient = GroupGradient {
            mean_pivot: group.mean_pivot,
            mean_offset: group.mean_offset,
            mean_rest: group.mean_rest,
            rstd: group.rstd,
            grad_pivot: pivot,
            grad_offset: offset,
            shift: left / count,
            projection: c,
            rest: c_left - kept,
            scale: group.rstd * group.weight,
            ..GroupGradient::default()
        };
        let term = GradientPair {
            // The mean of dy has its remainder in the shift, unless that has a NaN of x: none of it is dy's.
            bias: (count * pivot + count * offset) + if left.is_nan() { 0.0 } else { left },
            weight: group.rstd * (product + product_left) as f32,
        };
        (gradient, term)
    }
}
