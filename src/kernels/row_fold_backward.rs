//! Backward 1b: products of the parts of a row -> of the row.

use super::declare::{Family, Kernel, PRODUCTS, Reduced, read, write};
use super::text::shader;
use crate::stages::{self, Call};

/// `shaders/row_fold_backward.wgsl`.
pub(super) const KERNEL: Kernel = Kernel {
    name: "row_fold_backward",
    text: shader!("../../shaders/row_fold_backward.wgsl"),
    family: Family::Fold,
    reduces: &[Reduced::Products, Reduced::Pair],
    bindings: &[read("product_parts", PRODUCTS), write("products", PRODUCTS)],
};

/// `src/stages/row_fold_backward.rs`.
pub(super) fn mirror(call: &mut Call<'_>) {
    let products = call.table_mut("products");
    stages::row_fold_backward(call.params, call.table("product_parts"), products);
}
