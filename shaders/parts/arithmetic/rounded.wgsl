// The value, rounded to f32 here. Compilers may carry sums and products across (Metal's fast math
// makes (x - k) - d of x - (k + d), and all may contract a product into a sum); none looks through
// integers and a zero that it does not know.
// #import params/dispatch

fn rounded(v: f32) -> f32 {
    return bitcast<f32>(bitcast<u32>(v) ^ params.dispatch.zero);
}
