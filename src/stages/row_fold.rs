//! Mirror of `shaders/row_fold.wgsl`.

use super::moments::merge_all;
use crate::params::PartParams;
use crate::tables::Moments;

/// Moments of every row from those of its parts.
pub fn row_fold(params: &PartParams, row_parts: &[Moments], rows: &mut [Moments]) {
    for (row, parts) in rows
        .iter_mut()
        .zip(row_parts.chunks(params.parts.parts as usize))
    {
        *row = merge_all(parts.iter().copied());
    }
}
