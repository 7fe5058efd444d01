//! Counts the batch, where the momentum is cumulative.

use super::declare::{Element::U32, Family, Kernel, write};
use super::text::shader;
use crate::stages::{self, Call};

/// `shaders/batch_count.wgsl`.
pub(super) const KERNEL: Kernel = Kernel {
    name: "batch_count",
    text: shader!("../../shaders/batch_count.wgsl"),
    family: Family::Table,
    reduces: &[],
    bindings: &[write("num_batches_tracked", U32)],
};

/// `src/stages/batch_count.rs`.
pub(super) fn mirror(call: &mut Call<'_>) {
    stages::batch_count(call.table_mut("num_batches_tracked"));
}
