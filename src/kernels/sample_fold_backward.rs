//! Backward 3a: sums over segments of a large batch.

use super::declare::{Family, Kernel, PAIR, Reduced, read, write};
use super::text::shader;
use crate::stages::{self, Call};

/// `shaders/sample_fold_backward.wgsl`.
pub(super) const KERNEL: Kernel = Kernel {
    name: "sample_fold_backward",
    text: shader!("../../shaders/sample_fold_backward.wgsl"),
    family: Family::Fold,
    reduces: &[Reduced::Pair],
    bindings: &[read("gradient_terms", PAIR), write("gradient_parts", PAIR)],
};

/// `src/stages/sample_fold_backward.rs`.
pub(super) fn mirror(call: &mut Call<'_>) {
    let parts = call.table_mut("gradient_parts");
    stages::sample_fold_backward(call.params, call.table("gradient_terms"), parts);
}
