//! Twin of `shaders/parts/layout/elements.wgsl`: short rows, every element a row of its own.

use super::element::Element;
use super::precise::{above_group_mean, product_rest};
use crate::params::{ElementColumnParams, ElementParams, Norm, PER_CHANNEL};
use crate::tables::{Channel, Group, GroupGradient, Moments};

/// Where a sample's elements lie, for kernels that own groups and for those that own columns.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    /// Elements of a sample, and of each of its groups.
    pub sample_len: usize,
    pub group_len: usize,
    pub num_groups: usize,
    /// Elements of a channel.
    channel_len: usize,
}

impl Shape {
    /// Of kernels that own groups; `width` is the step's.
    pub fn of_groups(params: &ElementParams, width: u32) -> Self {
        let group_len = (params.groups.words_per_group * width) as usize;
        let num_groups = params.groups.num_groups as usize;
        Self {
            sample_len: num_groups * group_len,
            group_len,
            num_groups,
            channel_len: params.groups.channel_len as usize,
        }
    }

    /// Of kernels that own columns, which are a sample's elements.
    pub fn of_columns(params: &ElementColumnParams) -> Self {
        let (sample_len, num_groups) = (
            (params.groups.num_channels * params.groups.channel_len) as usize,
            params.groups.num_groups as usize,
        );
        Self {
            sample_len,
            group_len: sample_len / num_groups,
            num_groups,
            channel_len: params.groups.channel_len as usize,
        }
    }

    pub fn channel(self, element: usize) -> usize {
        element / self.channel_len
    }

    pub fn num_channels(self) -> usize {
        self.sample_len / self.channel_len
    }
}

/// An element as a row.
pub(crate) fn row_of<T: Element>(x: T) -> Moments {
    Moments {
        count: 1,
        pivot: x.to_f32(),
        ..Moments::default()
    }
}

/// dy, times the group part's weight where that is per channel, as pivot + offset.
pub(crate) fn gradient_of(norm: &Norm, grad_y: f32, channel: &Channel) -> (f32, f32) {
    if norm.flags & PER_CHANNEL == 0 {
        return (grad_y, 0.0);
    }
    let pivot = channel.weight * grad_y;
    (pivot, product_rest(channel.weight, grad_y, pivot))
}

/// The same less the group's mean.
pub(crate) fn gradient_above(gradient: (f32, f32), pivot: f32, offset: f32) -> f32 {
    (gradient.0 - pivot) + (gradient.1 - offset)
}

/// z of an element less its group's mean.
pub(crate) fn above_mean<T: Element>(
    has_channel_part: bool,
    x: T,
    channel: &Channel,
    group: &GroupGradient,
) -> f32 {
    let group = Group {
        mean_pivot: group.mean_pivot,
        mean_offset: group.mean_offset,
        mean_rest: group.mean_rest,
        ..Group::default()
    };
    above_group_mean(has_channel_part, &row_of(x), channel, &group)
}

/// dz: what the group part makes of dy.
pub(crate) fn group_gradient_of(gradient: (f32, f32), above: f32, group: &GroupGradient) -> f32 {
    let grad_above = gradient_above(gradient, group.grad_pivot, group.grad_offset);
    let rest = grad_above - group.projection * above;
    group.scale * (rest - (group.shift + group.rest * above))
}
