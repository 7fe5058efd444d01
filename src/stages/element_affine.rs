//! Mirror of `shaders/element_affine.wgsl`.

use super::activation::activate;
use super::channel_table::ChannelTable;
use super::element::Element;
use super::elements::{Shape, row_of};
use super::precise::{above_group_mean, degrees_of_freedom, reciprocal_std, row_mean};
use crate::desc::Activation;
use crate::params::{ElementParams, PER_CHANNEL};
use crate::tables::{Channel, Group};

/// y = activation(norm(x) + residual), group by group. Without x, it is in y. `width` is the step's.
#[expect(
    clippy::too_many_arguments,
    reason = "one for each binding of the kernel"
)]
pub fn element_affine<T: Element>(
    params: &ElementParams,
    width: u32,
    activation: Activation,
    x: Option<&[T]>,
    channels: Option<&[Channel]>,
    weight: Option<&[f32]>,
    bias: Option<&[f32]>,
    residual: Option<&[T]>,
    mut groups: Option<&mut [Group]>,
    y: &mut [T],
) {
    let inputs = ElementAffine {
        params,
        shape: Shape::of_groups(params, width),
        activation,
        x,
        channels: ChannelTable::new(
            params.norm.flags,
            params.groups.num_channels,
            channels,
            weight,
        ),
        weight,
        bias,
        residual,
    };
    let items = y.chunks_mut(inputs.shape.group_len);
    for (item, y) in items.enumerate() {
        let group = inputs.map_group(item, y);
        if let Some(groups) = &mut groups {
            groups[item] = group;
        }
    }
}

/// What the kernel reads.
pub(crate) struct ElementAffine<'a, T> {
    pub params: &'a ElementParams,
    pub shape: Shape,
    pub activation: Activation,
    pub x: Option<&'a [T]>,
    pub channels: ChannelTable<'a>,
    pub weight: Option<&'a [f32]>,
    pub bias: Option<&'a [f32]>,
    pub residual: Option<&'a [T]>,
}

impl<T: Element> ElementAffine<'_, T> {
    /// Writes y of a (sample, group), and returns its statistics.
    pub fn map_group(&self, item: usize, y: &mut [T]) -> Group {
        let shape = &self.shape;
        let (g, begin) = (item % shape.num_groups, item * shape.group_len);
        let size = shape.num_channels() / shape.num_groups;
        let channel_len = shape.group_len / size;
        let has_channel_part = self.channels.has_channel_part;
        let channels = &self.channels.entries[g * size..][..size];
        let per_channel = self.params.norm.flags & PER_CHANNEL != 0;
        let x = self.x.map(|x| &x[begin..][..shape.group_len]);
        let mut group = statistics(
            self.params,
            has_channel_part,
            channel_len,
            x.unwrap_or(&*y),
            channels,
        );
        if let (Some(weight), false) = (self.weight, per_channel) {
            group.weight = weight[g];
        }
        for (i, y) in y.iter_mut().enumerate() {
            let c = i / channel_len;
            let x = x.map_or(*y, |x| x[i]);
            let above = above_group_mean(has_channel_part, &row_of(x), &channels[c], &group);
            let affine = if per_channel { g * size + c } else { g };
            // One of the two weights is 1.
            let scale = (group.weight * channels[c].weight) * group.rstd;
            let mut t = scale * above + self.bias.map_or(0.0, |bias| bias[affine]);
            if let Some(residual) = self.residual {
                t += residual[begin + i].to_f32();
            }
            *y = T::from_f32(activate(t, self.activation));
        }
        group
    }
}

/// A group's statistics: sums about its first element, then about the mean that these make. The latter's squares less what
/// is left of the mean are the spread.
fn statistics<T: Element>(
    params: &ElementParams,
    has_channel_part: bool,
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
    let z_first = row_mean(has_channel_part, &row_of(x[0]), &channels[0]);
    let (mut pivots, mut offsets) = (0.0, 0.0);
    for (row, channel) in elements() {
        let z = row_mean(has_channel_part, &row, channel);
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
        let above = above_group_mean(has_channel_part, &row, channel, &group);
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
