// Backward 1. LANES invocations own one part of one row and write the mean of dy and its product
// with u = x - row mean. One read of x, one of dy.
//
// As in row_moments, a chunk's dy are taken about the chunk's own first one, then merged: neither a
// large mean of dy nor an outlier among them, wherever it stands, harms more than its own chunk.
@group(0) @binding(1) var<storage, read> x: array<Word>;
@group(0) @binding(2) var<storage, read> grad_y: array<Word>;
@group(0) @binding(3) var<storage, read> rows: array<Moments>;
@group(0) @binding(4) var<storage, read_write> product_parts: array<Products>;

fn x_above(word: Word, row: Moments) -> Word {
    return rounded_word(word - Word(row.pivot)) - Word(row.offset);
}

// From the chunk's sums of v = dy - pivot, of u and of v u.
fn chunk_products(count: u32, pivot: f32, sum: Word, x_sum: Word, product: Word) -> Products {
    let n = f32(count);
    let offset = word_sum(sum) / n;
    let u = word_sum(x_sum);
    return Products(count, pivot, offset, u / n, word_sum(product) - offset * u);
}

fn whole_chunk(first: u32, row: Moments) -> Products {
    let g0 = grad_y[first];
    let g1 = grad_y[first + LANES];
    let g2 = grad_y[first + 2u * LANES];
    let g3 = grad_y[first + 3u * LANES];
    let u0 = x_above(x[first], row);
    let u1 = x_above(x[first + LANES], row);
    let u2 = x_above(x[first + 2u * LANES], row);
    let u3 = x_above(x[first + 3u * LANES], row);
    let pivot = word_at(g0, 0u);
    let g = Word(pivot);
    let v0 = rounded_word(g0 - g);
    let v1 = rounded_word(g1 - g);
    let v2 = rounded_word(g2 - g);
    let v3 = rounded_word(g3 - g);
    return chunk_products(
        CHUNK * WIDTH,
        pivot,
        (v0 + v1) + (v2 + v3),
        (u0 + u1) + (u2 + u3),
        (v0 * u0 + v1 * u1) + (v2 * u2 + v3 * u3),
    );
}

fn loose_chunk(span: Span, q: u32, row: Moments) -> Products {
    let i0 = loose_word(span, q);
    let i1 = loose_word(span, q + LANES);
    let i2 = loose_word(span, q + 2u * LANES);
    let i3 = loose_word(span, q + 3u * LANES);
    let m0 = loose_mask(span, i0);
    let m1 = loose_mask(span, i1);
    let m2 = loose_mask(span, i2);
    let m3 = loose_mask(span, i3);
    let g0 = grad_y[i0];
    // The first element of the span in the first word.
    let pivot = word_at(g0, max(span.begin, i0 * WIDTH) - i0 * WIDTH);
    let g = Word(pivot);
    let zero = Word(0.0);
    var v0 = rounded_word(g0 - g);
    var v1 = zero;
    var v2 = zero;
    var v3 = zero;
    var u0 = x_above(x[i0], row);
    var u1 = zero;
    var u2 = zero;
    var u3 = zero;
    // Words behind the last loose one may lie behind the tensor.
    if (q + LANES < span.loose) {
        v1 = rounded_word(grad_y[i1] - g);
        u1 = x_above(x[i1], row);
    }
    if (q + 2u * LANES < span.loose) {
        v2 = rounded_word(grad_y[i2] - g);
        u2 = x_above(x[i2], row);
    }
    if (q + 3u * LANES < span.loose) {
        v3 = rounded_word(grad_y[i3] - g);
        u3 = x_above(x[i3], row);
    }
    v0 = select(zero, v0, m0);
    v1 = select(zero, v1, m1);
    v2 = select(zero, v2, m2);
    v3 = select(zero, v3, m3);
    u0 = select(zero, u0, m0);
    u1 = select(zero, u1, m1);
    u2 = select(zero, u2, m2);
    u3 = select(zero, u3, m3);
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
    let active_item = item < params.items;
    let span = part_span(min(item, params.items - 1u));
    let row = rows[span.row];

    var products = Products(0u, 0.0, 0.0, 0.0, 0.0);
    for (var i = 0u; i < span.chunks; i = i + 1u) {
        products = merge_products(products, whole_chunk(span.whole + i * (CHUNK * LANES) + lane, row));
    }
    for (var q = lane; q < span.loose; q = q + CHUNK * LANES) {
        products = merge_products(products, loose_chunk(span, q, row));
    }
    products = reduce_products(products, local);
    if (active_item && lane == 0u) {
        product_parts[item] = products;
    }
}
