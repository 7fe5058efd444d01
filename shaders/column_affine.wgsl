// Forward 4 with channels last, and what is fused to it: y = activation(norm(x) + residual). One read
// of x (of y, in place) and of the residual, one write of y.
//
// ALIGNED: LANES invocations own one word of channels over one part of a sample's positions, and keep
// the maps of its rows. Else an invocation owns every items-th word of the window, and every element
// of a word looks its row up.
@group(0) @binding(1) var<storage, read> x: array<Stored>;
@group(0) @binding(2) var<storage, read> coefficients: array<Affine>;
@group(0) @binding(3) var<storage, read> residual: array<Stored>;
@group(0) @binding(4) var<storage, read_write> y: array<Stored>;

fn read_x(i: u32) -> Word {
    if (HAS_X) {
        return load(x[stored_index(i)], i);
    }
    return load(y[stored_index(i)], i);
}

fn apply(i: u32, word: Word, a: ColumnAffine) -> Word {
    var t = normalized_columns(word, a);
    if (HAS_RESIDUAL) {
        t = t + load(residual[stored_index(i)], i);
    }
    return activate(t);
}

fn own_positions(span: ColumnSpan, lane: u32) {
    let zero = Word(0.0);
    var a = ColumnAffine(zero, zero, zero, zero);
    a = with_affine(a, 0u, coefficients[span.row]);
    if (WIDTH > 1u) {
        a = with_affine(a, 1u, coefficients[span.row + 1u]);
    }
    if (WIDTH > 2u) {
        a = with_affine(a, 2u, coefficients[span.row + 2u]);
        a = with_affine(a, 3u, coefficients[span.row + 3u]);
    }
    let step = LANES * params.columns;
    let chunks = (span.end - span.begin) / (4u * LANES);
    for (var i = 0u; i < chunks; i = i + 1u) {
        let i0 = column_word(span, span.begin + i * (4u * LANES) + lane);
        let i1 = i0 + step;
        let i2 = i1 + step;
        let i3 = i2 + step;
        let w0 = read_x(i0);
        let w1 = read_x(i1);
        let w2 = read_x(i2);
        let w3 = read_x(i3);
        let y0 = apply(i0, w0, a);
        let y1 = apply(i1, w1, a);
        let y2 = apply(i2, w2, a);
        let y3 = apply(i3, w3, a);
        y[i0] = store(y0);
        y[i1] = store(y1);
        y[i2] = store(y2);
        y[i3] = store(y3);
    }
    for (var p = span.begin + chunks * (4u * LANES) + lane; p < span.end; p = p + LANES) {
        let i = column_word(span, p);
        y[i] = store(apply(i, read_x(i), a));
    }
}

fn one_word(i: u32) {
    let zero = Word(0.0);
    var a = ColumnAffine(zero, zero, zero, zero);
    var count = 1u;
    let e0 = first_element(i);
    a = with_affine(a, 0u, coefficients[element_row(e0)]);
    if (WIDTH > 1u) {
        let e1 = next_element(e0);
        a = with_affine(a, 1u, coefficients[element_row(e1)]);
        count = select(1u, WIDTH, is_element(e1));
        if (WIDTH > 2u) {
            let e2 = next_element(e1);
            let e3 = next_element(e2);
            a = with_affine(a, 2u, coefficients[element_row(e2)]);
            a = with_affine(a, 3u, coefficients[element_row(e3)]);
        }
    }
    // Behind the tensor, 0.
    y[i] = store(select(zero, apply(i, read_x(i), a), word_mask(0u, 0u, count)));
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
    if (ALIGNED) {
        own_positions(column_span(item), column_lane(local));
    } else if (item < params.num_words) {
        let last = (params.num_words - 1u - item) / params.items;
        for (var i = 0u; i <= last; i = i + 1u) {
            one_word(item + i * params.items);
        }
    }
}
