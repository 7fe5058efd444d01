//! Mirrors of `shaders/sample_fold.wgsl` and `shaders/sample_fold_backward.wgsl`.

use super::moments::merge_moments;
use crate::params::Params;
use crate::tables::{GradientPair, Moments};

/// Moments of every channel over each segment of the batch.
pub fn sample_fold(params: &Params, rows: &[Moments], channel_parts: &mut [Moments]) {
    let (columns, size) = (params.columns as usize, params.entries_per_segment as usize);
    let segments = rows.chunks(columns * size);
    for (parts, segment) in channel_parts.chunks_mut(columns).zip(segments) {
        parts.fill(Moments::default());
        for entries in segment.chunks(columns) {
            for (part, &entry) in parts.iter_mut().zip(entries) {
                *part = merge_moments(*part, entry);
            }
        }
    }
}

/// Sums of every column over each segment of the batch.
pub fn sample_fold_backward(
    params: &Params,
    gradient_terms: &[GradientPair],
    gradient_parts: &mut [GradientPair],
) {
    let (columns, size) = (params.columns as usize, params.entries_per_segment as usize);
    let segments = gradient_terms.chunks(columns * size);
    for (parts, segment) in gradient_parts.chunks_mut(columns).zip(segments) {
        parts.fill(GradientPair::default());
        for entries in segment.chunks(columns) {
            for (part, entry) in parts.iter_mut().zip(entries) {
                part.bias += entry.bias;
                part.weight += entry.weight;
            }
        }
    }
}
