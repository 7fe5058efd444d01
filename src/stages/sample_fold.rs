//! Mirror of `shaders/sample_fold.wgsl`.

use super::moments::merge_all;
use crate::params::TableParams;
use crate::tables::Moments;

/// Entries of a segment. There may be none at all: the only segment is empty then.
pub(super) fn segment(params: &TableParams, index: usize) -> std::ops::Range<usize> {
    let entries = params.table.entries as usize;
    let size = params.table.entries_per_segment as usize;
    (index * size).min(entries)..(index * size + size).min(entries)
}

/// Moments of every channel over each segment of the batch.
pub fn sample_fold(params: &TableParams, rows: &[Moments], channel_parts: &mut [Moments]) {
    let columns = params.table.columns as usize;
    for (index, parts) in channel_parts.chunks_mut(columns).enumerate() {
        for (column, part) in parts.iter_mut().enumerate() {
            *part = merge_all(segment(params, index).map(|i| rows[i * columns + column]));
        }
    }
}
