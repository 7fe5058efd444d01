// The sum over the LANES invocations that share an item, to the first of them.

var<workgroup> shared_sums: array<vec2<f32>, WORKGROUP_SIZE>;

fn gather(index: u32, sum: vec2<f32>) -> vec2<f32> {
    shared_sums[index] = sum;
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if index % LANES < half {
            shared_sums[index] += shared_sums[index + half];
        }
    }
    return shared_sums[index];
}
