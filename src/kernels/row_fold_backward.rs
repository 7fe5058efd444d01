//! Backward 1b: products of the parts of a row -> of the row.

use super::declare::{Family, Kernel, PRODUCTS, Reduced, UniformDecl, read, write};
use super::text::shader;
use crate::params::PartParams;
use crate::stages::{self, Call};

/// Its uniform.
pub(super) type Params = PartParams;

/// `shaders/row_fold_backward.wgsl`.
pub(super) const KERNEL: Kernel = Kernel {
    name: "row_fold_backward",
    text: shader!("../../shaders/row_fold_backward.wgsl"),
    params: UniformDecl::of::<Params>(),
    family: Family::Fold,
    loops: 2,
    reduces: &[Reduced::Products, Reduced::Pair],
    bindings: &[read("product_parts", PRODUCTS), write("products", PRODUCTS)],
    accepts: |_| true,
};

/// `src/stages/row_fold_backward.rs`.
pub(super) fn mirror(params: &Params, call: &mut Call<'_>) {
    let products = call.table_mut("products");
    stages::row_fold_backward(params, call.table("product_parts"), products);
}
