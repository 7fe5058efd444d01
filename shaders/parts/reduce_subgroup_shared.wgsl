// reduce_shared's tree, bit by bit, over lanes that are in several subgroups: each subgroup by shuffles, then every lane
// merges the subgroups' results, which are few, by itself.
const SUBGROUPS: u32 = LANES / SUBGROUP_SIZE;

var<workgroup> shared_moments: array<Moments, WORKGROUP_SIZE / SUBGROUP_SIZE>;
var<workgroup> shared_products: array<Products, WORKGROUP_SIZE / SUBGROUP_SIZE>;
var<workgroup> shared_pairs: array<vec2<f32>, WORKGROUP_SIZE / SUBGROUP_SIZE>;

fn reduce_moments(value: Moments, local: u32) -> Moments {
    let near = near_moments(value, local);
    if (local % SUBGROUP_SIZE == 0u) {
        shared_moments[local / SUBGROUP_SIZE] = near;
    }
    let first = local / LANES * SUBGROUPS;
    let i = local % LANES;
    for (var stride = 1u; stride < SUBGROUPS; stride = stride * 2u) {
        workgroupBarrier();
        if (i < SUBGROUPS && (i & (2u * stride - 1u)) == 0u) {
            shared_moments[first + i] = merge_moments(shared_moments[first + i], shared_moments[first + i + stride]);
        }
    }
    workgroupBarrier();
    let result = shared_moments[first];
    workgroupBarrier();
    return result;
}

fn reduce_products(value: Products, local: u32) -> Products {
    let near = near_products(value, local);
    if (local % SUBGROUP_SIZE == 0u) {
        shared_products[local / SUBGROUP_SIZE] = near;
    }
    let first = local / LANES * SUBGROUPS;
    let i = local % LANES;
    for (var stride = 1u; stride < SUBGROUPS; stride = stride * 2u) {
        workgroupBarrier();
        if (i < SUBGROUPS && (i & (2u * stride - 1u)) == 0u) {
            shared_products[first + i] = merge_products(shared_products[first + i], shared_products[first + i + stride]);
        }
    }
    workgroupBarrier();
    let result = shared_products[first];
    workgroupBarrier();
    return result;
}

fn reduce_pair(value: vec2<f32>, local: u32) -> vec2<f32> {
    let near = near_pair(value);
    if (local % SUBGROUP_SIZE == 0u) {
        shared_pairs[local / SUBGROUP_SIZE] = near;
    }
    let first = local / LANES * SUBGROUPS;
    let i = local % LANES;
    for (var stride = 1u; stride < SUBGROUPS; stride = stride * 2u) {
        workgroupBarrier();
        if (i < SUBGROUPS && (i & (2u * stride - 1u)) == 0u) {
            shared_pairs[first + i] = shared_pairs[first + i] + shared_pairs[first + i + stride];
        }
    }
    workgroupBarrier();
    let result = shared_pairs[first];
    workgroupBarrier();
    return result;
}
