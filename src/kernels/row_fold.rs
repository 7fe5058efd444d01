//! Forward 1b: moments of the parts of a row -> of the row.

use super::declare::{Family, Kernel, MOMENTS, Reduced, read, write};
use super::text::shader;
use crate::stages::{self, Call};

/// `shaders/row_fold.wgsl`.
pub(super) const KERNEL: Kernel = Kernel {
    name: "row_fold",
    text: shader!("../../shaders/row_fold.wgsl"),
    family: Family::Fold,
    reduces: &[Reduced::Moments, Reduced::Pair],
    bindings: &[read("row_parts", MOMENTS), write("rows", MOMENTS)],
};

/// `src/stages/row_fold.rs`.
pub(super) fn mirror(call: &mut Call<'_>) {
    let rows = call.table_mut("rows");
    stages::row_fold(call.params, call.table("row_parts"), rows);
}
