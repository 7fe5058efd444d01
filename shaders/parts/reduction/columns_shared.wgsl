// Reduction over LANES lanes, TILE invocations apart, through workgroup memory, as a fixed tree; lane
// 0 gets the result. Call in uniform control flow. The upper half of the lanes that are left hands its
// values to the lower: memory for half of a workgroup does (10 KiB of at most 80 bytes each for 256
// invocations), and all of it that is read was written first. A kernel uses one of the arrays.
// #import spec
// #import arithmetic/column_moments
// #import layout/column

var<workgroup> shared_moments: array<ColumnMoments, WORKGROUP_SIZE / 2u>;
var<workgroup> shared_products: array<ColumnProducts, WORKGROUP_SIZE / 2u>;

fn reduce_column_moments(value: ColumnMoments, local: u32) -> ColumnMoments {
    var result = value;
    for (var stride = WORKGROUP_SIZE / 2u; stride >= TILE; stride = stride / 2u) {
        if (local >= stride && local < 2u * stride) {
            shared_moments[local - stride] = result;
        }
        workgroupBarrier();
        if (local < stride) {
            result = merge_column_moments(result, shared_moments[local]);
        }
        workgroupBarrier();
    }
    return result;
}

fn reduce_column_products(value: ColumnProducts, local: u32) -> ColumnProducts {
    var result = value;
    for (var stride = WORKGROUP_SIZE / 2u; stride >= TILE; stride = stride / 2u) {
        if (local >= stride && local < 2u * stride) {
            shared_products[local - stride] = result;
        }
        workgroupBarrier();
        if (local < stride) {
            result = merge_column_products(result, shared_products[local]);
        }
        workgroupBarrier();
    }
    return result;
}
