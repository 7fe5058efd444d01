//! Forward 4 with channels last.

use super::declare::{Family, Kernel};
use super::row_affine;
use super::text::shader;
use crate::stages::{self, Call, Element};

/// `shaders/column_affine.wgsl`.
pub(super) const KERNEL: Kernel = Kernel {
    name: "column_affine",
    text: shader!("../../shaders/column_affine.wgsl"),
    family: Family::ColumnMap,
    reduces: &[],
    // The planner plans either with the same buffers.
    bindings: row_affine::KERNEL.bindings,
};

/// `src/stages/column_affine.rs`.
pub(super) fn mirror<T: Element>(call: &mut Call<'_>) {
    let y = call.tensor_mut::<T>("y");
    stages::column_affine(
        call.params,
        call.width,
        call.aligned,
        call.activation,
        call.optional_tensor("x"),
        call.table("coefficients"),
        call.optional_tensor("residual"),
        y,
    );
}
