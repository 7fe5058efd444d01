//! Forward 4 with channels last.

use super::declare::{Family, Kernel, UniformDecl};
use super::row_affine;
use super::text::shader;
use crate::params::ColumnParams;
use crate::stages::{self, Call, Element};

/// Its uniform.
pub(super) type Params = ColumnParams;

/// `shaders/column_affine.wgsl`.
pub(super) const KERNEL: Kernel = Kernel {
    name: "column_affine",
    text: shader!("../../shaders/column_affine.wgsl"),
    params: UniformDecl::of::<Params>(),
    family: Family::ColumnMap,
    loops: 1,
    reduces: &[],
    // The planner plans either with the same buffers.
    bindings: row_affine::KERNEL.bindings,
    accepts: |_| true,
};

/// `src/stages/column_affine.rs`.
pub(super) fn mirror<T: Element>(params: &Params, call: &mut Call<'_>) {
    let y = call.tensor_mut::<T>("y");
    stages::column_affine(
        params,
        call.width,
        call.aligned,
        call.activation,
        call.optional_tensor("x"),
        call.table("coefficients"),
        call.optional_tensor("residual"),
        y,
    );
}
