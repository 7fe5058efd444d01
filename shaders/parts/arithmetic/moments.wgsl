// The mean of the union of two sets, as pivot + offset, and what their spreads need of it (Chan,
// Golub, LeVeque 1979).
// #import tables
// #import arithmetic/rounded
// #import arithmetic/shares

struct Union {
    count: u32,
    pivot: f32,
    offset: f32,
    // The shares of a and of b in the union, and how far its mean is above a's and below b's: the products of these
    // two are what lies between the sets of the spread, a mean like the spreads themselves.
    share_a: f32,
    share_b: f32,
    to_a: f32,
    to_b: f32,
}

// Neither set may be empty. The mean can be written relative to either pivot: the sum with the smaller
// terms, and so the smaller rounding, is taken. Offsets shrink as sets grow, an outlier does not stay
// pivot, and a few outliers do not become one. (With NaN either will do: both sums are NaN then.)
fn unite(
    a_count: u32,
    a_pivot: f32,
    a_offset: f32,
    b_count: u32,
    b_pivot: f32,
    b_offset: f32,
) -> Union {
    let count = a_count + b_count;
    let share = shares(a_count, b_count);
    let delta = rounded(b_pivot - a_pivot) + (b_offset - a_offset);
    let to_a = delta * share.y;
    let to_b = delta * share.x;
    let keep_a = max(abs(a_offset), abs(to_a)) <= max(abs(b_offset), abs(to_b));
    return Union(
        count,
        select(b_pivot, a_pivot, keep_a),
        select(b_offset - to_b, a_offset + to_a, keep_a),
        share.x,
        share.y,
        to_a,
        to_b,
    );
}

// Moments of the union of two sets from the moments of each.
fn merge_moments(a: Moments, b: Moments) -> Moments {
    if (b.count == 0u) {
        return a;
    }
    if (a.count == 0u) {
        return b;
    }
    let both = unite(a.count, a.pivot, a.offset, b.count, b.pivot, b.offset);
    let within = a.variance * both.share_a + b.variance * both.share_b;
    return Moments(both.count, both.pivot, both.offset, within + both.to_a * both.to_b);
}

// A second look at the entries of a table from the mean that merging found: what is left of the mean,
// and the spread about it. The result no longer depends on the order of the merges.
fn second_look(part: Moments, all: Moments) -> vec2<f32> {
    let delta = rounded(part.pivot - all.pivot) + (part.offset - all.offset);
    let share = f32(part.count) / max(f32(all.count), 1.0);
    return vec2<f32>(share * delta, share * part.variance + (share * delta) * delta);
}

fn after_second_look(all: Moments, left: vec2<f32>) -> Moments {
    return Moments(all.count, all.pivot, all.offset + left.x, left.y);
}

// merge_moments for dy and its covariance with u = x - row mean, about both means.
fn merge_products(a: Products, b: Products) -> Products {
    if (b.count == 0u) {
        return a;
    }
    if (a.count == 0u) {
        return b;
    }
    let both = unite(a.count, a.pivot, a.offset, b.count, b.pivot, b.offset);
    let x_delta = b.x_mean - a.x_mean;
    let to_x = x_delta * both.share_b;
    let within = a.covariance * both.share_a + b.covariance * both.share_b;
    return Products(both.count, both.pivot, both.offset, a.x_mean + to_x, within + both.to_b * to_x);
}
