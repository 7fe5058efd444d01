// Not a stage: asks a device whether its own conversions of f16 have the bits of the library's. An invocation takes one of the
// 65,536 patterns: it reads it both ways, and writes both ways what lies on both sides of the boundaries of rounding next
// to it. WGSL lets devices flush in unpack2x16float, and round, overflow and flush in pack2x16float as they like.
// #import storage/unpack_f16
// #import storage/pack_f16

// How many patterns are read as the library reads them; around how many all values are written as it writes them.
@group(0) @binding(0) var<storage, read_write> agree: array<atomic<u32>, 2>;

// What any NaN is as good as.
fn one_nan_f16(pair: u32) -> vec2<u32> {
    let bits = vec2<u32>(pair & 0xffffu, pair >> 16u);
    return select(bits, vec2<u32>(0x7e00u), (bits & vec2<u32>(0x7fffu)) > vec2<u32>(0x7c00u));
}

fn one_nan_f32(pair: vec2<f32>) -> vec2<u32> {
    let bits = bitcast<vec2<u32>>(pair);
    return select(bits, vec2<u32>(0x7fc00000u), (bits & vec2<u32>(0x7fffffffu)) > vec2<u32>(0x7f800000u));
}

@compute @workgroup_size(256)
fn probe_f16(
    @builtin(global_invocation_id) invocation: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
) {
    // A zero that compilers do not know: they compute nothing before, and carry nothing across.
    let zero = num_workgroups.y - 1u;
    let pattern = invocation.x;

    let pair = (pattern | ((pattern ^ 0x8155u) << 16u)) ^ zero;
    let native = unpack2x16float(pair);
    let own = unpack_pair(pair);
    // Within arithmetic, too, where hardware may read f16 operands.
    let k = vec2<f32>(f32(zero) + 1.0);
    let same_read = one_nan_f32(native) == one_nan_f32(own);
    if (all(same_read & (one_nan_f32(native - k) == one_nan_f32(own - k)))) {
        atomicAdd(&agree[0], 1u);
    }

    let value = own.x;
    let bits = bitcast<u32>(value);
    let sign = bits & 0x80000000u;
    // Half a unit in the last place further: of normal ones bit 12, of subnormal ones and 0 a value.
    let subnormal = (pattern & 0x7c00u) == 0u;
    let middle = select(bits + 0x1000u, sign | bitcast<u32>(abs(value) + 0x1p-25), subnormal);
    let last = select(bits + 0x1fffu, middle + 2u, subnormal);
    let near = array<u32, 6>(bits, bits + 1u, middle - 1u, middle, middle + 1u, last);
    var same = true;
    for (var i = 0u; i < 6u; i = i + 1u) {
        let values = bitcast<vec2<f32>>(vec2<u32>(near[i], near[5u - i]) ^ vec2<u32>(zero));
        same = same && all(one_nan_f16(pack2x16float(values)) == one_nan_f16(pack_pair(values)));
    }
    if (same) {
        atomicAdd(&agree[1], 1u);
    }
}
