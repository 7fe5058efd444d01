//! Twin of `shaders/parts/precise.wgsl`. What the kernels do with split products, the mirror does in
//! f64 where it is one rounding, and with the products' exact f64 value.

use crate::tables::{Channel, Group, Moments};

/// 1 / sqrt(v) rounded once; 0 where v is exactly 0, NaN where it overflowed.
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
pub(super) fn reciprocal_std_rest(v: f32, r: f32) -> f32 {
    if v > 1e-25 && v < 1e25 {
        (1.0 / f64::from(v).sqrt() - f64::from(r)) as f32
    } else {
        0.0
    }
}

/// a b less its rounded value p: exact in f64.
pub(super) fn product_rest(a: f32, b: f32, p: f32) -> f32 {
    if p.abs() < 1e38 {
        (f64::from(a) * f64::from(b) - f64::from(p)) as f32
    } else {
        0.0
    }
}

/// Mean of x over a row, less the channel's mean.
pub(super) fn x_above_mean(row: &Moments, channel: &Channel) -> f32 {
    (row.pivot - channel.mean_pivot) + (row.offset - channel.mean_offset)
}

/// Mean of z over a row, less the channel's bias: rounded, and what the rounding left.
pub(super) fn row_shift(row: &Moments, channel: &Channel) -> (f32, f32) {
    let above = x_above_mean(row, channel);
    let shift = channel.scale * above;
    let low = product_rest(channel.scale, above, shift) + channel.scale_low * above;
    (shift, low)
}

/// Mean of z over a row, less the group's mean.
pub(super) fn above_group_mean(row: &Moments, channel: &Channel, group: &Group) -> f32 {
    let (shift, low) = row_shift(row, channel);
    ((channel.bias - group.mean_pivot) + (shift - group.mean_offset)) + (low - group.mean_rest)
}
