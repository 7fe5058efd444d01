//! Mirror of `shaders/batch_count.wgsl`.

/// Counts the batch, before channels read the count (where the momentum is cumulative).
pub fn batch_count(num_batches_tracked: &mut [u32]) {
    num_batches_tracked[0] = num_batches_tracked[0].saturating_add(1);
}
