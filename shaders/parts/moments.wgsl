// Chan, Golub, LeVeque 1979: moments of the union of two sets from the moments of each. The mean of
// the union is kept relative to that pivot of the two which lies nearer, so that an outlier does
// not stay pivot; offsets shrink as sets grow, and with them their rounding.
fn merge_moments(a: Moments, b: Moments) -> Moments {
    if (b.count == 0u) {
        return a;
    }
    if (a.count == 0u) {
        return b;
    }
    let count = a.count + b.count;
    let fraction_a = f32(a.count) / f32(count);
    let fraction_b = f32(b.count) / f32(count);
    let delta = rounded(b.pivot - a.pivot) + (b.offset - a.offset);
    let from_a = a.offset + delta * fraction_b;
    let from_b = b.offset - delta * fraction_a;
    // False for NaN: from_b is NaN then too, since delta is.
    let keep_a = abs(from_a) <= abs(from_b);
    return Moments(
        count,
        select(b.pivot, a.pivot, keep_a),
        select(from_b, from_a, keep_a),
        (a.m2 + b.m2) + (delta * delta) * (fraction_b * f32(a.count)),
    );
}

// The same for dy and its product with u = x - row mean: the product is about both means.
fn merge_products(a: Products, b: Products) -> Products {
    if (b.count == 0u) {
        return a;
    }
    if (a.count == 0u) {
        return b;
    }
    let count = a.count + b.count;
    let fraction_a = f32(a.count) / f32(count);
    let fraction_b = f32(b.count) / f32(count);
    let delta = rounded(b.pivot - a.pivot) + (b.offset - a.offset);
    let from_a = a.offset + delta * fraction_b;
    let from_b = b.offset - delta * fraction_a;
    let keep_a = abs(from_a) <= abs(from_b);
    let x_delta = b.x_mean - a.x_mean;
    return Products(
        count,
        select(b.pivot, a.pivot, keep_a),
        select(from_b, from_a, keep_a),
        a.x_mean + x_delta * fraction_b,
        (a.product + b.product) + (delta * x_delta) * (fraction_b * f32(a.count)),
    );
}
