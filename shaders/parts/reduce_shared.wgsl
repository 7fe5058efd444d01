// Reduction over LANES lanes through workgroup memory, as a fixed tree; every lane gets the result.
// Call in uniform control flow. All of the memory that is read was written first: it need not be
// zeroed.
var<workgroup> shared_moments: array<Moments, WORKGROUP_SIZE>;
var<workgroup> shared_sums: array<vec4<f32>, WORKGROUP_SIZE>;

fn reduce_moments(value: Moments, local: u32) -> Moments {
    let lane = local % LANES;
    shared_moments[local] = value;
    for (var stride = LANES / 2u; stride > 0u; stride = stride / 2u) {
        workgroupBarrier();
        if (lane < stride) {
            shared_moments[local] = merge_moments(shared_moments[local], shared_moments[local + stride]);
        }
    }
    workgroupBarrier();
    let result = shared_moments[local - lane];
    workgroupBarrier();
    return result;
}

fn reduce_sums(value: vec4<f32>, local: u32) -> vec4<f32> {
    let lane = local % LANES;
    shared_sums[local] = value;
    for (var stride = LANES / 2u; stride > 0u; stride = stride / 2u) {
        workgroupBarrier();
        if (lane < stride) {
            shared_sums[local] = shared_sums[local] + shared_sums[local + stride];
        }
    }
    workgroupBarrier();
    let result = shared_sums[local - lane];
    workgroupBarrier();
    return result;
}
