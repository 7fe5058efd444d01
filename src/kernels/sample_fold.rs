//! Forward 2a: moments over segments of a large batch.

use super::declare::{Family, Kernel, MOMENTS, Reduced, read, write};
use super::text::shader;
use crate::stages::{self, Call};

/// `shaders/sample_fold.wgsl`.
pub(super) const KERNEL: Kernel = Kernel {
    name: "sample_fold",
    text: shader!("../../shaders/sample_fold.wgsl"),
    family: Family::Fold,
    reduces: &[Reduced::Moments, Reduced::Pair],
    bindings: &[read("rows", MOMENTS), write("channel_parts", MOMENTS)],
};

/// `src/stages/sample_fold.rs`.
pub(super) fn mirror(call: &mut Call<'_>) {
    let parts = call.table_mut("channel_parts");
    stages::sample_fold(call.params, call.table("rows"), parts);
}
