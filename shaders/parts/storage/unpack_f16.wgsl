// A pair of f16 in a u32, the first in its lower half, by integers: WGSL lets adapters flush in unpack2x16float
// (unpack_f16_native.wgsl, for those that were asked).
//
// Exact for all patterns. The exponent goes where f32 has it; nothing here is a subnormal number of
// f32, which adapters may flush.
fn unpack_pair(pair: u32) -> vec2<f32> {
    let upper = vec2<u32>(pair << 16u, pair);
    let magnitude = ((upper >> vec2<u32>(3u)) & vec2<u32>(0x0fffe000u)) + vec2<u32>(0x38000000u);
    let normal = bitcast<vec2<f32>>(magnitude);
    // Subnormal ones (and 0) have no leading 1, and the unit of the next exponent.
    let subnormal = (normal + normal) - vec2<f32>(0x1p-14);
    let finite = select(normal, subnormal, magnitude < vec2<u32>(0x38800000u));
    let large = magnitude >= vec2<u32>(0x47800000u);
    let any = select(bitcast<vec2<u32>>(finite), magnitude | vec2<u32>(0x7f800000u), large);
    return bitcast<vec2<f32>>(any | (upper & vec2<u32>(0x80000000u)));
}
