//! Backward 1: x, dy -> mean of dy and its product with x, of every row (or part).

use super::declare::{
    AFFINE, Element::Word, Family, Kernel, MOMENTS, PRODUCTS, Reduced, UniformDecl, read,
    read_optional, write,
};
use super::space::fused_backward;
use super::text::shader;
use crate::params::RowParams;
use crate::stages::{self, Call, Element};

/// Its uniform.
pub(super) type Params = RowParams;

/// `shaders/row_products.wgsl`.
pub(super) const KERNEL: Kernel = Kernel {
    name: "row_products",
    text: shader!("../../shaders/row_products.wgsl"),
    params: UniformDecl::of::<Params>(),
    family: Family::RowReduce,
    loops: 1,
    reduces: &[Reduced::Products],
    bindings: &[
        read("x", Word),
        read("grad_y", Word),
        read("rows", MOMENTS),
        read_optional("coefficients", AFFINE),
        read_optional("residual", Word),
        write("product_parts", PRODUCTS),
    ],
    accepts: fused_backward,
};

/// `src/stages/row_products.rs`.
pub(super) fn mirror<T: Element>(params: &Params, call: &mut Call<'_>) {
    let parts = call.table_mut("product_parts");
    stages::row_products(
        params,
        call.width,
        call.tensor::<T>("x"),
        call.tensor("grad_y"),
        call.table("rows"),
        call.recompute(),
        parts,
    );
}
