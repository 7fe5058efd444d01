//! Forward 1 with channels last.

use super::declare::{Family, Kernel, Reduced, UniformDecl};
use super::row_moments;
use super::text::shader;
use crate::params::ColumnParams;
use crate::stages::{self, Call, Element};

/// Its uniform.
pub(super) type Params = ColumnParams;

/// `shaders/column_moments.wgsl`.
pub(super) const KERNEL: Kernel = Kernel {
    name: "column_moments",
    text: shader!("../../shaders/column_moments.wgsl"),
    params: UniformDecl::of::<Params>(),
    family: Family::ColumnReduce,
    loops: 1,
    reduces: &[Reduced::ColumnMoments],
    // The planner plans either with the same buffers.
    bindings: row_moments::KERNEL.bindings,
    accepts: |_| true,
};

/// `src/stages/column_moments.rs`.
pub(super) fn mirror<T: Element>(params: &Params, call: &mut Call<'_>) {
    let parts = call.table_mut("row_parts");
    stages::column_moments(params, call.width, call.tensor::<T>("x"), parts);
}
