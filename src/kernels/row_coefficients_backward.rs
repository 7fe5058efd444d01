//! Backward 4a: the affine map of every row.

use super::declare::{
    AFFINE_BACKWARD, CHANNEL, Family, Kernel, MOMENTS, PAIR, PRODUCTS, ROW_GRADIENT, UniformDecl,
    read, read_optional, write,
};
use super::text::shader;
use crate::params::GroupParams;
use crate::stages::{self, Call};

/// Its uniform.
pub(super) type Params = GroupParams;

/// `shaders/row_coefficients_backward.wgsl`.
pub(super) const KERNEL: Kernel = Kernel {
    name: "row_coefficients_backward",
    text: shader!("../../shaders/row_coefficients_backward.wgsl"),
    params: UniformDecl::of::<Params>(),
    family: Family::Table,
    loops: 1,
    reduces: &[],
    bindings: &[
        read("rows", MOMENTS),
        read("products", PRODUCTS),
        read_optional("channels", CHANNEL),
        read("row_gradients", ROW_GRADIENT),
        read_optional("channel_gradients", PAIR),
        write("coefficients_backward", AFFINE_BACKWARD),
    ],
    // A gradient through statistics is one of a channel part.
    accepts: |spec| spec.has("channels") || !spec.has("channel_gradients"),
};

/// `src/stages/row_coefficients_backward.rs`.
pub(super) fn mirror(params: &Params, call: &mut Call<'_>) {
    let coefficients = call.table_mut("coefficients_backward");
    stages::row_coefficients_backward(
        params,
        call.table("rows"),
        call.table("products"),
        call.optional_table("channels"),
        call.table("row_gradients"),
        call.optional_table("channel_gradients"),
        coefficients,
    );
}
