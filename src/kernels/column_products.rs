//! Backward 1 with channels last.

use super::declare::{Family, Kernel, Reduced};
use super::row_products;
use super::text::shader;
use crate::stages::{self, Call, Element};

/// `shaders/column_products.wgsl`.
pub(super) const KERNEL: Kernel = Kernel {
    name: "column_products",
    text: shader!("../../shaders/column_products.wgsl"),
    family: Family::ColumnReduce,
    reduces: &[Reduced::ColumnProducts],
    // The planner plans either with the same buffers.
    bindings: row_products::KERNEL.bindings,
};

/// `src/stages/column_products.rs`.
pub(super) fn mirror<T: Element>(call: &mut Call<'_>) {
    let parts = call.table_mut("product_parts");
    stages::column_products(
        call.params,
        call.width,
        call.tensor::<T>("x"),
        call.tensor("grad_y"),
        call.table("rows"),
        call.recompute(),
        parts,
    );
}
