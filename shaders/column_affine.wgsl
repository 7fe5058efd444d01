// Forward 4 with channels last, and what is fused to it: y = activation(norm(x) + residual). One read
// of x (of y, in place) and of the residual, one write of y.
//
// ALIGNED: LANES invocations own one word of channels over one part of a sample's positions, and keep
// the maps of its rows. Else an invocation owns every items-th word of the window, and every element
// of a word looks its row up.
@group(0) @binding(1) var<storage, read> x: array<Stored>;
@group(0) @binding(2) var<storage, read> coefficients: array<StoredAffine>;
@group(0) @binding(3) var<storage, read> residual: array<Stored>;
@group(0) @binding(4) var<storage, read_write> y: array<Stored>;

// The first `count` elements of a word. In place, x is in y.
fn read_x(grain: u32, count: u32) -> Word {
    if (HAS_X) {
        return load_x(grain, count);
    }
    return load_y(grain, count);
}

fn apply(grain: u32, count: u32, word: Word, a: ColumnAffine) -> Word {
    var t = normalized_columns(word, a);
    if (HAS_RESIDUAL) {
        t = t + load_residual(grain, count);
    }
    return activate(t);
}

fn known_affine(span: ColumnSpan) -> ColumnAffine {
    let zero = Word(0.0);
    var a = ColumnAffine(zero, zero, zero, zero);
    a = with_affine(a, 0u, affine_of(coefficients[row_of(span, 0u)]));
    if (WIDTH > 1u) {
        a = with_affine(a, 1u, affine_of(coefficients[row_of(span, 1u)]));
    }
    if (WIDTH > 2u) {
        a = with_affine(a, 2u, affine_of(coefficients[row_of(span, 2u)]));
        a = with_affine(a, 3u, affine_of(coefficients[row_of(span, 3u)]));
    }
    return a;
}

fn own_positions(span: ColumnSpan, lane: u32) {
    let a = known_affine(span);
    let count = span.count;
    let step = LANES * position_grains();
    let chunks = (span.end - span.begin) / (4u * LANES);
    for (var i = 0u; i < chunks; i = i + 1u) {
        let i0 = column_grain(span, span.begin + i * (4u * LANES) + lane);
        let i1 = i0 + step;
        let i2 = i1 + step;
        let i3 = i2 + step;
        let w0 = read_x(i0, count);
        let w1 = read_x(i1, count);
        let w2 = read_x(i2, count);
        let w3 = read_x(i3, count);
        let y0 = apply(i0, count, w0, a);
        let y1 = apply(i1, count, w1, a);
        let y2 = apply(i2, count, w2, a);
        let y3 = apply(i3, count, w3, a);
        store_y(i0, y0, count);
        store_y(i1, y1, count);
        store_y(i2, y2, count);
        store_y(i3, y3, count);
    }
    // What is left, less than a chunk: all of it is read before any of it is written, too. (Behind its end the first
    // word is read again.)
    let p0 = span.begin + chunks * (4u * LANES) + lane;
    let p1 = p0 + LANES;
    let p2 = p1 + LANES;
    let p3 = p2 + LANES;
    if (p0 < span.end) {
        let i0 = column_grain(span, p0);
        let i1 = select(i0, i0 + step, p1 < span.end);
        let i2 = select(i0, i0 + 2u * step, p2 < span.end);
        let i3 = select(i0, i0 + 3u * step, p3 < span.end);
        let w0 = read_x(i0, count);
        let w1 = read_x(i1, count);
        let w2 = read_x(i2, count);
        let w3 = read_x(i3, count);
        let y0 = apply(i0, count, w0, a);
        let y1 = apply(i1, count, w1, a);
        let y2 = apply(i2, count, w2, a);
        let y3 = apply(i3, count, w3, a);
        store_y(i0, y0, count);
        if (p1 < span.end) {
            store_y(i1, y1, count);
        }
        if (p2 < span.end) {
            store_y(i2, y2, count);
        }
        if (p3 < span.end) {
            store_y(i3, y3, count);
        }
    }
}

// The words of an invocation, position by position.
fn own_words(span: ColumnSpan) {
    let a# = known_affine(neighbour_span(span, #u));
    let count = span.count;
    for (var p = span.begin; p < span.end; p = p + 1u) {
        let i = column_grain(span, p);
        let w# = read_x(i + #u * GRAINS, count);
        let y# = apply(i + #u * GRAINS, count, w#, a#);
        store_y(i + #u * GRAINS, y#, count);
    }
}

fn one_word(i: u32) {
    let zero = Word(0.0);
    var a = ColumnAffine(zero, zero, zero, zero);
    var count = 1u;
    let e0 = first_element(i);
    a = with_affine(a, 0u, affine_of(coefficients[element_row(e0)]));
    if (WIDTH > 1u) {
        let e1 = next_element(e0);
        a = with_affine(a, 1u, affine_of(coefficients[element_row(e1)]));
        count = select(1u, WIDTH, is_element(e1));
        if (WIDTH > 2u) {
            let e2 = next_element(e1);
            let e3 = next_element(e2);
            a = with_affine(a, 2u, affine_of(coefficients[element_row(e2)]));
            a = with_affine(a, 3u, affine_of(coefficients[element_row(e3)]));
        }
    }
    // Behind the tensor, 0.
    let word = apply(i, WIDTH, read_x(i, WIDTH), a);
    store_y(i, select(zero, word, word_mask(0u, 0u, count)), WIDTH);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn column_affine(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let item = column_item(workgroup, num_workgroups, local);
    if (item >= params.items) {
        return;
    }
    if (COLUMN_WORDS > 1u) {
        own_words(column_span(item));
    } else if (ALIGNED) {
        own_positions(column_span(reversed_item(item)), column_lane(local));
    } else if (item < params.num_words) {
        let last = (params.num_words - 1u - item) / params.items;
        for (var i = 0u; i <= last; i = i + 1u) {
            one_word(item + i * params.items);
        }
    }
}
