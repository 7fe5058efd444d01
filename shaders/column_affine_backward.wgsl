// Backward 4 with channels last. Words are owned as in column_affine. One read of x, one of dy, one
// write of dx; with an activation one read of the residual and one write of its gradient, and dy is what
// the activation makes of dy. Without x, as in row_affine_backward.
@group(0) @binding(1) var<storage, read> x: array<Stored>;
@group(0) @binding(2) var<storage, read> grad_y: array<Stored>;
@group(0) @binding(3) var<storage, read> coefficients_backward: array<AffineBackward>;
@group(0) @binding(4) var<storage, read> coefficients: array<StoredAffine>;
@group(0) @binding(5) var<storage, read> residual: array<Stored>;
@group(0) @binding(6) var<storage, read_write> grad_x: array<Stored>;
@group(0) @binding(7) var<storage, read_write> grad_residual: array<Stored>;

// The maps of the rows of a word's elements, backward and forward.
struct Maps {
    x_pivot: Word,
    x_unit: Word,
    x_scale: Word,
    grad_pivot: Word,
    grad_scale: Word,
    shift: Word,
    affine: ColumnAffine,
}

fn no_maps() -> Maps {
    let zero = Word(0.0);
    return Maps(zero, zero, zero, zero, zero, zero, ColumnAffine(zero, zero, zero, zero));
}

fn with_maps(maps: Maps, i: u32, row: u32) -> Maps {
    let a = coefficients_backward[row];
    var affine = maps.affine;
    if (ACTIVATION != 0u) {
        affine = with_affine(affine, i, affine_of(coefficients[row]));
    }
    return Maps(
        with_element(maps.x_pivot, i, a.x_pivot),
        with_element(maps.x_unit, i, x_unit(a.grad_scale)),
        with_element(maps.x_scale, i, a.x_scale),
        with_element(maps.grad_pivot, i, a.grad_pivot),
        with_element(maps.grad_scale, i, a.grad_scale),
        with_element(maps.shift, i, a.shift),
        affine,
    );
}

struct Gradients {
    x: Word,
    residual: Word,
}

// Of the first `count` elements of a word.
fn gradients(grain: u32, count: u32, maps: Maps) -> Gradients {
    var word = Word(0.0);
    if (HAS_X) {
        word = load_x(grain, count);
    }
    var grad = load_grad_y(grain, count);
    if (ACTIVATION != 0u) {
        var t = normalized_columns(word, maps.affine);
        if (HAS_RESIDUAL) {
            t = t + load_residual(grain, count);
        }
        grad = activation_gradient(t, grad);
    }
    let v = rounded_word(grad - maps.grad_pivot);
    var dx = v * maps.grad_scale;
    if (HAS_X) {
        let u = rounded_word(word - maps.x_pivot);
        dx = dx + (u * maps.x_unit) * maps.x_scale;
    }
    dx = dx + maps.shift;
    if (ACCUMULATE) {
        dx = load_grad_x(grain, count) + dx;
    }
    return Gradients(dx, grad);
}

fn put(grain: u32, values: Gradients, count: u32) {
    store_grad_x(grain, values.x, count);
    if (HAS_GRAD_RESIDUAL) {
        store_grad_residual(grain, values.residual, count);
    }
}

fn known_maps(span: ColumnSpan) -> Maps {
    var maps = with_maps(no_maps(), 0u, row_of(span, 0u));
    if (WIDTH > 1u) {
        maps = with_maps(maps, 1u, row_of(span, 1u));
    }
    if (WIDTH > 2u) {
        maps = with_maps(maps, 2u, row_of(span, 2u));
        maps = with_maps(maps, 3u, row_of(span, 3u));
    }
    return maps;
}

fn own_positions(span: ColumnSpan, lane: u32) {
    let maps = known_maps(span);
    let count = span.count;
    let step = LANES * position_grains();
    let chunks = (span.end - span.begin) / (4u * LANES);
    for (var i = 0u; i < chunks; i = i + 1u) {
        let i0 = column_grain(span, span.begin + i * (4u * LANES) + lane);
        let i1 = i0 + step;
        let i2 = i1 + step;
        let i3 = i2 + step;
        let g0 = gradients(i0, count, maps);
        let g1 = gradients(i1, count, maps);
        let g2 = gradients(i2, count, maps);
        let g3 = gradients(i3, count, maps);
        put(i0, g0, count);
        put(i1, g1, count);
        put(i2, g2, count);
        put(i3, g3, count);
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
        let w0 = gradients(i0, count, maps);
        let w1 = gradients(i1, count, maps);
        let w2 = gradients(i2, count, maps);
        let w3 = gradients(i3, count, maps);
        put(i0, w0, count);
        if (p1 < span.end) {
            put(i1, w1, count);
        }
        if (p2 < span.end) {
            put(i2, w2, count);
        }
        if (p3 < span.end) {
            put(i3, w3, count);
        }
    }
}

// The words of an invocation, position by position.
fn own_words(span: ColumnSpan) {
    let maps# = known_maps(neighbour_span(span, #u));
    let count = span.count;
    for (var p = span.begin; p < span.end; p = p + 1u) {
        let i = column_grain(span, p);
        let g# = gradients(i + #u * GRAINS, count, maps#);
        put(i + #u * GRAINS, g#, count);
    }
}

fn one_word(i: u32) {
    var count = 1u;
    let e0 = first_element(i);
    var maps = with_maps(no_maps(), 0u, element_row(e0));
    if (WIDTH > 1u) {
        let e1 = next_element(e0);
        maps = with_maps(maps, 1u, element_row(e1));
        count = select(1u, WIDTH, is_element(e1));
        if (WIDTH > 2u) {
            let e2 = next_element(e1);
            let e3 = next_element(e2);
            maps = with_maps(maps, 2u, element_row(e2));
            maps = with_maps(maps, 3u, element_row(e3));
        }
    }
    // Behind the tensor, 0.
    let inside = word_mask(0u, 0u, count);
    let values = gradients(i, WIDTH, maps);
    let zero = Word(0.0);
    put(i, Gradients(select(zero, values.x, inside), select(zero, values.residual, inside)), WIDTH);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn column_affine_backward(
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
