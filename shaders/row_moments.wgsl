// Forward 1. LANES invocations own one part of one row and write its moments. One read of x.
//
// Each lane takes chunks of CHUNK words: exact local mean about the chunk's own first value, squared
// differences from it, then a merge. No sum of squares, no long-lived pivot. Differences are divided by 4 before they
// are squared, exactly: 16 of these squares are the mean of 16, and fit wherever that does.
// #import spec
// #import params/rows
// #import tables
// #import storage/f32
// #import arithmetic/rounded_word
// #import arithmetic/moments
// #import layout/item
// #import layout/span
// #import reduction/serial

@group(0) @binding(1) var<storage, read> x: array<Stored>;
@group(0) @binding(2) var<storage, read_write> row_parts: array<StoredMoments>;

fn word(i: u32) -> Word {
    return load(x[slot(i)], i);
}

fn whole_chunk(first: u32) -> Moments {
    let w0 = word(first);
    let w1 = word(first + LANES);
    let w2 = word(first + 2u * LANES);
    let w3 = word(first + 3u * LANES);
    let count = CHUNK * WIDTH;
    let pivot = word_at(w0, 0u);
    let k = Word(pivot);
    let d0 = rounded_word(w0 - k);
    let d1 = rounded_word(w1 - k);
    let d2 = rounded_word(w2 - k);
    let d3 = rounded_word(w3 - k);
    let offset = word_sum((d0 + d1) + (d2 + d3)) / f32(count);
    let o = Word(0.25 * offset);
    let e0 = 0.25 * d0 - o;
    let e1 = 0.25 * d1 - o;
    let e2 = 0.25 * d2 - o;
    let e3 = 0.25 * d3 - o;
    let squares = word_sum((e0 * e0 + e1 * e1) + (e2 * e2 + e3 * e3));
    return Moments(count, pivot, offset, squares * (16.0 / f32(count)));
}

fn loose_chunk(span: Span, q: u32) -> Moments {
    let i0 = loose_word(span, q);
    let i1 = loose_word(span, q + LANES);
    let i2 = loose_word(span, q + 2u * LANES);
    let i3 = loose_word(span, q + 3u * LANES);
    let w0 = word(i0);
    var w1 = Word(0.0);
    var w2 = Word(0.0);
    var w3 = Word(0.0);
    // Words behind the last loose one may lie behind the window.
    if (q + LANES < span.loose) {
        w1 = word(i1);
    }
    if (q + 2u * LANES < span.loose) {
        w2 = word(i2);
    }
    if (q + 3u * LANES < span.loose) {
        w3 = word(i3);
    }
    let m0 = loose_mask(span, i0);
    let m1 = loose_mask(span, i1);
    let m2 = loose_mask(span, i2);
    let m3 = loose_mask(span, i3);
    let count = (mask_count(m0) + mask_count(m1)) + (mask_count(m2) + mask_count(m3));
    let pivot = word_at(w0, loose_first(span, i0));
    let k = Word(pivot);
    let zero = Word(0.0);
    let d0 = select(zero, rounded_word(w0 - k), m0);
    let d1 = select(zero, rounded_word(w1 - k), m1);
    let d2 = select(zero, rounded_word(w2 - k), m2);
    let d3 = select(zero, rounded_word(w3 - k), m3);
    let offset = word_sum((d0 + d1) + (d2 + d3)) / f32(count);
    let o = Word(0.25 * offset);
    let e0 = select(zero, 0.25 * d0 - o, m0);
    let e1 = select(zero, 0.25 * d1 - o, m1);
    let e2 = select(zero, 0.25 * d2 - o, m2);
    let e3 = select(zero, 0.25 * d3 - o, m3);
    let squares = word_sum((e0 * e0 + e1 * e1) + (e2 * e2 + e3 * e3));
    return Moments(count, pivot, offset, squares * (16.0 / f32(count)));
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn row_moments(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let item = item_index(workgroup, num_workgroups, local);
    let lane = local % LANES;
    let active_item = item < params.dispatch.items;
    let span = part_span(min(item, params.dispatch.items - 1u));

    var moments = Moments(0u, 0.0, 0.0, 0.0);
    for (var i = 0u; i < span.chunks; i = i + 1u) {
        moments = merge_moments(moments, whole_chunk(span.whole + i * (CHUNK * LANES) + lane));
    }
    for (var q = lane; q < span.loose; q = q + CHUNK * LANES) {
        moments = merge_moments(moments, loose_chunk(span, q));
    }
    moments = reduce_moments(moments, local);
    if (active_item && lane == 0u) {
        row_parts[item + params.dispatch.first_item] = stored_moments(moments);
    }
}
