//! Backward 4: dx from x and dy.

use super::declare::{
    AFFINE, AFFINE_BACKWARD, Element::Word, Family, Kernel, UniformDecl, read, read_optional,
    write, write_optional,
};
use super::space::fused_backward;
use super::text::shader;
use crate::params::RowParams;
use crate::stages::{self, Call, Element};

/// Its uniform.
pub(super) type Params = RowParams;

/// `shaders/row_affine_backward.wgsl`.
pub(super) const KERNEL: Kernel = Kernel {
    name: "row_affine_backward",
    text: shader!("../../shaders/row_affine_backward.wgsl"),
    params: UniformDecl::of::<Params>(),
    family: Family::RowMap,
    loops: 1,
    reduces: &[],
    bindings: &[
        read_optional("x", Word),
        read("grad_y", Word),
        read("coefficients_backward", AFFINE_BACKWARD),
        read_optional("coefficients", AFFINE),
        read_optional("residual", Word),
        write("grad_x", Word),
        write_optional("grad_residual", Word),
    ],
    accepts: fused_backward,
};

/// `src/stages/row_affine_backward.rs`.
pub(super) fn mirror<T: Element>(params: &Params, call: &mut Call<'_>) {
    let grad_x = call.tensor_mut::<T>("grad_x");
    let grad_residual = call.optional_tensor_mut("grad_residual");
    stages::row_affine_backward(
        params,
        call.width,
        call.accumulate,
        call.optional_tensor("x"),
        call.tensor("grad_y"),
        call.table("coefficients_backward"),
        call.recompute(),
        grad_x,
        grad_residual,
    );
}
