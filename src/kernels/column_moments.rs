//! Forward 1 with channels last.

use super::declare::{Family, Kernel, Reduced};
use super::row_moments;
use super::text::shader;
use crate::stages::{self, Call, Element};

/// `shaders/column_moments.wgsl`.
pub(super) const KERNEL: Kernel = Kernel {
    name: "column_moments",
    text: shader!("../../shaders/column_moments.wgsl"),
    family: Family::ColumnReduce,
    reduces: &[Reduced::ColumnMoments],
    // The planner plans either with the same buffers.
    bindings: row_moments::KERNEL.bindings,
};

/// `src/stages/column_moments.rs`.
pub(super) fn mirror<T: Element>(call: &mut Call<'_>) {
    let parts = call.table_mut("row_parts");
    stages::column_moments(call.params, call.width, call.tensor::<T>("x"), parts);
}
