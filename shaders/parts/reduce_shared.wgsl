// Reduction over LANES lanes through workgroup memory, as a fixed tree; every lane gets the result.
// Call in uniform control flow. All of the memory that is read was written first: it need not be
// zeroed. A kernel is given the arrays that it uses, two at most.
var<workgroup> shared_moments: array<Moments, WORKGROUP_SIZE>;
var<workgroup> shared_products: array<Products, WORKGROUP_SIZE>;
var<workgroup> shared_pairs: array<vec2<f32>, WORKGROUP_SIZE>;

fn reduce_moments(value: Moments, local: u32) -> Moments {
    let lane = local % LANES;
    shared_moments[local] = value;
    for (var stride = 1u; stride < LANES; stride = stride * 2u) {
        workgroupBarrier();
        if ((lane & (2u * stride - 1u)) == 0u) {
            shared_moments[local] = merge_moments(shared_moments[local], shared_moments[local + stride]);
        }
    }
    workgroupBarrier();
    let result = shared_moments[local - lane];
    workgroupBarrier();
    return result;
}

fn reduce_products(value: Products, local: u32) -> Products {
    let lane = local % LANES;
    shared_products[local] = value;
    for (var stride = 1u; stride < LANES; stride = stride * 2u) {
        workgroupBarrier();
        if ((lane & (2u * stride - 1u)) == 0u) {
            shared_products[local] = merge_products(shared_products[local], shared_products[local + stride]);
        }
    }
    workgroupBarrier();
    let result = shared_products[local - lane];
    workgroupBarrier();
    return result;
}

fn reduce_pair(value: vec2<f32>, local: u32) -> vec2<f32> {
    let lane = local % LANES;
    shared_pairs[local] = value;
    for (var stride = 1u; stride < LANES; stride = stride * 2u) {
        workgroupBarrier();
        if ((lane & (2u * stride - 1u)) == 0u) {
            shared_pairs[local] = shared_pairs[local] + shared_pairs[local + stride];
        }
    }
    workgroupBarrier();
    let result = shared_pairs[local - lane];
    workgroupBarrier();
    return result;
}
