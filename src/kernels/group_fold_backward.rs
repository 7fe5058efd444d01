//! Backward 2: what the group part makes of dy, and the terms of all parameter gradients.

use super::declare::{
    CHANNEL, Element::F32, Family, GROUP, Kernel, MOMENTS, PAIR, PRODUCTS, ROW_GRADIENT, Reduced,
    UniformDecl, read, read_optional, write, write_optional,
};
use super::text::shader;
use crate::params::TermParams;
use crate::stages::{self, Call};

/// Its uniform.
pub(super) type Params = TermParams;

/// `shaders/group_fold_backward.wgsl`.
pub(super) const KERNEL: Kernel = Kernel {
    name: "group_fold_backward",
    text: shader!("../../shaders/group_fold_backward.wgsl"),
    params: UniformDecl::of::<Params>(),
    family: Family::Fold,
    loops: 4,
    reduces: &[Reduced::Moments, Reduced::Pair],
    bindings: &[
        read_optional("channels", CHANNEL),
        read_optional("weight", F32),
        read("rows", MOMENTS),
        read("products", PRODUCTS),
        read("groups", GROUP),
        write_optional("gradient_terms", PAIR),
        write("row_gradients", ROW_GRADIENT),
    ],
    // The table of channels has the weight.
    accepts: |spec| !(spec.has("channels") && spec.has("weight")),
};

/// `src/stages/group_fold_backward.rs`.
pub(super) fn mirror(params: &Params, call: &mut Call<'_>) {
    let terms = call.optional_table_mut("gradient_terms");
    let row_gradients = call.table_mut("row_gradients");
    stages::group_fold_backward(
        params,
        call.table("rows"),
        call.table("products"),
        call.optional_table("channels"),
        call.optional_table("weight"),
        call.table("groups"),
        terms,
        row_gradients,
    );
}
