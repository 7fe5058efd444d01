// Forward 1 with channels last. LANES invocations own one word of channels over one part of a
// sample's positions and write its moments, a row a channel. One read of x.
//
// As in row_moments, for each channel: a chunk's exact mean about the chunk's first value, squared
// differences from it, then a merge.
// #import spec
// #import params/columns
// #import tables
// #import storage/f32
// #import arithmetic/rounded_word
// #import arithmetic/column_moments
// #import layout/column
// #import reduction/columns_serial

@group(0) @binding(1) var<storage, read> x: array<Stored>;
@group(0) @binding(2) var<storage, read_write> row_parts: array<StoredMoments>;

// Positions of a chunk, LANES apart.
const CHUNK: u32 = 8u;

// The k-th word of a chunk of `count`; behind its last, the first one again.
fn chunk_word(first: u32, k: u32, count: u32) -> Word {
    let i = select(first, first + k * (LANES * params.split.words_per_position), k < count);
    return load(x[slot(i)], i);
}

// Where `count` is CHUNK itself, nothing is left of the masks.
fn chunk_moments(first: u32, count: u32) -> ColumnMoments {
    let pivot = chunk_word(first, 0u, count);
    let w1 = chunk_word(first, 1u, count);
    let w2 = chunk_word(first, 2u, count);
    let w3 = chunk_word(first, 3u, count);
    let w4 = chunk_word(first, 4u, count);
    let w5 = chunk_word(first, 5u, count);
    let w6 = chunk_word(first, 6u, count);
    let w7 = chunk_word(first, 7u, count);
    // What is not there differs from the first by 0 (or, as the first itself, by NaN): no masks yet.
    let d0 = rounded_word(pivot - pivot);
    let d1 = rounded_word(w1 - pivot);
    let d2 = rounded_word(w2 - pivot);
    let d3 = rounded_word(w3 - pivot);
    let d4 = rounded_word(w4 - pivot);
    let d5 = rounded_word(w5 - pivot);
    let d6 = rounded_word(w6 - pivot);
    let d7 = rounded_word(w7 - pivot);
    let offset = (((d0 + d1) + (d2 + d3)) + ((d4 + d5) + (d6 + d7))) / f32(count);
    let zero = Word(0.0);
    // Divided by 4, exactly, as in row_moments.
    let o = 0.25 * offset;
    let e0 = 0.25 * d0 - o;
    let e1 = select(zero, 0.25 * d1 - o, 1u < count);
    let e2 = select(zero, 0.25 * d2 - o, 2u < count);
    let e3 = select(zero, 0.25 * d3 - o, 3u < count);
    let e4 = select(zero, 0.25 * d4 - o, 4u < count);
    let e5 = select(zero, 0.25 * d5 - o, 5u < count);
    let e6 = select(zero, 0.25 * d6 - o, 6u < count);
    let e7 = select(zero, 0.25 * d7 - o, 7u < count);
    let low = (e0 * e0 + e1 * e1) + (e2 * e2 + e3 * e3);
    let high = (e4 * e4 + e5 * e5) + (e6 * e6 + e7 * e7);
    return ColumnMoments(count, pivot, offset, (low + high) * (16.0 / f32(count)));
}

// After a chunk more.
fn and_chunk(moments: ColumnMoments, span: ColumnSpan, first: u32, count: u32) -> ColumnMoments {
    return merge_column_moments(moments, chunk_moments(column_word(span, first), count));
}

fn put(span: ColumnSpan, moments: ColumnMoments) {
    for (var i = 0u; i < WIDTH; i = i + 1u) {
        row_parts[(span.row + i) * params.split.parts + span.part] = stored_moments(Moments(
            moments.count,
            word_at(moments.pivot, i),
            word_at(moments.offset, i),
            word_at(moments.variance, i),
        ));
    }
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn column_moments(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let item = column_item(workgroup, num_workgroups, local);
    let lane = column_lane(local);
    let active_item = item < params.dispatch.items;
    let span = column_span(min(item, params.dispatch.items - 1u));

    var moments: array<ColumnMoments, COLUMN_WORDS>;
    let chunks = (span.end - span.begin) / (CHUNK * LANES);
    for (var i = 0u; i < chunks; i = i + 1u) {
        let first = span.begin + i * (CHUNK * LANES) + lane;
        for (var k = 0u; k < COLUMN_WORDS; k = k + 1u) {
            moments[k] = and_chunk(moments[k], neighbour_span(span, k), first, CHUNK);
        }
    }
    // At most CHUNK positions a lane are left.
    let first = span.begin + chunks * (CHUNK * LANES) + lane;
    if (first < span.end) {
        let count = (span.end - first + LANES - 1u) / LANES;
        for (var k = 0u; k < COLUMN_WORDS; k = k + 1u) {
            moments[k] = and_chunk(moments[k], neighbour_span(span, k), first, count);
        }
    }
    // With more words there is one lane.
    moments[0] = reduce_column_moments(moments[0], local);
    if (active_item && lane == 0u) {
        for (var k = 0u; k < COLUMN_WORDS; k = k + 1u) {
            put(neighbour_span(span, k), moments[k]);
        }
    }
}
