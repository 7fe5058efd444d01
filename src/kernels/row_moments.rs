//! Forward 1: x -> moments of every row (or part of a row).

use super::declare::{Element::Word, Family, Kernel, MOMENTS, Reduced, read, write};
use super::text::shader;
use crate::stages::{self, Call, Element};

/// `shaders/row_moments.wgsl`.
pub(super) const KERNEL: Kernel = Kernel {
    name: "row_moments",
    text: shader!("../../shaders/row_moments.wgsl"),
    family: Family::RowReduce,
    reduces: &[Reduced::Moments],
    bindings: &[read("x", Word), write("row_parts", MOMENTS)],
};

/// `src/stages/row_moments.rs`.
pub(super) fn mirror<T: Element>(call: &mut Call<'_>) {
    let parts = call.table_mut("row_parts");
    stages::row_moments(call.params, call.width, call.tensor::<T>("x"), parts);
}
