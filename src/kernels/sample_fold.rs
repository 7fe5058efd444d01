//! Forward 2a: moments over segments of a large batch.

use super::declare::{Family, Kernel, MOMENTS, Reduced, UniformDecl, read, write};
use super::text::shader;
use crate::params::TableParams;
use crate::stages::{self, Call};

/// Its uniform.
pub(super) type Params = TableParams;

/// `shaders/sample_fold.wgsl`.
pub(super) const KERNEL: Kernel = Kernel {
    name: "sample_fold",
    text: shader!("../../shaders/sample_fold.wgsl"),
    params: UniformDecl::of::<Params>(),
    family: Family::Fold,
    loops: 2,
    reduces: &[Reduced::Moments, Reduced::Pair],
    bindings: &[read("rows", MOMENTS), write("channel_parts", MOMENTS)],
    accepts: |_| true,
};

/// `src/stages/sample_fold.rs`.
pub(super) fn mirror(params: &Params, call: &mut Call<'_>) {
    let parts = call.table_mut("channel_parts");
    stages::sample_fold(params, call.table("rows"), parts);
}
