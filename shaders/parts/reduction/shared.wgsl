// Reduction over LANES lanes as a fixed tree of neighbours; every lane gets the result. The lanes of a subgroup reduce by
// themselves first (shuffles.wgsl; where SUBGROUP_SIZE is 1, none do), then their results through workgroup
// memory: the tree is the same, and so are the bits, whatever SUBGROUP_SIZE is. Call in uniform control flow. All of the
// memory that is read was written first: it need not be zeroed. A kernel is given the arrays that it uses, two at most.
// #import spec
// #import tables
// #import arithmetic/moments
// #import reduction/no_shuffles

const SUBGROUPS: u32 = LANES / SUBGROUP_SIZE;

var<workgroup> shared_moments: array<Moments, WORKGROUP_SIZE / SUBGROUP_SIZE>;
var<workgroup> shared_products: array<Products, WORKGROUP_SIZE / SUBGROUP_SIZE>;
var<workgroup> shared_pairs: array<vec2<f32>, WORKGROUP_SIZE / SUBGROUP_SIZE>;

fn reduce_moments(value: Moments, local: u32) -> Moments {
    let shuffled = shuffled_moments(value, local);
    if (local % SUBGROUP_SIZE == 0u) {
        shared_moments[local / SUBGROUP_SIZE] = shuffled;
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
    let shuffled = shuffled_products(value, local);
    if (local % SUBGROUP_SIZE == 0u) {
        shared_products[local / SUBGROUP_SIZE] = shuffled;
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
    let shuffled = shuffled_pair(value);
    if (local % SUBGROUP_SIZE == 0u) {
        shared_pairs[local / SUBGROUP_SIZE] = shuffled;
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
