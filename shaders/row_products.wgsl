// Backward 1. LANES invocations own one part of one row and write the mean of dy and its covariance
// with u = x - row mean. One read of x, one of dy; with an activation, dy is what comes out of it
// backward, and one read of the residual, if there is one.
//
// As in row_moments, a chunk's dy are taken about the chunk's own first one, then merged: neither a
// large mean of dy nor an outlier among them, wherever it stands, harms more than its own chunk.
// #import spec
// #import params/rows
// #import tables
// #import storage/f32
// #import arithmetic/activation
// #import arithmetic/moments
// #import layout/item
// #import layout/span
// #import reduction/serial

@group(0) @binding(1) var<storage, read> x: array<Stored>;
@group(0) @binding(2) var<storage, read> grad_y: array<Stored>;
@group(0) @binding(3) var<storage, read> rows: array<StoredMoments>;
// #if coefficients
@group(0) @binding(4) var<storage, read> coefficients: array<StoredAffine>;
// #end
// #if residual
@group(0) @binding(5) var<storage, read> residual: array<Stored>;
// #end
@group(0) @binding(6) var<storage, read_write> product_parts: array<Products>;

// What a row's words need of it.
struct Row {
    moments: Moments,
    forward: Affine,
}

fn row_at(row: u32) -> Row {
    var forward = Affine(0.0, 0.0, 0.0, 0.0);
    // #if coefficients
    forward = affine_of(coefficients[row]);
    // #end
    return Row(moments_of(rows[row]), forward);
}

// u and dy.
struct Pair {
    u: Word,
    g: Word,
}

fn pair_at(i: u32, row: Row) -> Pair {
    let word = load(x[slot(i)], i);
    var g = load(grad_y[slot(i)], i);
    // #if coefficients
    let a = row.forward;
    var t = normalized(word, Word(a.pivot), Word(a.offset), Word(a.scale), Word(a.shift));
    // #if residual
    t = t + load(residual[slot(i)], i);
    // #end
    g = activation_gradient(t, g);
    // #end
    return Pair(rounded_word(word - Word(row.moments.pivot)) - Word(row.moments.offset), g);
}

// From the chunk's sums of v = dy - pivot, of u and of v u.
fn chunk_products(count: u32, pivot: f32, sum: Word, x_sum: Word, product: Word) -> Products {
    let n = f32(count);
    let offset = word_sum(sum) / n;
    let u = word_sum(x_sum);
    return Products(count, pivot, offset, u / n, (word_sum(product) - offset * u) / n);
}

fn whole_chunk(first: u32, row: Row) -> Products {
    let p0 = pair_at(first, row);
    let p1 = pair_at(first + LANES, row);
    let p2 = pair_at(first + 2u * LANES, row);
    let p3 = pair_at(first + 3u * LANES, row);
    let pivot = word_at(p0.g, 0u);
    let g = Word(pivot);
    let v0 = rounded_word(p0.g - g);
    let v1 = rounded_word(p1.g - g);
    let v2 = rounded_word(p2.g - g);
    let v3 = rounded_word(p3.g - g);
    return chunk_products(
        CHUNK * WIDTH,
        pivot,
        (v0 + v1) + (v2 + v3),
        (p0.u + p1.u) + (p2.u + p3.u),
        (v0 * p0.u + v1 * p1.u) + (v2 * p2.u + v3 * p3.u),
    );
}

fn loose_chunk(span: Span, q: u32, row: Row) -> Products {
    let i0 = loose_word(span, q);
    let i1 = loose_word(span, q + LANES);
    let i2 = loose_word(span, q + 2u * LANES);
    let i3 = loose_word(span, q + 3u * LANES);
    let m0 = loose_mask(span, i0);
    let m1 = loose_mask(span, i1);
    let m2 = loose_mask(span, i2);
    let m3 = loose_mask(span, i3);
    let zero = Word(0.0);
    let p0 = pair_at(i0, row);
    var p1 = Pair(zero, zero);
    var p2 = Pair(zero, zero);
    var p3 = Pair(zero, zero);
    // Words behind the last loose one may lie behind the window.
    if (q + LANES < span.loose) {
        p1 = pair_at(i1, row);
    }
    if (q + 2u * LANES < span.loose) {
        p2 = pair_at(i2, row);
    }
    if (q + 3u * LANES < span.loose) {
        p3 = pair_at(i3, row);
    }
    let pivot = word_at(p0.g, loose_first(span, i0));
    let g = Word(pivot);
    let v0 = select(zero, rounded_word(p0.g - g), m0);
    let v1 = select(zero, rounded_word(p1.g - g), m1);
    let v2 = select(zero, rounded_word(p2.g - g), m2);
    let v3 = select(zero, rounded_word(p3.g - g), m3);
    let u0 = select(zero, p0.u, m0);
    let u1 = select(zero, p1.u, m1);
    let u2 = select(zero, p2.u, m2);
    let u3 = select(zero, p3.u, m3);
    return chunk_products(
        (mask_count(m0) + mask_count(m1)) + (mask_count(m2) + mask_count(m3)),
        pivot,
        (v0 + v1) + (v2 + v3),
        (u0 + u1) + (u2 + u3),
        (v0 * u0 + v1 * u1) + (v2 * u2 + v3 * u3),
    );
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn row_products(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let item = item_index(workgroup, num_workgroups, local);
    let lane = local % LANES;
    let active_item = item < params.dispatch.items;
    let span = part_span(min(item, params.dispatch.items - 1u));
    let row = row_at(span.row);

    var products = Products(0u, 0.0, 0.0, 0.0, 0.0);
    for (var i = 0u; i < span.chunks; i = i + 1u) {
        products = merge_products(products, whole_chunk(span.whole + i * (CHUNK * LANES) + lane, row));
    }
    for (var q = lane; q < span.loose; q = q + CHUNK * LANES) {
        products = merge_products(products, loose_chunk(span, q, row));
    }
    products = reduce_products(products, local);
    if (active_item && lane == 0u) {
        product_parts[item + params.dispatch.first_item] = products;
    }
}
