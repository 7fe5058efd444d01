// Backward 4. LANES invocations own the words of one part of one row and write dx there (and the
// residual's gradient); words belong to rows as in row_affine. One read of x, one of dy (and of the
// residual), one write of dx. Without x, where dx does not depend on it (x_scale is 0 then): not even a NaN
// in x reaches dx.
// #import spec
// #import params/rows
// #import tables
// #import storage/f32
// #import arithmetic/activation
// #import layout/item
// #import layout/row_words

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

struct Row {
    backward: AffineBackward,
    forward: Affine,
}

fn row_at(row: u32) -> Row {
    var forward = Affine(0.0, 0.0, 0.0, 0.0);
    // #if coefficients
    forward = affine_of(coefficients[row]);
    // #end
    return Row(coefficients_backward[row], forward);
}

// What a word of dx is made of.
struct Input {
    x: Word,
    grad_y: Word,
    residual: Word,
    grad_x: Word,
}

fn input_at(i: u32) -> Input {
    let zero = Word(0.0);
    var input = Input(zero, zero, zero, zero);
    // #if x
    input.x = load(x[slot(i)], i);
    // #end
    input.grad_y = load(grad_y[slot(i)], i);
    // #if residual
    input.residual = load(residual[slot(i)], i);
    // #end
    if (ACCUMULATE) {
        input.grad_x = load(grad_x[slot(i)], i);
    }
    return input;
}

struct Gradients {
    x: Word,
    residual: Word,
}

fn map(input: Input, row: Row) -> Gradients {
    var g = input.grad_y;
    // #if coefficients
    let f = row.forward;
    var t = normalized(input.x, Word(f.pivot), Word(f.offset), Word(f.scale), Word(f.shift));
    // #if residual
    t = t + input.residual;
    // #end
    g = activation_gradient(t, g);
    // #end
    let a = row.backward;
    let v = rounded_word(g - Word(a.grad_pivot));
    var dx = v * Word(a.grad_scale);
    // #if x
    let u = rounded_word((input.x - Word(a.x_pivot)) * Word(x_unit(a.grad_scale)));
    dx = dx + u * Word(a.x_scale);
    // #end
    dx = dx + Word(a.shift);
    if (ACCUMULATE) {
        dx = input.grad_x + dx;
    }
    return Gradients(dx, g);
}

fn put(i: u32, gradients: Gradients) {
    grad_x[i] = store(gradients.x);
    // #if grad_residual
    grad_residual[i] = store(gradients.residual);
    // #end
}

// Writes a word of what is left behind the chunks. The row's last one may end in the next row.
fn put_tail(words: RowWords, i: u32, input: Input, row: Row, next: Row) {
    if (i >= words.tail_end) {
        return;
    }
    var gradients = map(input, row);
    if (!ALIGNED) {
        if (i == words.last) {
            var others = Gradients(Word(0.0), Word(0.0));
            if (has_next(words)) {
                others = map(input, next);
            }
            let mask = kept_mask(words);
            gradients.x = select(others.x, gradients.x, mask);
            gradients.residual = select(others.residual, gradients.residual, mask);
        }
    }
    put(i, gradients);
}

// Two words of what is left: both are read before either is written. (Behind its end the first is read again.)
fn put_two(words: RowWords, i0: u32, row: Row, next: Row) {
    if (i0 >= words.tail_end) {
        return;
    }
    let i1 = i0 + LANES;
    let w0 = input_at(i0);
    let w1 = input_at(select(i0, i1, i1 < words.tail_end));
    put_tail(words, i0, w0, row, next);
    put_tail(words, i1, w1, row, next);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn row_affine_backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = item_index(workgroup, num_workgroups, local);
    if (index >= params.dispatch.items) {
        return;
    }
    let lane = local % LANES;
    let words = row_words(reversed_item(index));
    let row = row_at(words.row);

    let chunks = (words.end - words.begin) / (4u * LANES);
    for (var i = 0u; i < chunks; i = i + 1u) {
        let first = words.begin + i * (4u * LANES) + lane;
        let w0 = input_at(first);
        let w1 = input_at(first + LANES);
        let w2 = input_at(first + 2u * LANES);
        let w3 = input_at(first + 3u * LANES);
        put(first, map(w0, row));
        put(first + LANES, map(w1, row));
        put(first + 2u * LANES, map(w2, row));
        put(first + 3u * LANES, map(w3, row));
    }
    // What is left, a chunk at most.
    let i = words.begin + chunks * (4u * LANES) + lane;
    var next = row;
    if (!ALIGNED) {
        next = row_at(next_row(words));
    }
    put_two(words, i, row, next);
    put_two(words, i + 2u * LANES, row, next);
}
