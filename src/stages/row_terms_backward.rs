//! Mirror of `shaders/row_terms_backward.wgsl`.

use super::precise::{channel_of_row, x_above_mean};
use crate::params::TermParams;
use crate::tables::{Channel, GradientPair, Moments, Products, RowGradient};

/// dz is dy; terms of the gradients of the channel part's bias and weight, per row.
pub fn row_terms_backward(
    params: &TermParams,
    rows: &[Moments],
    products: &[Products],
    channels: &[Channel],
    mut gradient_terms: Option<&mut [GradientPair]>,
    row_gradients: &mut [RowGradient],
) {
    let len = params.shape.row_len as f32;
    for (item, out) in row_gradients.iter_mut().enumerate() {
        let entry = &products[item];
        *out = RowGradient {
            scale: 1.0,
            weight: 1.0,
            x_scale: 0.0,
            mean: entry.pivot + entry.offset,
        };
        if let Some(terms) = &mut gradient_terms {
            let c = channel_of_row(&params.shape, item);
            let channel = &channels[c];
            // x-hat sums to 0 over the batch that made the statistics. If it is this one, dy may be
            // taken less any value of the channel's for the product with x-hat, so that a large mean
            // of dy cancels nowhere.
            let together = params.shape.rows_together as usize;
            let own = params.table.entries.wrapping_mul(params.shape.row_len);
            let origin = if channel.count != 0 && channel.count == own {
                products[c * together].pivot
            } else {
                0.0
            };
            // The table's row mean may be the mean in force: x_mean is what the row's own has more.
            let above = x_above_mean(&rows[item], channel) + entry.x_mean;
            let sum = len * ((entry.pivot - origin) + entry.offset);
            // Rows of one channel that lie together are entries of its column.
            let (entry_of_channel, column) = (item % together, item / together);
            terms[entry_of_channel * params.shape.num_channels as usize + column] = GradientPair {
                bias: len * entry.pivot + len * entry.offset,
                weight: channel.rstd * (len * entry.covariance + above * sum),
            };
        }
    }
}
