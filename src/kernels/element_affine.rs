//! Forward 3 and 4 for short rows: groups' statistics and y, from x.

use super::declare::{
    CHANNEL,
    Element::{F32, Word},
    Family, GROUP, Kernel, Reduced, read, read_optional, write, write_optional,
};
use super::text::shader;
use crate::stages::{self, Call, Element};

/// `shaders/element_affine.wgsl`.
pub(super) const KERNEL: Kernel = Kernel {
    name: "element_affine",
    text: shader!("../../shaders/element_affine.wgsl"),
    family: Family::ElementReduce,
    reduces: &[Reduced::Pair],
    bindings: &[
        read("channels", CHANNEL),
        read_optional("x", Word),
        read_optional("weight", F32),
        read_optional("bias", F32),
        read_optional("residual", Word),
        write_optional("groups", GROUP),
        write("y", Word),
    ],
};

/// `src/stages/element_affine.rs`.
pub(super) fn mirror<T: Element>(call: &mut Call<'_>) {
    let groups = call.optional_table_mut("groups");
    let y = call.tensor_mut::<T>("y");
    stages::element_affine(
        call.params,
        call.width,
        call.activation,
        call.optional_tensor("x"),
        call.table("channels"),
        call.optional_table("weight"),
        call.optional_table("bias"),
        call.optional_tensor("residual"),
        groups,
        y,
    );
}
