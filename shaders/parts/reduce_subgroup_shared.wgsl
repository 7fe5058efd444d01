// reduce_shared's tree, bit by bit, over lanes that are in several subgroups: 3 barriers. Each of the first
// SUBGROUP_SIZE lanes folds what lies multiples of SUBGROUP_SIZE behind it, which no other touches; shuffles fold
// what they have then. (The others shuffle what nobody asks for: all must take part.)
var<workgroup> shared_moments: array<Moments, WORKGROUP_SIZE>;
var<workgroup> shared_products: array<Products, WORKGROUP_SIZE>;
var<workgroup> shared_pairs: array<vec2<f32>, WORKGROUP_SIZE>;

fn reduce_moments(value: Moments, local: u32) -> Moments {
    let lane = local % LANES;
    var result = value;
    shared_moments[local] = value;
    workgroupBarrier();
    if (lane < SUBGROUP_SIZE) {
        for (var stride = LANES / 2u; stride >= SUBGROUP_SIZE; stride = stride / 2u) {
            for (var i = 0u; lane + i < stride; i = i + SUBGROUP_SIZE) {
                shared_moments[local + i] =
                    merge_moments(shared_moments[local + i], shared_moments[local + i + stride]);
            }
        }
        result = shared_moments[local];
    }
    result = near_moments(result, local);
    if (lane == 0u) {
        shared_moments[local] = result;
    }
    workgroupBarrier();
    result = shared_moments[local - lane];
    workgroupBarrier();
    return result;
}

fn reduce_products(value: Products, local: u32) -> Products {
    let lane = local % LANES;
    var result = value;
    shared_products[local] = value;
    workgroupBarrier();
    if (lane < SUBGROUP_SIZE) {
        for (var stride = LANES / 2u; stride >= SUBGROUP_SIZE; stride = stride / 2u) {
            for (var i = 0u; lane + i < stride; i = i + SUBGROUP_SIZE) {
                shared_products[local + i] =
                    merge_products(shared_products[local + i], shared_products[local + i + stride]);
            }
        }
        result = shared_products[local];
    }
    result = near_products(result, local);
    if (lane == 0u) {
        shared_products[local] = result;
    }
    workgroupBarrier();
    result = shared_products[local - lane];
    workgroupBarrier();
    return result;
}

fn reduce_pair(value: vec2<f32>, local: u32) -> vec2<f32> {
    let lane = local % LANES;
    var result = value;
    shared_pairs[local] = value;
    workgroupBarrier();
    if (lane < SUBGROUP_SIZE) {
        for (var stride = LANES / 2u; stride >= SUBGROUP_SIZE; stride = stride / 2u) {
            for (var i = 0u; lane + i < stride; i = i + SUBGROUP_SIZE) {
                shared_pairs[local + i] = shared_pairs[local + i] + shared_pairs[local + i + stride];
            }
        }
        result = shared_pairs[local];
    }
    result = near_pair(result);
    if (lane == 0u) {
        shared_pairs[local] = result;
    }
    workgroupBarrier();
    result = shared_pairs[local - lane];
    workgroupBarrier();
    return result;
}
