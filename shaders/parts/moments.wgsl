// Whether the mean of a union is better written relative to the pivot of a: where the terms of that
// sum, and so its rounding, are the smaller ones. Offsets shrink as sets grow, an outlier does not stay
// pivot, and a few outliers do not become one. (With NaN either will do: both sums are NaN then.)
fn keeps_pivot(a_offset: f32, b_offset: f32, delta_to_a: f32, delta_to_b: f32) -> bool {
    return max(abs(a_offset), abs(delta_to_a)) <= max(abs(b_offset), abs(delta_to_b));
}

// Chan, Golub, LeVeque 1979: moments of the union of two sets from the moments of each.
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
    let to_a = delta * fraction_b;
    let to_b = delta * fraction_a;
    let keep_a = keeps_pivot(a.offset, b.offset, to_a, to_b);
    return Moments(
        count,
        select(b.pivot, a.pivot, keep_a),
        select(b.offset - to_b, a.offset + to_a, keep_a),
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
    let to_a = delta * fraction_b;
    let to_b = delta * fraction_a;
    let keep_a = keeps_pivot(a.offset, b.offset, to_a, to_b);
    let x_delta = b.x_mean - a.x_mean;
    return Products(
        count,
        select(b.pivot, a.pivot, keep_a),
        select(b.offset - to_b, a.offset + to_a, keep_a),
        a.x_mean + x_delta * fraction_b,
        (a.product + b.product) + (delta * x_delta) * (fraction_b * f32(a.count)),
    );
}
