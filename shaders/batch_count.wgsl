// One invocation counts the batch, before channels read the count (where the momentum is cumulative; else
// channel_fold counts).
// #import params/dispatch
// #import tables
// #import layout/item
// #import spec

@group(0) @binding(1) var<storage, read_write> num_batches_tracked: array<u32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn batch_count(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    if (item_index(workgroup, num_workgroups, local) == 0u) {
        num_batches_tracked[0] = next_count(num_batches_tracked[0]);
    }
}
