//! Forward 4: y from x.

use super::declare::{AFFINE, Element::Word, Family, Kernel, read, read_optional, write};
use super::text::shader;
use crate::stages::{self, Call, Element};

/// `shaders/row_affine.wgsl`.
pub(super) const KERNEL: Kernel = Kernel {
    name: "row_affine",
    text: shader!("../../shaders/row_affine.wgsl"),
    family: Family::RowMap,
    reduces: &[],
    bindings: &[
        read_optional("x", Word),
        read("coefficients", AFFINE),
        read_optional("residual", Word),
        write("y", Word),
    ],
};

/// `src/stages/row_affine.rs`.
pub(super) fn mirror<T: Element>(call: &mut Call<'_>) {
    let y = call.tensor_mut::<T>("y");
    stages::row_affine(
        call.params,
        call.width,
        call.activation,
        call.optional_tensor("x"),
        call.table("coefficients"),
        call.optional_tensor("residual"),
        y,
    );
}
