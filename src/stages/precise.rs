//! Twin of `shaders/parts/arithmetic/precise.wgsl`. What the kernels do with split products, the mirror does in
//! f64 where it is one rounding, and with the products' exact f64 value.

use crate::params::{Norm, Shape, UNBIASED};
use crate::tables::{Channel, Group, Moments};

/// 1 / sqrt(v) rounded once; 0 where v is exactly 0, NaN where it overflowed.
#[inline(always)]
pub(super) fn reciprocal_std(v: f32) -> f32 {
    if v == 0.0 {
        0.0
    } else if v > 3.4e38 {
        f32::NAN
    } else {
        (1.0 / f64::from(v).sqrt()) as f32
    }
}

/// What 1 / sqrt(v) has more than r.
#[inline(always)]
pub(super) fn reciprocal_std_rest(v: f32, r: f32) -> f32 {
    if v > 1e-25 && v < 3e38 {
        (1.0 / f64::from(v).sqrt() - f64::from(r)) as f32
    } else {
        0.0
    }
}

/// a b less its rounded value p: exact in f64.
#[inline(always)]
pub(super) fn product_rest(a: f32, b: f32, p: f32) -> f32 {
    if p.abs() < 1e38 {
        (f64::from(a) * f64::from(b) - f64::from(p)) as f32
    } else {
        0.0
    }
}

/// The channel of a row of the tables.
pub(super) fn channel_of_row(shape: &Shape, row: usize) -> usize {
    row / shape.rows_together as usize % shape.num_channels as usize
}

/// Mean of x over a row, less the channel's mean.
#[inline(always)]
pub(super) fn x_above_mean(row: &Moments, channel: &Channel) -> f32 {
    (row.pivot - channel.mean_pivot) + (row.offset - channel.mean_offset)
}

/// Mean of z, what the group part normalizes, over a row: pivot + offset + what rounding left of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowMean {
    pub pivot: f32,
    pub offset: f32,
    pub rest: f32,
}

impl RowMean {
    /// Less the group's mean.
    #[inline(always)]
    pub fn above(&self, group: &Group) -> f32 {
        let high = (self.pivot - group.mean_pivot) + (self.offset - group.mean_offset);
        high + (self.rest - group.mean_rest)
    }
}

/// Without a channel part z is x, and the row's own pair is its mean. With one, the channel's bias is
/// the pivot, so that a large bias costs nothing.
#[inline(always)]
pub(super) fn row_mean(has_channel_part: bool, row: &Moments, channel: &Channel) -> RowMean {
    if !has_channel_part {
        return RowMean {
            pivot: row.pivot,
            offset: row.offset,
            rest: 0.0,
        };
    }
    let above = x_above_mean(row, channel);
    let shift = channel.scale * above;
    RowMean {
        pivot: channel.bias,
        offset: shift,
        rest: product_rest(channel.scale, above, shift) + channel.scale_low * above,
    }
}

/// Mean of z over a row, less the group's mean.
#[inline(always)]
pub(super) fn above_group_mean(
    has_channel_part: bool,
    row: &Moments,
    channel: &Channel,
    group: &Group,
) -> f32 {
    row_mean(has_channel_part, row, channel).above(group)
}

/// What the spread of `count` values is divided by to make the group part's variance.
#[inline(always)]
pub(super) fn degrees_of_freedom(norm: &Norm, count: f32) -> f32 {
    if norm.flags & UNBIASED != 0 {
        count - 1.0
    } else {
        count
    }
}

/// a / b; 0 where b is 0.
pub(super) fn ratio(a: f64, b: f64) -> f32 {
    if b == 0.0 { 0.0 } else { (a / b) as f32 }
}
