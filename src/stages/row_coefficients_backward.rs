//! Mirror of `shaders/row_coefficients_backward.wgsl`.

use super::precise::channel_of_row;
use super::precise::x_above_mean;
use crate::params::GroupParams;
use crate::tables::{AffineBackward, Channel, GradientPair, Moments};
use crate::tables::{Products, RowGradient};

/// The map of every row from (dy, x) to dx.
pub fn row_coefficients_backward(
    params: &GroupParams,
    rows: &[Moments],
    products: &[Products],
    channels: Option<&[Channel]>,
    row_gradients: &[RowGradient],
    channel_gradients: Option<&[GradientPair]>,
    coefficients_backward: &mut [AffineBackward],
) {
    for (item, out) in coefficients_backward.iter_mut().enumerate() {
        let c = channel_of_row(&params.shape, item);
        let (row, entry) = (&rows[item], &products[item]);
        let channel = channels.map_or(&Channel::UNCHANGED, |channels| &channels[c]);
        let gradient = &row_gradients[item];
        // Neither a group part (it has no groups then) nor a gradient through the statistics: dx is
        // scale dy, and a NaN in dy stays where it is.
        if params.shape.num_groups == 0 && channel_gradients.is_none() {
            *out = AffineBackward {
                x_pivot: row.pivot,
                grad_scale: channel.scale,
                ..AffineBackward::default()
            };
            continue;
        }
        let scale = channel.scale * gradient.scale;
        let grad_scale = scale * gradient.weight;
        let unit = AffineBackward::x_unit(grad_scale);
        let (mut x_scale, mut above) = (scale / unit * gradient.x_scale, gradient.mean);
        if let Some(means) = channel_gradients.map(|means| &means[c]) {
            x_scale -= channel.scale / unit * (means.weight * channel.rstd);
            above = (above - means.bias) - means.weight * channel.rstd * x_above_mean(row, channel);
        }
        *out = AffineBackward {
            x_pivot: row.pivot,
            x_scale,
            grad_pivot: entry.pivot,
            grad_scale,
            shift: channel.scale * above
                - (grad_scale * entry.offset + x_scale * (row.offset * unit)),
        };
    }
}
