//! Forward 4: y from x.

use super::declare::{
    AFFINE, Element::Word, Family, Kernel, UniformDecl, read, read_optional, write,
};
use super::text::shader;
use crate::params::RowParams;
use crate::stages::{self, Call, Element};

/// Its uniform.
pub(super) type Params = RowParams;

/// `shaders/row_affine.wgsl`.
pub(super) const KERNEL: Kernel = Kernel {
    name: "row_affine",
    text: shader!("../../shaders/row_affine.wgsl"),
    params: UniformDecl::of::<Params>(),
    family: Family::RowMap,
    loops: 1,
    reduces: &[],
    bindings: &[
        read_optional("x", Word),
        read("coefficients", AFFINE),
        read_optional("residual", Word),
        write("y", Word),
    ],
    accepts: |_| true,
};

/// `src/stages/row_affine.rs`.
pub(super) fn mirror<T: Element>(params: &Params, call: &mut Call<'_>) {
    let y = call.tensor_mut::<T>("y");
    stages::row_affine(
        params,
        call.width,
        call.activation,
        call.optional_tensor("x"),
        call.table("coefficients"),
        call.optional_tensor("residual"),
        y,
    );
}
