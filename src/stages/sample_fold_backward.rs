//! Mirror of `shaders/sample_fold_backward.wgsl`.

use super::sample_fold::segment;
use crate::params::TableParams;
use crate::tables::GradientPair;

/// Sums of every column over each segment of the batch.
pub fn sample_fold_backward(
    params: &TableParams,
    gradient_terms: &[GradientPair],
    gradient_parts: &mut [GradientPair],
) {
    let columns = params.table.columns as usize;
    // The table may be larger: a fold before this one may have had more columns.
    let gradient_parts = &mut gradient_parts[..params.dispatch.items as usize];
    for (index, parts) in gradient_parts.chunks_mut(columns).enumerate() {
        let mut sums = vec![[0.0; 2]; columns];
        for i in segment(params, index) {
            for ([bias, weight], entry) in sums.iter_mut().zip(&gradient_terms[i * columns..]) {
                *bias += f64::from(entry.bias);
                *weight += f64::from(entry.weight);
            }
        }
        for (part, [bias, weight]) in parts.iter_mut().zip(sums) {
            (part.bias, part.weight) = (bias as f32, weight as f32);
        }
    }
}
