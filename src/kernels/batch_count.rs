//! Counts the batch, where the momentum is cumulative.

use super::declare::{Element::U32, Family, Kernel, UniformDecl, write};
use super::text::shader;
use crate::params::DispatchParams;
use crate::stages::{self, Call};

/// Its uniform.
pub(super) type Params = DispatchParams;

/// `shaders/batch_count.wgsl`.
pub(super) const KERNEL: Kernel = Kernel {
    name: "batch_count",
    text: shader!("../../shaders/batch_count.wgsl"),
    params: UniformDecl::of::<Params>(),
    family: Family::Table,
    loops: 1,
    reduces: &[],
    bindings: &[write("num_batches_tracked", U32)],
    accepts: |_| true,
};

/// `src/stages/batch_count.rs`.
pub(super) fn mirror(_: &Params, call: &mut Call<'_>) {
    stages::batch_count(call.table_mut("num_batches_tracked"));
}
