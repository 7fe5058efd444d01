// As moments.wgsl, for the channels of a word at once: their sets are of one size.
// #import storage/word_x4
// #import arithmetic/rounded_word
// #import arithmetic/shares

struct ColumnMoments {
    count: u32,
    pivot: Word,
    offset: Word,
    variance: Word,
}

struct ColumnProducts {
    count: u32,
    pivot: Word,
    offset: Word,
    x_mean: Word,
    covariance: Word,
}

// See moments.wgsl.
struct ColumnUnion {
    count: u32,
    pivot: Word,
    offset: Word,
    share_a: f32,
    share_b: f32,
    to_a: Word,
    to_b: Word,
}

// Neither set may be empty.
fn unite_columns(
    a_count: u32,
    a_pivot: Word,
    a_offset: Word,
    b_count: u32,
    b_pivot: Word,
    b_offset: Word,
) -> ColumnUnion {
    let count = a_count + b_count;
    let share = shares(a_count, b_count);
    let delta = rounded_word(b_pivot - a_pivot) + (b_offset - a_offset);
    let to_a = delta * share.y;
    let to_b = delta * share.x;
    // The smaller terms, for each channel. NaN: either will do, both sums are NaN.
    let keep_a = max(abs(a_offset), abs(to_a)) <= max(abs(b_offset), abs(to_b));
    return ColumnUnion(
        count,
        select(b_pivot, a_pivot, keep_a),
        select(b_offset - to_b, a_offset + to_a, keep_a),
        share.x,
        share.y,
        to_a,
        to_b,
    );
}

fn merge_column_moments(a: ColumnMoments, b: ColumnMoments) -> ColumnMoments {
    if (b.count == 0u) {
        return a;
    }
    if (a.count == 0u) {
        return b;
    }
    let both = unite_columns(a.count, a.pivot, a.offset, b.count, b.pivot, b.offset);
    let within = a.variance * both.share_a + b.variance * both.share_b;
    return ColumnMoments(both.count, both.pivot, both.offset, within + both.to_a * both.to_b);
}

fn merge_column_products(a: ColumnProducts, b: ColumnProducts) -> ColumnProducts {
    if (b.count == 0u) {
        return a;
    }
    if (a.count == 0u) {
        return b;
    }
    let both = unite_columns(a.count, a.pivot, a.offset, b.count, b.pivot, b.offset);
    let x_delta = b.x_mean - a.x_mean;
    let to_x = x_delta * both.share_b;
    let within = a.covariance * both.share_a + b.covariance * both.share_b;
    return ColumnProducts(both.count, both.pivot, both.offset, a.x_mean + to_x, within + both.to_b * to_x);
}
