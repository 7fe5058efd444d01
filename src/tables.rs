//! The small tables between the stages: Rust twins of the structs in `shaders/parts/tables.wgsl`.
//! A test compares the two field by field (`tests/suite/reflection`).

use bytemuck::{Pod, Zeroable};

/// Count, mean and spread of some values. The mean is `pivot + offset`, kept as a pair: the pivot
/// is one of the values (exact), so that `(x - pivot) - offset` loses nothing to a large mean.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Pod, Zeroable)]
pub struct Moments {
    /// How many values.
    pub count: u32,
    /// One of the values.
    pub pivot: f32,
    /// Mean minus pivot.
    pub offset: f32,
    /// Mean of the squared differences from the mean: no sum, which would leave f32's range as sets grow.
    pub variance: f32,
}

/// Statistics in force of one channel: the batch's, the running ones, or the estimated ones.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Pod, Zeroable)]
pub struct Channel {
    /// Mean = pivot + offset.
    pub mean_pivot: f32,
    /// See `mean_pivot`.
    pub mean_offset: f32,
    /// 1 / sqrt(variance + channel eps).
    pub rstd: f32,
    /// The channel part's weight * rstd = scale + scale_low.
    pub scale: f32,
    /// What the rounding of `scale` left.
    pub scale_low: f32,
    /// The channel part's bias.
    pub bias: f32,
    /// The group part's weight, where it is per channel, as forward used it; else 1.
    pub weight: f32,
    /// Values behind the statistics, where the batch's are in force: over all devices, where there are
    /// several; else 0.
    pub count: u32,
}

impl Channel {
    /// A channel without a channel part: z = 1 (x - 0) + 0.
    pub const UNCHANGED: Channel = Channel {
        mean_pivot: 0.0,
        mean_offset: 0.0,
        rstd: 1.0,
        scale: 1.0,
        scale_low: 0.0,
        bias: 0.0,
        weight: 1.0,
        count: 0,
    };
}

/// Statistics of one (sample, group) of the channel part's output.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Pod, Zeroable)]
pub struct Group {
    /// Mean = pivot + offset + rest. A group may be far narrower than its mean is large, and then
    /// the rounding of the offset shows: the rest makes up for it.
    pub mean_pivot: f32,
    /// See `mean_pivot`.
    pub mean_offset: f32,
    /// See `mean_pivot`.
    pub mean_rest: f32,
    /// 1 / sqrt(variance + eps).
    pub rstd: f32,
    /// `weight` of the group, where it is per group, as forward used it; else 1.
    pub weight: f32,
}

/// The map of one row: y = ((x - pivot) - offset) * scale + shift.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Pod, Zeroable)]
pub struct Affine {
    /// See the formula.
    pub pivot: f32,
    /// See the formula.
    pub offset: f32,
    /// See the formula.
    pub scale: f32,
    /// See the formula.
    pub shift: f32,
}

/// What backward needs of a row, or of a part of one: the mean of dy, and its covariance with
/// u = x - row mean, about both means. The row's own mean of u is 0 but for rounding, of which the
/// covariance is thus free.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Pod, Zeroable)]
pub struct Products {
    /// How many elements.
    pub count: u32,
    /// One of the dy; their mean = pivot + offset.
    pub pivot: f32,
    /// See `pivot`.
    pub offset: f32,
    /// Mean of u.
    pub x_mean: f32,
    /// Mean of (dy - mean of dy) (u - mean of u).
    pub covariance: f32,
}

/// Two sums that travel together: the bias's gradient first, the weight's second.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Pod, Zeroable)]
pub struct GradientPair {
    /// Term of the bias's gradient.
    pub bias: f32,
    /// Term of the weight's gradient.
    pub weight: f32,
}

/// What the group part makes of dy in one (sample, group), for short rows: the gradient of an element is
/// dz = scale ((g - projection a) - (shift + rest a)), a being z and g dy (times the group part's weight,
/// where that is per channel), both less their means over the group.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Pod, Zeroable)]
pub struct GroupGradient {
    /// The forward's: see [`Group`].
    pub mean_pivot: f32,
    /// The forward's.
    pub mean_offset: f32,
    /// The forward's.
    pub mean_rest: f32,
    /// The forward's.
    pub rstd: f32,
    /// Mean of dy = pivot + offset.
    pub grad_pivot: f32,
    /// See `grad_pivot`.
    pub grad_offset: f32,
    /// What rounding left of that mean.
    pub shift: f32,
    /// z's multiple in dy.
    pub projection: f32,
    /// What rounding left of that multiple, less the share of it that eps keeps.
    pub rest: f32,
    /// rstd times the weight of the group.
    pub scale: f32,
    /// 0: shaders read and write four numbers at a time.
    pub unused: f32,
    /// 0.
    pub unused_too: f32,
}

/// What the group part makes of dy in one row: its gradient
/// dz = scale * ((dy - row mean of dy) * weight + (x - row mean) * x_scale) + mean, the last being the row's mean of
/// dz. Without a group part, dz is dy.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Pod, Zeroable)]
pub struct RowGradient {
    /// rstd times the weight of the group.
    pub scale: f32,
    /// The group part's weight, where it is per channel; else 1.
    pub weight: f32,
    /// See the formula.
    pub x_scale: f32,
    /// See the formula.
    pub mean: f32,
}

/// The map of one row backward:
/// dx = (dy - grad_pivot) * grad_scale + ((x - x_pivot) * unit) * x_scale + shift. The offsets of both means are
/// in the shift: they are at most as large as the differences, so that their rounding is no larger. The unit is
/// [`x_unit`](Self::x_unit), for x_scale alone could be below f32's least number.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Pod, Zeroable)]
pub struct AffineBackward {
    /// See the formula.
    pub x_pivot: f32,
    /// See the formula.
    pub x_scale: f32,
    /// See the formula.
    pub grad_pivot: f32,
    /// See the formula.
    pub grad_scale: f32,
    /// See the formula.
    pub shift: f32,
}

impl AffineBackward {
    /// The power of two next to `grad_scale`, towards 0; 1 where that is 0.
    #[inline(always)]
    pub fn x_unit(grad_scale: f32) -> f32 {
        let exponent = grad_scale.to_bits() >> 23 & 0xff;
        let exponent = if exponent == 0 {
            127
        } else {
            exponent.min(253)
        };
        f32::from_bits(exponent << 23)
    }
}
