// Backward 1b, where rows are split. LANES invocations own one row and merge its parts.
// #import spec
// #import params/parts
// #import tables
// #import arithmetic/sums
// #import arithmetic/moments
// #import layout/item
// #import reduction/serial

@group(0) @binding(1) var<storage, read> product_parts: array<Products>;
@group(0) @binding(2) var<storage, read_write> products: array<Products>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn row_fold_backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let item = item_index(workgroup, num_workgroups, local);
    let lane = local % LANES;
    let active_item = item < params.dispatch.items;
    let first = min(item, params.dispatch.items - 1u) * params.parts;

    var merged = Products(0u, 0.0, 0.0, 0.0, 0.0);
    for (var part = lane; part < params.parts; part = part + LANES) {
        merged = merge_products(merged, product_parts[first + part]);
    }
    merged = reduce_products(merged, local);
    // A second look, as row_fold takes: what is left of both means, and the covariance about them.
    var left = no_sum();
    var product = no_sum();
    for (var part = lane; part < params.parts; part = part + LANES) {
        let entry = product_parts[first + part];
        let share = f32(entry.count) / max(f32(merged.count), 1.0);
        let delta = rounded(entry.pivot - merged.pivot) + (entry.offset - merged.offset);
        let x_delta = entry.x_mean - merged.x_mean;
        left = and_term(left, share * vec2<f32>(delta, x_delta));
        product = and_term(product, vec2<f32>(share * entry.covariance + (share * delta) * x_delta, 0.0));
    }
    let means = reduce_pair(total(left), local);
    merged.offset = merged.offset + means.x;
    merged.x_mean = merged.x_mean + means.y;
    merged.covariance = reduce_pair(total(product), local).x;
    if (active_item && lane == 0u) {
        products[item] = merged;
    }
}
