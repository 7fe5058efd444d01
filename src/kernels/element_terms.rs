//! Backward 3a for short rows: terms of the gradients per channel.

use super::declare::{
    CHANNEL,
    Element::{F32, Word},
    Family, GROUP_GRADIENT, Kernel, PAIR, UniformDecl, read, read_optional, write_optional,
};
use super::text::shader;
use crate::params::ElementColumnParams;
use crate::stages::{self, Call, Element};

/// Its uniform.
pub(super) type Params = ElementColumnParams;

/// `shaders/element_terms.wgsl`.
pub(super) const KERNEL: Kernel = Kernel {
    name: "element_terms",
    text: shader!("../../shaders/element_terms.wgsl"),
    params: UniformDecl::of::<Params>(),
    family: Family::ElementColumn,
    loops: 1,
    reduces: &[],
    bindings: &[
        read_optional("channels", CHANNEL),
        read_optional("weight", F32),
        read("x", Word),
        read("grad_y", Word),
        read("group_gradients", GROUP_GRADIENT),
        write_optional("channel_terms", PAIR),
        write_optional("affine_terms", PAIR),
    ],
    // The table of channels has the weight; without a channel part there are no terms of it.
    accepts: |spec| match spec.has("channels") {
        true => !spec.has("weight") && (spec.has("channel_terms") || spec.has("affine_terms")),
        false => !spec.has("channel_terms") && spec.has("affine_terms"),
    },
};

/// `src/stages/element_terms.rs`.
pub(super) fn mirror<T: Element>(params: &Params, call: &mut Call<'_>) {
    let channel_terms = call.optional_table_mut("channel_terms");
    let affine_terms = call.optional_table_mut("affine_terms");
    stages::element_terms(
        params,
        call.tensor::<T>("x"),
        call.tensor("grad_y"),
        call.optional_table("channels"),
        call.optional_table("weight"),
        call.table("group_gradients"),
        channel_terms,
        affine_terms,
    );
}
