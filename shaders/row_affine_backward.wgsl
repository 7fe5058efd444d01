// Backward 4. LANES invocations own the words of one part of one row and write dx there; words
// belong to rows as in row_affine. One read of x, one of dy, one write of dx.
@group(0) @binding(1) var<storage, read> x: array<Word>;
@group(0) @binding(2) var<storage, read> grad_y: array<Word>;
@group(0) @binding(3) var<storage, read> coefficients_backward: array<AffineBackward>;
@group(0) @binding(4) var<storage, read_write> grad_x: array<Word>;

fn map(i: u32, a: AffineBackward) -> Word {
    let v = rounded_word(grad_y[i] - Word(a.grad_pivot));
    let u = rounded_word(x[i] - Word(a.x_pivot));
    return (v * Word(a.grad_scale) + u * Word(a.x_scale)) + Word(a.shift);
}

fn store(i: u32, value: Word) {
    if (ACCUMULATE) {
        grad_x[i] = grad_x[i] + value;
    } else {
        grad_x[i] = value;
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
    let row = item / params.parts;
    let part = item - row * params.parts;
    let row_begin = row * params.row_len;
    let row_end = row_begin + params.row_len;
    let begin = (row_begin + WIDTH - 1u) / WIDTH + part * params.words_per_part;
    let end = max(begin, min(begin + params.words_per_part, row_end / WIDTH));
    let a = coefficients_backward[row];

    let chunks = (end - begin) / (4u * LANES);
    for (var i = 0u; i < chunks; i = i + 1u) {
        let first = begin + i * (4u * LANES) + lane;
        let w0 = map(first, a);
        let w1 = map(first + LANES, a);
        let w2 = map(first + 2u * LANES, a);
        let w3 = map(first + 3u * LANES, a);
        store(first, w0);
        store(first + LANES, w1);
        store(first + 2u * LANES, w2);
        store(first + 3u * LANES, w3);
    }
    for (var i = begin + chunks * (4u * LANES) + lane; i < end; i = i + LANES) {
        store(i, map(i, a));
    }
    if (!ALIGNED) {
        // The row's last word, where its end is the next row's begin.
        let last = row_end / WIDTH;
        if (row_end % WIDTH != 0u && part == 0u && lane == 0u) {
            let next = coefficients_backward[row + 1u];
            let mask = word_mask(last * WIDTH, row_begin, row_end);
            store(last, select(map(last, next), map(last, a), mask));
        }
    }
}
