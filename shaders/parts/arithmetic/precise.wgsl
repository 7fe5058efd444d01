// Arithmetic on tables beyond one rounding. Groups may be far narrower than their values are large;
// what f32 loses in a channel's scale and in its product with x then shows in the group.
// #import params/dispatch
// #import tables
// #import arithmetic/rounded

// The upper 12 bits of a significand: products of two such halves are exact.
fn upper_half(v: f32) -> f32 {
    return bitcast<f32>(bitcast<u32>(v) & 0xfffff000u);
}

// a b less its rounded value p = rounded(a * b) (Dekker 1971), without a fused multiply-add, which
// WGSL does not promise. A compiler that contracts or reorders the sum changes only the last bit that
// it recovers.
fn product_rest(a: f32, b: f32, p: f32) -> f32 {
    let a_high = upper_half(a);
    let b_high = upper_half(b);
    let a_low = a - a_high;
    let b_low = b - b_high;
    let rest = (((a_high * b_high - p) + a_high * b_low) + a_low * b_high) + a_low * b_low;
    // Nothing to recover where the product overflowed, or is an Inf or a NaN already.
    return select(0.0, rest, abs(p) < 1e38);
}

// What 1 / sqrt(v) has more than r: a step of Newton's with the residual 1 - v r r to twice the
// precision.
fn reciprocal_std_rest(v: f32, r: f32) -> f32 {
    let vr = rounded(v * r);
    let vrr = rounded(vr * r);
    let residual = (rounded(1.0 - vrr) - product_rest(vr, r, vrr)) - product_rest(v, r, vr) * r;
    // Outside of this range the products overflow or vanish.
    return select(0.0, 0.5 * r * residual, v > 1e-25 && v < 3e38);
}

// 1 / sqrt(v), rounded once although inverseSqrt may be off by two units in the last place. 0 where v
// is exactly 0 (eps 0 and variance 0), so that a constant yields its bias. NaN where v overflowed:
// its reciprocal, 0, would hide that behind finite values.
fn reciprocal_std(v: f32) -> f32 {
    let r = inverseSqrt(v);
    let refined = select(r + reciprocal_std_rest(v, r), 0.0, v == 0.0);
    return select(refined, rounded(bitcast<f32>(0x7fc00000u ^ params.dispatch.zero)), v > 3.4e38);
}

// Mean of x over a row, less the channel's mean.
fn x_above_mean(row: Moments, channel: Channel) -> f32 {
    return rounded(row.pivot - channel.mean_pivot) + (row.offset - channel.mean_offset);
}

// Mean of z, what the group part normalizes, over a row: pivot + offset + what rounding left of them.
struct RowMean {
    pivot: f32,
    offset: f32,
    rest: f32,
}

// What the spread of `count` values is divided by to make the group part's variance.
fn degrees_of_freedom(norm: Norm, count: f32) -> f32 {
    return select(count, count - 1.0, (norm.flags & UNBIASED) != 0u);
}

// A power of two: `count` squares of values times it are as large as their mean, and fit wherever that does.
fn square_unit(count: f32) -> f32 {
    let exponent = (bitcast<u32>(count) >> 23u) - 127u;
    return bitcast<f32>((127u - (exponent + 1u) / 2u) << 23u);
}

// a / b; 0 where b is 0: a group without spread has nothing to project out.
fn ratio(a: f32, b: f32) -> f32 {
    return select(a / b, 0.0, b == 0.0);
}
