//! Forward 1b: moments of the parts of a row -> of the row.

use super::declare::{Family, Kernel, MOMENTS, Reduced, UniformDecl, read, write};
use super::text::shader;
use crate::params::PartParams;
use crate::stages::{self, Call};

/// Its uniform.
pub(super) type Params = PartParams;

/// `shaders/row_fold.wgsl`.
pub(super) const KERNEL: Kernel = Kernel {
    name: "row_fold",
    text: shader!("../../shaders/row_fold.wgsl"),
    params: UniformDecl::of::<Params>(),
    family: Family::Fold,
    loops: 2,
    reduces: &[Reduced::Moments, Reduced::Pair],
    bindings: &[read("row_parts", MOMENTS), write("rows", MOMENTS)],
    accepts: |_| true,
};

/// `src/stages/row_fold.rs`.
pub(super) fn mirror(params: &Params, call: &mut Call<'_>) {
    let rows = call.table_mut("rows");
    stages::row_fold(params, call.table("row_parts"), rows);
}
