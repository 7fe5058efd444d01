// A pair of bf16 in a u32, the first in its lower half.
//
// Exact: a bf16 is the upper half of an f32.
fn unpack_pair(pair: u32) -> vec2<f32> {
    return bitcast<vec2<f32>>(vec2<u32>(pair << 16u, pair & 0xffff0000u));
}
