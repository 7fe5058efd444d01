// Forward 1b, where rows are split. LANES invocations own one row and merge its parts.
// #import spec
// #import params/parts
// #import tables
// #import arithmetic/sums
// #import arithmetic/moments
// #import layout/item
// #import reduction/serial

@group(0) @binding(1) var<storage, read> row_parts: array<StoredMoments>;
@group(0) @binding(2) var<storage, read_write> rows: array<StoredMoments>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn row_fold(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let item = item_index(workgroup, num_workgroups, local);
    let lane = local % LANES;
    let active_item = item < params.dispatch.items;
    let first = min(item, params.dispatch.items - 1u) * params.parts;

    var moments = Moments(0u, 0.0, 0.0, 0.0);
    for (var part = lane; part < params.parts; part = part + LANES) {
        moments = merge_moments(moments, moments_of(row_parts[first + part]));
    }
    moments = reduce_moments(moments, local);
    var left = no_sum();
    for (var part = lane; part < params.parts; part = part + LANES) {
        left = and_term(left, second_look(moments_of(row_parts[first + part]), moments));
    }
    moments = after_second_look(moments, reduce_pair(total(left), local));
    if (active_item && lane == 0u) {
        rows[item] = stored_moments(moments);
    }
}
