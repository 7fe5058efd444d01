// Backward 4 with channels last. Words are owned as in column_affine. One read of x, one of dy, one
// write of dx; with an activation one read of the residual and one write of its gradient, and dy is what
// the activation makes of dy. Without x, as in row_affine_backward.
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
@group(0) @binding(2) var<storage, read> grad_y: array<Stored>;
@group(0) @binding(3) var<storage, read> coefficients_backward: array<AffineBackward>;
// #if coefficients
@group(0) @binding(4) var<storage, read> coefficients: array<StoredAffine>;
// #end
// #if residual
@group(0) @binding(5) var<storage, read> residual: array<Stored>;
// #end
@group(0) @binding(6) var<storage, read_write> grad_x: array<Stored>;
// #if grad_residual
@group(0) @binding(7) var<storage, read_write> grad_residual: array<Stored>;
// #end

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
    // #if coefficients
    affine = with_affine(affine, i, affine_of(coefficients[row]));
    // #end
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

fn map(i: u32, maps: Maps) -> Gradients {
    var word = Word(0.0);
    // #if x
    word = load(x[slot(i)], i);
    // #end
    var grad = load(grad_y[slot(i)], i);
    // #if coefficients
    var t = normalized_columns(word, maps.affine);
    // #if residual
    t = t + load(residual[slot(i)], i);
    // #end
    grad = activation_gradient(t, grad);
    // #end
    let v = rounded_word(grad - maps.grad_pivot);
    var dx = v * maps.grad_scale;
    // #if x
    let u = rounded_word((word - maps.x_pivot) * maps.x_unit);
    dx = dx + u * maps.x_scale;
    // #end
    dx = dx + maps.shift;
    if (ACCUMULATE) {
        dx = load(grad_x[slot(i)], i) + dx;
    }
    return Gradients(dx, grad);
}

fn put(i: u32, values: Gradients) {
    grad_x[i] = store(values.x);
    // #if grad_residual
    grad_residual[i] = store(values.residual);
    // #end
}

fn known_maps(span: ColumnSpan) -> Maps {
    var maps = with_maps(no_maps(), 0u, span.row);
    if (WIDTH > 1u) {
        maps = with_maps(maps, 1u, span.row + 1u);
    }
    if (WIDTH > 2u) {
        maps = with_maps(maps, 2u, span.row + 2u);
        maps = with_maps(maps, 3u, span.row + 3u);
    }
    return maps;
}

fn own_positions(span: ColumnSpan, lane: u32) {
    let maps = known_maps(span);
    let step = LANES * params.split.words_per_position;
    let chunks = (span.end - span.begin) / (4u * LANES);
    for (var i = 0u; i < chunks; i = i + 1u) {
        let i0 = column_word(span, span.begin + i * (4u * LANES) + lane);
        let i1 = i0 + step;
        let i2 = i1 + step;
        let i3 = i2 + step;
        let g0 = map(i0, maps);
        let g1 = map(i1, maps);
        let g2 = map(i2, maps);
        let g3 = map(i3, maps);
        put(i0, g0);
        put(i1, g1);
        put(i2, g2);
        put(i3, g3);
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
        let w0 = map(i0, maps);
        let w1 = map(i1, maps);
        let w2 = map(i2, maps);
        let w3 = map(i3, maps);
        put(i0, w0);
        if (p1 < span.end) {
            put(i1, w1);
        }
        if (p2 < span.end) {
            put(i2, w2);
        }
        if (p3 < span.end) {
            put(i3, w3);
        }
    }
}

// The words of an invocation, position by position.
fn own_words(span: ColumnSpan) {
    var maps: array<Maps, COLUMN_WORDS>;
    for (var k = 0u; k < COLUMN_WORDS; k = k + 1u) {
        maps[k] = known_maps(neighbour_span(span, k));
    }
    for (var p = span.begin; p < span.end; p = p + 1u) {
        let first = column_word(span, p);
        for (var k = 0u; k < COLUMN_WORDS; k = k + 1u) {
            put(first + k, map(first + k, maps[k]));
        }
    }
}

fn own_pair(i: u32) {
    let zero = Word(0.0);
    let e0 = first_element(i);
    let e1 = next_element(e0);
    let maps = with_maps(with_maps(no_maps(), 0u, element_row(e0)), 1u, element_row(e1));
    // Behind the tensor, 0.
    let inside = word_mask(0u, 0u, select(1u, WIDTH, is_element(e1)));
    let values = map(i, maps);
    put(i, Gradients(select(zero, values.x, inside), select(zero, values.residual, inside)));
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn column_affine_backward(
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
