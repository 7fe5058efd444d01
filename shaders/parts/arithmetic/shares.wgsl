// The shares of two sets in their union, whose sum is 1 to a rounding that falls to both sides alike.
//
// A GPU's quotient may be 2.5 units in the last place off, and always to the same side. Two of them would shrink a
// variance a little with each of thousands of merges, so only the smaller share is a quotient.
fn shares(a_count: u32, b_count: u32) -> vec2<f32> {
    let smaller = f32(min(a_count, b_count)) / f32(a_count + b_count);
    let larger = 1.0 - smaller;
    return select(vec2<f32>(smaller, larger), vec2<f32>(larger, smaller), a_count >= b_count);
}
