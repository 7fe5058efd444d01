//! Backward 1 and 2 for short rows: what the group part makes of dy.

use super::declare::{
    CHANNEL,
    Element::{F32, Word},
    Family, GROUP, GROUP_GRADIENT, Kernel, PAIR, Reduced, UniformDecl, read, read_optional, write,
    write_optional,
};
use super::text::shader;
use crate::params::ElementParams;
use crate::stages::{self, Call, Element};

/// Its uniform.
pub(super) type Params = ElementParams;

/// `shaders/element_products.wgsl`.
pub(super) const KERNEL: Kernel = Kernel {
    name: "element_products",
    text: shader!("../../shaders/element_products.wgsl"),
    params: UniformDecl::of::<Params>(),
    family: Family::ElementReduce,
    loops: 3,
    reduces: &[Reduced::Pair],
    bindings: &[
        read_optional("channels", CHANNEL),
        read_optional("weight", F32),
        read("x", Word),
        read("grad_y", Word),
        read("groups", GROUP),
        write_optional("affine_terms", PAIR),
        write("group_gradients", GROUP_GRADIENT),
    ],
    // The table of channels has the weight; without a channel part, weight and bias are per channel.
    accepts: |spec| match spec.has("channels") {
        true => !spec.has("weight"),
        false => !spec.has("affine_terms"),
    },
};

/// `src/stages/element_products.rs`.
pub(super) fn mirror<T: Element>(params: &Params, call: &mut Call<'_>) {
    let terms = call.optional_table_mut("affine_terms");
    let gradients = call.table_mut("group_gradients");
    stages::element_products(
        params,
        call.width,
        call.tensor::<T>("x"),
        call.tensor("grad_y"),
        call.optional_table("channels"),
        call.optional_table("weight"),
        call.table("groups"),
        terms,
        gradients,
    );
}
