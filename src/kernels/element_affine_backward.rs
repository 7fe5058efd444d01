//! Backward 4 for short rows: dx from x and dy.

use super::declare::{
    CHANNEL,
    Element::{F32, Word},
    Family, GROUP_GRADIENT, Kernel, PAIR, UniformDecl, read, read_optional, write,
};
use super::text::shader;
use crate::params::ElementColumnParams;
use crate::stages::{self, Call, Element};

/// Its uniform.
pub(super) type Params = ElementColumnParams;

/// `shaders/element_affine_backward.wgsl`.
pub(super) const KERNEL: Kernel = Kernel {
    name: "element_affine_backward",
    text: shader!("../../shaders/element_affine_backward.wgsl"),
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
        read_optional("channel_gradients", PAIR),
        write("grad_x", Word),
    ],
    // The table of channels has the weight.
    accepts: |spec| match spec.has("channels") {
        true => !spec.has("weight"),
        false => !spec.has("channel_gradients"),
    },
};

/// `src/stages/element_affine_backward.rs`.
pub(super) fn mirror<T: Element>(params: &Params, call: &mut Call<'_>) {
    let grad_x = call.tensor_mut::<T>("grad_x");
    stages::element_affine_backward(
        params,
        call.accumulate,
        call.tensor("x"),
        call.tensor("grad_y"),
        call.optional_table("channels"),
        call.optional_table("weight"),
        call.table("group_gradients"),
        call.optional_table("channel_gradients"),
        grad_x,
    );
}
