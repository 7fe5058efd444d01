//! Forward 3 and 4 for short rows: groups' statistics and y, from x.

use super::declare::{
    CHANNEL,
    Element::{F32, Word},
    Family, GROUP, Kernel, Reduced, UniformDecl, read_optional, write, write_optional,
};
use super::text::shader;
use crate::desc::Activation;
use crate::params::ElementParams;
use crate::stages::{self, Call, Element};

/// Its uniform.
pub(super) type Params = ElementParams;

/// `shaders/element_affine.wgsl`.
pub(super) const KERNEL: Kernel = Kernel {
    name: "element_affine",
    text: shader!("../../shaders/element_affine.wgsl"),
    params: UniformDecl::of::<Params>(),
    family: Family::ElementReduce,
    loops: 3,
    reduces: &[Reduced::Pair],
    bindings: &[
        read_optional("channels", CHANNEL),
        read_optional("weight", F32),
        read_optional("x", Word),
        read_optional("bias", F32),
        read_optional("residual", Word),
        write_optional("groups", GROUP),
        write("y", Word),
    ],
    // In place, and with an activation, there is no backward, which reads the table.
    accepts: |spec| !spec.has("groups") || (spec.has("x") && spec.activation == Activation::None),
};

/// `src/stages/element_affine.rs`.
pub(super) fn mirror<T: Element>(params: &Params, call: &mut Call<'_>) {
    let groups = call.optional_table_mut("groups");
    let y = call.tensor_mut::<T>("y");
    stages::element_affine(
        params,
        call.width,
        call.activation,
        call.optional_tensor("x"),
        call.optional_table("channels"),
        call.optional_table("weight"),
        call.optional_table("bias"),
        call.optional_tensor("residual"),
        groups,
        y,
    );
}
