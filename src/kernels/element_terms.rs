//! Backward 3a for short rows: terms of the gradients per channel.

use super::declare::{
    CHANNEL, Element::Word, Family, GROUP_GRADIENT, Kernel, PAIR, read, write_optional,
};
use super::text::shader;
use crate::stages::{self, Call, Element};

/// `shaders/element_terms.wgsl`.
pub(super) const KERNEL: Kernel = Kernel {
    name: "element_terms",
    text: shader!("../../shaders/element_terms.wgsl"),
    family: Family::ElementColumn,
    reduces: &[],
    bindings: &[
        read("channels", CHANNEL),
        read("x", Word),
        read("grad_y", Word),
        read("group_gradients", GROUP_GRADIENT),
        write_optional("channel_terms", PAIR),
        write_optional("affine_terms", PAIR),
    ],
};

/// `src/stages/element_terms.rs`.
pub(super) fn mirror<T: Element>(call: &mut Call<'_>) {
    let channel_terms = call.optional_table_mut("channel_terms");
    let affine_terms = call.optional_table_mut("affine_terms");
    stages::element_terms(
        call.params,
        call.tensor::<T>("x"),
        call.tensor("grad_y"),
        call.table("channels"),
        call.table("group_gradients"),
        channel_terms,
        affine_terms,
    );
}
