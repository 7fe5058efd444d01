// Running statistics of InstanceNorm. LANES invocations own one channel: the running statistics take the
// average over the samples of each sample's mean and unbiased variance. Means are averaged as
// differences from the first sample's pivot, so that a large mean costs nothing.
// #import spec
// #import params/channels
// #import tables
// #import arithmetic/sums
// #import arithmetic/rounded
// #import layout/item
// #import reduction/serial

@group(0) @binding(1) var<storage, read> rows: array<StoredMoments>;
@group(0) @binding(2) var<storage, read_write> running_mean: array<f32>;
@group(0) @binding(3) var<storage, read_write> running_var: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn running_fold(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let item = item_index(workgroup, num_workgroups, local);
    let lane = local % LANES;
    let active_item = item < params.dispatch.items;
    let c = min(item, params.dispatch.items - 1u);
    let pivot = moments_of(rows[c]).pivot;
    let share = 1.0 / f32(params.table.entries);

    var sums = no_sum();
    for (var i = lane; i < params.table.entries; i = i + LANES) {
        let row = moments_of(rows[i * params.table.columns + c]);
        let above = rounded(row.pivot - pivot) + row.offset;
        let unbiased = row.variance * (f32(row.count) / f32(row.count - 1u));
        sums = and_term(sums, vec2<f32>(share * above, share * unbiased));
    }
    let means = reduce_pair(total(sums), local);
    if (active_item && lane == 0u) {
        let momentum = params.norm.momentum;
        let old_mean = running_mean[c];
        running_mean[c] = (1.0 - momentum) * old_mean + (momentum * pivot + momentum * means.x);
        running_var[c] = (1.0 - momentum) * running_var[c] + momentum * means.y;
    }
}
