// Backward 1. LANES invocations own one part of one row and write its sums of dy - g, of (dy - g) u
// and of u, with u = x - row mean and the pivot g = the row's first dy: subtracting any constant from
// dy leaves the second sum alone (the u of a row sum to 0) and keeps a large mean of dy out of both.
// The third sum is what the rounding of the row's mean left. One read of x, one of dy.
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

    // A sum for each word of a chunk: as many additions, a quarter of the rounding in a row.
    var sum0 = zero;
    var sum1 = zero;
    var sum2 = zero;
    var sum3 = zero;
    var x_sum = zero;
    var product0 = zero;
    var product1 = zero;
    var product2 = zero;
    var product3 = zero;
    for (var i = 0u; i < span.chunks; i = i + 1u) {
        let first = span.whole + i * (CHUNK * LANES) + lane;
        let v0 = grad_y[first] - g;
        let v1 = grad_y[first + LANES] - g;
        let v2 = grad_y[first + 2u * LANES] - g;
        let v3 = grad_y[first + 3u * LANES] - g;
        let u0 = rounded_word(x[first] - k) - d;
        let u1 = rounded_word(x[first + LANES] - k) - d;
        let u2 = rounded_word(x[first + 2u * LANES] - k) - d;
        let u3 = rounded_word(x[first + 3u * LANES] - k) - d;
        sum0 = sum0 + v0;
        sum1 = sum1 + v1;
        sum2 = sum2 + v2;
        sum3 = sum3 + v3;
        x_sum = x_sum + ((u0 + u1) + (u2 + u3));
        product0 = product0 + v0 * u0;
        product1 = product1 + v1 * u1;
        product2 = product2 + v2 * u2;
        product3 = product3 + v3 * u3;
    }
    var sum = (sum0 + sum1) + (sum2 + sum3);
    var product = (product0 + product1) + (product2 + product3);
    for (var q = lane; q < span.loose; q = q + LANES) {
        let i = loose_word(span, q);
        let mask = loose_mask(span, i);
        let v = select(zero, grad_y[i] - g, mask);
        let u = select(zero, rounded_word(x[i] - k) - d, mask);
        sum = sum + v;
        x_sum = x_sum + u;
        product = product + v * u;
    }
    let sums = reduce_sums(vec4<f32>(word_sum(sum), word_sum(product), word_sum(x_sum), 0.0), local);
    if (active_item && lane == 0u) {
        product_parts[item] = Products(pivot, sums.x, sums.y, sums.z);
    }
}
