//! Forward 1: x -> moments of every row (or part of a row).

use super::declare::{Element::Word, Family, Kernel, MOMENTS, Reduced, UniformDecl, read, write};
use super::text::shader;
use crate::params::RowParams;
use crate::stages::{self, Call, Element};

/// Its uniform.
pub(super) type Params = RowParams;

/// `shaders/row_moments.wgsl`.
pub(super) const KERNEL: Kernel = Kernel {
    name: "row_moments",
    text: shader!("../../shaders/row_moments.wgsl"),
    params: UniformDecl::of::<Params>(),
    family: Family::RowReduce,
    loops: 1,
    reduces: &[Reduced::Moments],
    bindings: &[read("x", Word), write("row_parts", MOMENTS)],
    accepts: |_| true,
};

/// `src/stages/row_moments.rs`.
pub(super) fn mirror<T: Element>(params: &Params, call: &mut Call<'_>) {
    let parts = call.table_mut("row_parts");
    stages::row_moments(params, call.width, call.tensor::<T>("x"), parts);
}
