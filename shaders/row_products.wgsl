// Backward 1. LANES invocations own one part of one row and write its sums of dy - g and of
// (dy - g) u, with u = x - row mean and the pivot g = the row's first dy: subtracting any constant
// from dy leaves the second sum alone (the u of a row sum to 0) and keeps a large mean of dy out of
// both. One read of x, one of dy.
@group(0) @binding(1) var<storage, read> x: array<Word>;
@group(0) @binding(2) var<storage, read> grad_y: array<Word>;
@group(0) @binding(3) var<storage, read> rows: array<Moments>;
@group(0) @binding(4) var<storage, read_write> product_parts: array<Products>;

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
    let row_begin = span.row * params.row_len;
    let pivot = word_at(grad_y[row_begin / WIDTH], row_begin % WIDTH);
    let k = Word(row.pivot);
    let d = Word(row.offset);
    let g = Word(pivot);
    let zero = Word(0.0);

    var sum = zero;
    var product = zero;
    for (var i = 0u; i < span.chunks; i = i + 1u) {
        let first = span.whole + i * (CHUNK * LANES) + lane;
        let v0 = grad_y[first] - g;
        let v1 = grad_y[first + LANES] - g;
        let v2 = grad_y[first + 2u * LANES] - g;
        let v3 = grad_y[first + 3u * LANES] - g;
        let u0 = (x[first] - k) - d;
        let u1 = (x[first + LANES] - k) - d;
        let u2 = (x[first + 2u * LANES] - k) - d;
        let u3 = (x[first + 3u * LANES] - k) - d;
        sum = sum + ((v0 + v1) + (v2 + v3));
        product = product + ((v0 * u0 + v1 * u1) + (v2 * u2 + v3 * u3));
    }
    for (var q = lane; q < span.loose; q = q + LANES) {
        let i = loose_word(span, q);
        let mask = loose_mask(span, i);
        let v = select(zero, grad_y[readable(i)] - g, mask);
        let u = select(zero, (x[readable(i)] - k) - d, mask);
        sum = sum + v;
        product = product + v * u;
    }
    let pair = reduce_pair(vec2<f32>(word_sum(sum), word_sum(product)), local);
    if (active_item && lane == 0u) {
        product_parts[item] = Products(pivot, pair.x, pair.y, 0.0);
    }
}
