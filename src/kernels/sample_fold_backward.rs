//! Backward 3a: sums over segments of a large batch.

use super::declare::{Family, Kernel, PAIR, Reduced, UniformDecl, read, write};
use super::text::shader;
use crate::params::TableParams;
use crate::stages::{self, Call};

/// Its uniform.
pub(super) type Params = TableParams;

/// `shaders/sample_fold_backward.wgsl`.
pub(super) const KERNEL: Kernel = Kernel {
    name: "sample_fold_backward",
    text: shader!("../../shaders/sample_fold_backward.wgsl"),
    params: UniformDecl::of::<Params>(),
    family: Family::Fold,
    loops: 1,
    reduces: &[Reduced::Pair],
    bindings: &[read("gradient_terms", PAIR), write("gradient_parts", PAIR)],
    accepts: |_| true,
};

/// `src/stages/sample_fold_backward.rs`.
pub(super) fn mirror(params: &Params, call: &mut Call<'_>) {
    let parts = call.table_mut("gradient_parts");
    stages::sample_fold_backward(params, call.table("gradient_terms"), parts);
}
