//! Mirror of `shaders/element_affine.wgsl`.

use super::activation::activate;
use super::element::Element;
use super::elements::{Shape, row_of};
use super::parallel::for_ranges;
use super::precise::{above_group_mean, degrees_of_freedom, reciprocal_std, row_mean};
use crate::desc::Activation;
use crate::params::{ElementParams, PER_CHANNEL};
use crate::tables::{Channel, Group};
use std::num::NonZero;

/// y = activation(norm(x) + residual), group by group. Without x, it is in y. `width` is the step's.
#[allow(clippy::too_many_arguments)] // The kernel's bindings.
pub fn element_affine<T: Element>(
    threads: NonZero<usize>,
    params: &ElementParams,
    width: u32,
    activation: Activation,
    x: Option<&[T]>,
    channels: &[Channel],
    weight: Option<&[f32]>,
    bias: Option<&[f32]>,
    residual: Option<&[T]>,
    groups: Option<&mut [Group]>,
    y: &mut [T],
) {
    let shape = Shape::of_groups(params, width);
    let items = params.dispatch.items as usize;
    let mut unsaved = Vec::new();
    let groups = groups.unwrap_or_else(|| {
        unsaved.resize(items, Group::default());
        &mut unsaved
    });
    let size = shape.num_channels() / shape.num_groups;
    let channel_len = shape.group_len / size;
    let channels_of = |item: usize| &channels[item % shape.num_groups * size..][..size];
    let per_channel = params.norm.flags & PER_CHANNEL != 0;
    {
        let x = x.unwrap_or(&*y);
        for_ranges(
            threads,
            0..items,
            &mut *groups,
            |item| item,
            |range, groups: &mut [Group]| {
                for (item, group) in range.zip(groups) {
                    let x = &x[item * shape.group_len..][..shape.group_len];
                    *group = statistics(params, channel_len, x, channels_of(item));
                    if let (Some(weight), false) = (weight, per_channel) {
                        group.weight = weight[item % shape.num_groups];
                    }
                }
            },
        );
    }
    let groups = &*groups;
    for_ranges(
        threads,
        0..items,
        y,
        |item| item * shape.group_len,
        |range, y: &mut [T]| {
            for (item, y) in range.zip(y.chunks_mut(shape.group_len)) {
                let (g, group) = (item % shape.num_groups, &groups[item]);
                let begin = item * shape.group_len;
                for (i, y) in y.iter_mut().enumerate() {
                    let c = i / channel_len;
                    let channel = &channels_of(item)[c];
                    let x = x.map_or(*y, |x| x[begin + i]);
                    let above = above_group_mean(&params.norm, &row_of(x), channel, group);
                    let affine = if per_channel { g * size + c } else { g };
                    let scale = (group.weight * channel.weight) * group.rstd;
                    let mut t = scale * above + bias.map_or(0.0, |bias| bias[affine]);
                    if let Some(residual) = residual {
                        t += residual[begin + i].to_f32();
                    }
                    *y = T::from_f32(activate(t, activation));
                }
            }
        },
    );
}

/// A group's statistics: sums about its first element, then about the mean that these make. The latter's squares less what
/// is left of the mean are the spread.
fn statistics<T: Element>(
    params: &ElementParams,
    channel_len: usize,
    x: &[T],
    channels: &[Channel],
) -> Group {
    let count = x.len() as f32;
    let elements = || {
        x.chunks(channel_len)
            .zip(channels)
            .flat_map(|(x, channel)| x.iter().map(move |&x| (row_of(x), channel)))
    };
    let z_first = row_mean(&params.norm, &row_of(x[0]), &channels[0]);
    let (mut pivots, mut offsets) = (0.0, 0.0);
    for (row, channel) in elements() {
        let z = row_mean(&params.norm, &row, channel);
        pivots += f64::from(z.pivot - z_first.pivot);
        offsets += f64::from(z.offset - z_first.offset);
    }
    let mut group = Group {
        mean_pivot: z_first.pivot + (pivots / f64::from(count)) as f32,
        mean_offset: z_first.offset + (offsets / f64::from(count)) as f32,
        mean_rest: z_first.rest,
        weight: 1.0,
        ..Group::default()
    };
    let (mut left, mut squares) = (0.0, 0.0);
    for (row, channel) in elements() {
        let above = above_group_mean(&params.norm, &row, channel, &group);
        left += f64::from(above);
        squares += f64::from(above) * f64::from(above);
    }
    let mean_left = left / f64::from(count);
    group.mean_rest += mean_left as f32;
    let spread = squares - left * mean_left;
    // (Not max, which loses a NaN.)
    let spread = if spread < 0.0 { 0.0 } else { spread };
    let variance = (spread / f64::from(degrees_of_freedom(&params.norm, count))) as f32;
    group.rstd = reciprocal_std(variance + params.norm.eps);
    group
}
