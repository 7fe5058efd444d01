//! Backward 1 with channels last.

use super::declare::{
    AFFINE, Element::Word, Family, Kernel, MOMENTS, PRODUCTS, Reduced, read, read_optional, write,
};
use super::text::shader;
use crate::stages::{self, Call, Element};

/// `shaders/column_products.wgsl`.
pub(super) const KERNEL: Kernel = Kernel {
    name: "column_products",
    text: shader!("../../shaders/column_products.wgsl"),
    family: Family::ColumnReduce,
    reduces: &[Reduced::ColumnProducts],
    bindings: &[
        read("x", Word),
        read("grad_y", Word),
        read("rows", MOMENTS),
        read_optional("coefficients", AFFINE),
        read_optional("residual", Word),
        write("product_parts", PRODUCTS),
    ],
};

/// `src/stages/column_products.rs`.
pub(super) fn mirror<T: Element>(call: &mut Call<'_>) {
    let parts = call.table_mut("product_parts");
    stages::column_products(
        call.threads,
        call.params,
        call.width,
        call.tensor::<T>("x"),
        call.tensor("grad_y"),
        call.table("rows"),
        call.recompute(),
        parts,
    );
}
