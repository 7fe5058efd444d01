//! Mirror of `shaders/row_coefficients.wgsl`.

use super::precise::channel_of_row;
use crate::params::GroupParams;
use crate::tables::{Affine, Channel, Moments};

/// The affine map of every row: its channel's. Where forward did not read x for moments, backward takes
/// its products about the mean in force, which goes into `rows`.
pub fn row_coefficients(
    params: &GroupParams,
    channels: &[Channel],
    mut rows: Option<&mut [Moments]>,
    coefficients: &mut [Affine],
) {
    for (item, out) in coefficients.iter_mut().enumerate() {
        let channel = &channels[channel_of_row(&params.shape, item)];
        if let Some(rows) = &mut rows {
            rows[item] = Moments {
                count: params.shape.row_len,
                pivot: channel.mean_pivot,
                offset: channel.mean_offset,
                variance: 0.0,
            };
        }
        *out = Affine {
            pivot: channel.mean_pivot,
            offset: channel.mean_offset,
            scale: channel.scale,
            shift: channel.bias,
        };
    }
}
