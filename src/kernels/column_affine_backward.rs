//! Backward 4 with channels last.

use super::declare::{Family, Kernel, UniformDecl};
use super::row_affine_backward;
use super::space::fused_backward;
use super::text::shader;
use crate::params::ColumnParams;
use crate::stages::{self, Call, Element};

/// Its uniform.
pub(super) type Params = ColumnParams;

/// `shaders/column_affine_backward.wgsl`.
pub(super) const KERNEL: Kernel = Kernel {
    name: "column_affine_backward",
    text: shader!("../../shaders/column_affine_backward.wgsl"),
    params: UniformDecl::of::<Params>(),
    family: Family::ColumnMap,
    loops: 1,
    reduces: &[],
    // The planner plans either with the same buffers.
    bindings: row_affine_backward::KERNEL.bindings,
    accepts: fused_backward,
};

/// `src/stages/column_affine_backward.rs`.
pub(super) fn mirror<T: Element>(params: &Params, call: &mut Call<'_>) {
    let grad_x = call.tensor_mut::<T>("grad_x");
    let grad_residual = call.optional_tensor_mut("grad_residual");
    stages::column_affine_backward(
        params,
        call.width,
        call.aligned,
        call.accumulate,
        call.optional_tensor("x"),
        call.tensor("grad_y"),
        call.table("coefficients_backward"),
        call.recompute(),
        grad_x,
        grad_residual,
    );
}
