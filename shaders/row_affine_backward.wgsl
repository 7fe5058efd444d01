// Backward 4. LANES invocations own the words of one part of one row and write dx there (and the
// residual's gradient); words belong to rows as in row_affine. One read of x, one of dy (and of the
// residual), one write of dx. Without x, where dx does not depend on it (x_scale is 0 then): not even a NaN
// in x reaches dx.
@group(0) @binding(1) var<storage, read> x: array<Stored>;
@group(0) @binding(2) var<storage, read> grad_y: array<Stored>;
@group(0) @binding(3) var<storage, read> coefficients_backward: array<AffineBackward>;
@group(0) @binding(4) var<storage, read> coefficients: array<StoredAffine>;
@group(0) @binding(5) var<storage, read> residual: array<Stored>;
@group(0) @binding(6) var<storage, read_write> grad_x: array<Stored>;
@group(0) @binding(7) var<storage, read_write> grad_residual: array<Stored>;

struct Row {
    backward: AffineBackward,
    forward: Affine,
}

fn row_at(row: u32) -> Row {
    var forward = Affine(0.0, 0.0, 0.0, 0.0);
    if (ACTIVATION != 0u) {
        forward = affine_of(coefficients[row]);
    }
    return Row(coefficients_backward[row], forward);
}

struct Gradients {
    x: Word,
    residual: Word,
}

// Of the first `count` elements of a word.
fn map(i: u32, count: u32, row: Row) -> Gradients {
    var word = Word(0.0);
    if (HAS_X) {
        word = load_x(i, count);
    }
    var g = load_grad_y(i, count);
    if (ACTIVATION != 0u) {
        let a = row.forward;
        var t = normalized(word, Word(a.pivot), Word(a.offset), Word(a.scale), Word(a.shift));
        if (HAS_RESIDUAL) {
            t = t + load_residual(i, count);
        }
        g = activation_gradient(t, g);
    }
    let a = row.backward;
    let v = rounded_word(g - Word(a.grad_pivot));
    var dx = v * Word(a.grad_scale);
    if (HAS_X) {
        let u = rounded_word(word - Word(a.x_pivot));
        dx = dx + (u * Word(x_unit(a.grad_scale))) * Word(a.x_scale);
    }
    dx = dx + Word(a.shift);
    if (ACCUMULATE) {
        dx = load_grad_x(i, count) + dx;
    }
    return Gradients(dx, g);
}

fn put(i: u32, gradients: Gradients, count: u32) {
    store_grad_x(i, gradients.x, count);
    if (HAS_GRAD_RESIDUAL) {
        store_grad_residual(i, gradients.residual, count);
    }
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn row_affine_backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let item = item_index(workgroup, num_workgroups, local);
    if (item >= params.items) {
        return;
    }
    let lane = local % LANES;
    let words = row_words(item);
    let row = row_at(words.row);

    let chunks = (words.end - words.begin) / (4u * LANES);
    for (var i = 0u; i < chunks; i = i + 1u) {
        let first = words.begin + i * (4u * LANES) + lane;
        let w0 = map(first, WIDTH, row);
        let w1 = map(first + LANES, WIDTH, row);
        let w2 = map(first + 2u * LANES, WIDTH, row);
        let w3 = map(first + 3u * LANES, WIDTH, row);
        put(first, w0, WIDTH);
        put(first + LANES, w1, WIDTH);
        put(first + 2u * LANES, w2, WIDTH);
        put(first + 3u * LANES, w3, WIDTH);
    }
    let loose = words.begin + chunks * (4u * LANES) + lane;
    for (var i = loose; i < words.end; i = i + LANES) {
        put(i, map(i, WIDTH, row), WIDTH);
    }
    if (!ALIGNED) {
        // The row's last word, where its end is the next row's begin, or the tensor's end.
        if (words.kept != 0u && lane == 0u) {
            let count = last_count(words);
            let mine = map(words.last, count, row);
            var others = Gradients(Word(0.0), Word(0.0));
            if (has_next(words.row)) {
                others = map(words.last, count, row_at(words.row + 1u));
            }
            let mask = kept_mask(words);
            let x_gradient = select(others.x, mine.x, mask);
            let residual_gradient = select(others.residual, mine.residual, mask);
            put(words.last, Gradients(x_gradient, residual_gradient), count);
        }
    }
}
