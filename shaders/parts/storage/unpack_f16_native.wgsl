// A pair of f16 in a u32, the first in its lower half, by the device: where it has the bits of unpack_f16.wgsl for all
// patterns (shaders/probes/f16.wgsl).
fn unpack_pair(pair: u32) -> vec2<f32> {
    return unpack2x16float(pair);
}
