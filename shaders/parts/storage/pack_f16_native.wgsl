// A pair of f16 in a u32, the first in its lower half, by the device: where it has the bits of pack_f16.wgsl on both sides of
// every boundary of rounding (shaders/probes/f16.wgsl). Compilers may round what is computed just before to f16 at once; none
// looks through integers and a zero that it does not know.
// #import params/dispatch

fn pack_pair(pair: vec2<f32>) -> u32 {
    return pack2x16float(bitcast<vec2<f32>>(bitcast<vec2<u32>>(pair) ^ vec2<u32>(params.dispatch.zero)));
}
