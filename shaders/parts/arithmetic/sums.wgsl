// Sums of however many terms. What rounding takes from a sum is added up beside it (Knuth's two-sum): the error does
// not grow with the number of terms, as that of a plain loop does. (`rounded` hides from compilers that nothing would
// be left if arithmetic were exact.)
// #import params/dispatch

struct Sum {
    high: vec2<f32>,
    low: vec2<f32>,
}

fn no_sum() -> Sum {
    return Sum(vec2<f32>(0.0), vec2<f32>(0.0));
}

fn rounded_pair(v: vec2<f32>) -> vec2<f32> {
    return bitcast<vec2<f32>>(bitcast<vec2<u32>>(v) ^ vec2<u32>(params.dispatch.zero));
}

// And a term more.
fn and_term(sum: Sum, v: vec2<f32>) -> Sum {
    let high = rounded_pair(sum.high + v);
    let of_v = rounded_pair(high - sum.high);
    let of_sum = rounded_pair(high - of_v);
    return Sum(high, sum.low + (rounded_pair(sum.high - of_sum) + rounded_pair(v - of_v)));
}

// Beside an Inf there is nothing left: the difference of two.
fn total(sum: Sum) -> vec2<f32> {
    let exponent = bitcast<vec2<u32>>(sum.high) & vec2<u32>(0x7f800000u);
    return select(sum.high + sum.low, sum.high, exponent == vec2<u32>(0x7f800000u));
}
