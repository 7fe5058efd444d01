// A pair of bf16 in a u32, the first in its lower half.
//
// To nearest, ties to even, by integers; a NaN stays one whatever its lower half was.
fn pack_pair(pair: vec2<f32>) -> u32 {
    let bits = bitcast<vec2<u32>>(pair);
    let odd = (bits >> vec2<u32>(16u)) & vec2<u32>(1u);
    let rounded_up = (bits + odd) + vec2<u32>(0x7fffu);
    let not_a_number = (bits & vec2<u32>(0x7fffffffu)) > vec2<u32>(0x7f800000u);
    let upper = select(rounded_up, bits | vec2<u32>(0x00400000u), not_a_number);
    return (upper.x >> 16u) | (upper.y & 0xffff0000u);
}
