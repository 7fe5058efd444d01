//! Backward 1: x, dy -> mean of dy and its product with x, of every row (or part).

use super::declare::{
    AFFINE, Element::Word, Family, Kernel, MOMENTS, PRODUCTS, Reduced, read, read_optional, write,
};
use super::text::shader;
use crate::stages::{self, Call, Element};

/// `shaders/row_products.wgsl`.
pub(super) const KERNEL: Kernel = Kernel {
    name: "row_products",
    text: shader!("../../shaders/row_products.wgsl"),
    family: Family::RowReduce,
    reduces: &[Reduced::Products],
    bindings: &[
        read("x", Word),
        read("grad_y", Word),
        read("rows", MOMENTS),
        read_optional("coefficients", AFFINE),
        read_optional("residual", Word),
        write("product_parts", PRODUCTS),
    ],
};

/// `src/stages/row_products.rs`.
pub(super) fn mirror<T: Element>(call: &mut Call<'_>) {
    let parts = call.table_mut("product_parts");
    stages::row_products(
        call.params,
        call.width,
        call.tensor::<T>("x"),
        call.tensor("grad_y"),
        call.table("rows"),
        call.recompute(),
        parts,
    );
}
