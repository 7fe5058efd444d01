// Forward 2a, for large batches. LANES invocations own one channel of one segment of the batch and
// merge its rows; the table keeps its layout, (entries, C), and gets shorter.
// #import spec
// #import params/table
// #import tables
// #import arithmetic/sums
// #import arithmetic/moments
// #import layout/item
// #import reduction/serial

@group(0) @binding(1) var<storage, read> rows: array<StoredMoments>;
@group(0) @binding(2) var<storage, read_write> channel_parts: array<StoredMoments>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn sample_fold(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let item = item_index(workgroup, num_workgroups, local);
    let lane = local % LANES;
    let active_item = item < params.dispatch.items;
    let safe_item = min(item, params.dispatch.items - 1u);
    let segment = safe_item / params.table.columns;
    let column = safe_item - segment * params.table.columns;
    let begin = segment * params.table.entries_per_segment;
    let end = min(begin + params.table.entries_per_segment, params.table.entries);

    var moments = Moments(0u, 0.0, 0.0, 0.0);
    for (var i = begin + lane; i < end; i = i + LANES) {
        moments = merge_moments(moments, moments_of(rows[i * params.table.columns + column]));
    }
    moments = reduce_moments(moments, local);
    var left = no_sum();
    for (var i = begin + lane; i < end; i = i + LANES) {
        left = and_term(left, second_look(moments_of(rows[i * params.table.columns + column]), moments));
    }
    moments = after_second_look(moments, reduce_pair(total(left), local));
    if (active_item && lane == 0u) {
        channel_parts[item] = stored_moments(moments);
    }
}
