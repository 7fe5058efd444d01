// A pair of f16 in a u32, the first in its lower half, by integers: WGSL lets adapters round, overflow and flush as they like
// in pack2x16float (pack_f16_native.wgsl, for those that were asked).
//
// To nearest, ties to even, by integers; beyond the largest f16 an Inf.
fn pack_pair(pair: vec2<f32>) -> u32 {
    let bits = bitcast<vec2<u32>>(pair);
    let magnitude = bits & vec2<u32>(0x7fffffffu);
    // Exponent and significand with the 13 bits that go, which are rounded here; at most Inf's.
    let odd = (magnitude >> vec2<u32>(13u)) & vec2<u32>(1u);
    let normal = min((magnitude + odd) + vec2<u32>(0xc8000fffu), vec2<u32>(0x0f800000u));
    // Sums in [0.5, 1) have the subnormals' unit in their last place. (WGSL does not say how a sum is
    // rounded; all adapters do it to nearest even, and the tests ask them.)
    let subnormal = bitcast<vec2<u32>>(abs(pair) + vec2<f32>(0.5)) << vec2<u32>(13u);
    let number = select(normal, subnormal, magnitude < vec2<u32>(0x38800000u));
    let any = select(number, vec2<u32>(0x0fc00000u), magnitude > vec2<u32>(0x7f800000u));
    let upper = (any << vec2<u32>(3u)) | (bits & vec2<u32>(0x80000000u));
    return (upper.x >> 16u) | (upper.y & 0xffff0000u);
}
