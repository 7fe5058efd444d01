// Backward 3a, for large batches. LANES invocations own one column of one segment of the batch and
// add up its terms; the table keeps its layout, (entries, C + G), and gets shorter.
// #import spec
// #import params/table
// #import tables
// #import arithmetic/sums
// #import layout/item
// #import reduction/serial

@group(0) @binding(1) var<storage, read> gradient_terms: array<GradientPair>;
@group(0) @binding(2) var<storage, read_write> gradient_parts: array<GradientPair>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn sample_fold_backward(
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

    var sum = no_sum();
    for (var i = begin + lane; i < end; i = i + LANES) {
        let term = gradient_terms[i * params.table.columns + column];
        sum = and_term(sum, vec2<f32>(term.bias, term.weight));
    }
    let pair = reduce_pair(total(sum), local);
    if (active_item && lane == 0u) {
        gradient_parts[item] = GradientPair(pair.x, pair.y);
    }
}
