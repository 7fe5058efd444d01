// Forward 4 with channels last, and what is fused to it: y = activation(norm(x) + residual). One read
// of x (of y, in place) and of the residual, one write of y.
//
// ALIGNED: LANES invocations own one word of channels over one part of a sample's positions, and keep
// the maps of its rows. Else (16 bits, an odd number of channels) an invocation owns every items-th word of the window,
// and each of its two elements looks its row up.
// #import spec
// #import params/columns
// #import tables
// #import storage/f32
// #import arithmetic/activation
// #import layout/item
// #import layout/column
// #import layout/column_pairs

// #if x
@group(0) @binding(1) var<storage, read> x: array<Stored>;
// #end
@group(0) @binding(2) var<storage, read> coefficients: array<StoredAffine>;
// #if residual
@group(0) @binding(3) var<storage, read> residual: array<Stored>;
// #end
@group(0) @binding(4) var<storage, read_write> y: array<Stored>;

fn x_at(i: u32) -> Word {
    var word: Word;
    // #if x
    word = load(x[slot(i)], i);
    // #else
    // In place, x is in y.
    word = load(y[slot(i)], i);
    // #end
    return word;
}

fn map(i: u32, word: Word, a: ColumnAffine) -> Word {
    var t = normalized_columns(word, a);
    // #if residual
    t = t + load(residual[slot(i)], i);
    // #end
    return activate(t);
}

fn known_affine(span: ColumnSpan) -> ColumnAffine {
    let zero = Word(0.0);
    var a = ColumnAffine(zero, zero, zero, zero);
    a = with_affine(a, 0u, affine_of(coefficients[span.row]));
    if (WIDTH > 1u) {
        a = with_affine(a, 1u, affine_of(coefficients[span.row + 1u]));
    }
    if (WIDTH > 2u) {
        a = with_affine(a, 2u, affine_of(coefficients[span.row + 2u]));
        a = with_affine(a, 3u, affine_of(coefficients[span.row + 3u]));
    }
    return a;
}

fn own_positions(span: ColumnSpan, lane: u32) {
    let a = known_affine(span);
    let step = LANES * params.split.words_per_position;
    let chunks = (span.end - span.begin) / (4u * LANES);
    for (var i = 0u; i < chunks; i = i + 1u) {
        let i0 = column_word(span, span.begin + i * (4u * LANES) + lane);
        let i1 = i0 + step;
        let i2 = i1 + step;
        let i3 = i2 + step;
        let w0 = x_at(i0);
        let w1 = x_at(i1);
        let w2 = x_at(i2);
        let w3 = x_at(i3);
        let y0 = map(i0, w0, a);
        let y1 = map(i1, w1, a);
        let y2 = map(i2, w2, a);
        let y3 = map(i3, w3, a);
        y[i0] = store(y0);
        y[i1] = store(y1);
        y[i2] = store(y2);
        y[i3] = store(y3);
    }
    // What is left, less than a chunk: all of it is read before any of it is written, too. (Behind its end the first
    // word is read again.)
    let p0 = span.begin + chunks * (4u * LANES) + lane;
    let p1 = p0 + LANES;
    let p2 = p1 + LANES;
    let p3 = p2 + LANES;
    if (p0 < span.end) {
        let i0 = column_word(span, p0);
        let i1 = select(i0, i0 + step, p1 < span.end);
        let i2 = select(i0, i0 + 2u * step, p2 < span.end);
        let i3 = select(i0, i0 + 3u * step, p3 < span.end);
        let w0 = x_at(i0);
        let w1 = x_at(i1);
        let w2 = x_at(i2);
        let w3 = x_at(i3);
        let y0 = map(i0, w0, a);
        let y1 = map(i1, w1, a);
        let y2 = map(i2, w2, a);
        let y3 = map(i3, w3, a);
        y[i0] = store(y0);
        if (p1 < span.end) {
            y[i1] = store(y1);
        }
        if (p2 < span.end) {
            y[i2] = store(y2);
        }
        if (p3 < span.end) {
            y[i3] = store(y3);
        }
    }
}

// The words of an invocation, position by position.
fn own_words(span: ColumnSpan) {
    var a: array<ColumnAffine, COLUMN_WORDS>;
    for (var k = 0u; k < COLUMN_WORDS; k = k + 1u) {
        a[k] = known_affine(neighbour_span(span, k));
    }
    for (var p = span.begin; p < span.end; p = p + 1u) {
        let first = column_word(span, p);
        for (var k = 0u; k < COLUMN_WORDS; k = k + 1u) {
            let i = first + k;
            y[i] = store(map(i, x_at(i), a[k]));
        }
    }
}

fn own_pair(i: u32) {
    let zero = Word(0.0);
    let e0 = first_element(i);
    let e1 = next_element(e0);
    var a = ColumnAffine(zero, zero, zero, zero);
    a = with_affine(a, 0u, affine_of(coefficients[element_row(e0)]));
    a = with_affine(a, 1u, affine_of(coefficients[element_row(e1)]));
    // Behind the tensor, 0.
    let inside = word_mask(0u, 0u, select(1u, WIDTH, is_element(e1)));
    y[i] = store(select(zero, map(i, x_at(i), a), inside));
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn column_affine(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let item = column_item(workgroup, num_workgroups, local);
    if (item >= params.dispatch.items) {
        return;
    }
    if (COLUMN_WORDS > 1u) {
        own_words(column_span(item));
    } else if (ALIGNED) {
        own_positions(column_span(reversed_item(item)), column_lane(local));
    } else if (item < params.split.num_words) {
        let last = (params.split.num_words - 1u - item) / params.dispatch.items;
        for (var i = 0u; i <= last; i = i + 1u) {
            own_pair(item + i * params.dispatch.items);
        }
    }
}
