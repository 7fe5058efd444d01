// Work items: LANES consecutive invocations share one. Workgroups are folded into two dimensions,
// so that more than 65,535 of them can be dispatched.
// #import spec
// #import params/dispatch

fn item_index(workgroup: vec3<u32>, num_workgroups: vec3<u32>, local: u32) -> u32 {
    let linear = workgroup.x + workgroup.y * num_workgroups.x;
    return linear * (WORKGROUP_SIZE / LANES) + local / LANES;
}

// Maps take their items from the last to the first: what the reduction before them read last is what caches still hold.
fn reversed_item(item: u32) -> u32 {
    return params.dispatch.items - 1u - item;
}
