//! Backward 1 with channels last.

use super::declare::{Family, Kernel, Reduced, UniformDecl};
use super::row_products;
use super::space::fused_backward;
use super::text::shader;
use crate::params::ColumnParams;
use crate::stages::{self, Call, Element};

/// Its uniform.
pub(super) type Params = ColumnParams;

/// `shaders/column_products.wgsl`.
pub(super) const KERNEL: Kernel = Kernel {
    name: "column_products",
    text: shader!("../../shaders/column_products.wgsl"),
    params: UniformDecl::of::<Params>(),
    family: Family::ColumnReduce,
    loops: 1,
    reduces: &[Reduced::ColumnProducts],
    // The planner plans either with the same buffers.
    bindings: row_products::KERNEL.bindings,
    accepts: fused_backward,
};

/// `src/stages/column_products.rs`.
pub(super) fn mirror<T: Element>(params: &Params, call: &mut Call<'_>) {
    let parts = call.table_mut("product_parts");
    stages::column_products(
        params,
        call.width,
        call.tensor::<T>("x"),
        call.tensor("grad_y"),
        call.table("rows"),
        call.recompute(),
        parts,
    );
}
