//! Backward 2 without a group part: terms of the parameter gradients.

use super::declare::{
    CHANNEL, Family, Kernel, MOMENTS, PAIR, PRODUCTS, ROW_GRADIENT, UniformDecl, read, write,
    write_optional,
};
use super::text::shader;
use crate::params::TermParams;
use crate::stages::{self, Call};

/// Its uniform.
pub(super) type Params = TermParams;

/// `shaders/row_terms_backward.wgsl`.
pub(super) const KERNEL: Kernel = Kernel {
    name: "row_terms_backward",
    text: shader!("../../shaders/row_terms_backward.wgsl"),
    params: UniformDecl::of::<Params>(),
    family: Family::Table,
    loops: 1,
    reduces: &[],
    bindings: &[
        read("rows", MOMENTS),
        read("products", PRODUCTS),
        read("channels", CHANNEL),
        write_optional("gradient_terms", PAIR),
        write("row_gradients", ROW_GRADIENT),
    ],
    accepts: |_| true,
};

/// `src/stages/row_terms_backward.rs`.
pub(super) fn mirror(params: &Params, call: &mut Call<'_>) {
    let terms = call.optional_table_mut("gradient_terms");
    let row_gradients = call.table_mut("row_gradients");
    stages::row_terms_backward(
        params,
        call.table("rows"),
        call.table("products"),
        call.table("channels"),
        terms,
        row_gradients,
    );
}
