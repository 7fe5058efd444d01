// Forward 4. LANES invocations own the words of one part of one row and write y there. A word
// belongs to the row of its first element; the last one may reach into the next row. One read of x,
// one write of y.
@group(0) @binding(1) var<storage, read> x: array<Word>;
@group(0) @binding(2) var<storage, read> coefficients: array<Affine>;
@group(0) @binding(3) var<storage, read_write> y: array<Word>;

fn map(word: Word, a: Affine) -> Word {
    return (rounded_word(word - Word(a.pivot)) - Word(a.offset)) * Word(a.scale) + Word(a.shift);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn row_affine(
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
    let a = coefficients[row];

    let chunks = (end - begin) / (4u * LANES);
    for (var i = 0u; i < chunks; i = i + 1u) {
        let first = begin + i * (4u * LANES) + lane;
        let w0 = x[first];
        let w1 = x[first + LANES];
        let w2 = x[first + 2u * LANES];
        let w3 = x[first + 3u * LANES];
        y[first] = map(w0, a);
        y[first + LANES] = map(w1, a);
        y[first + 2u * LANES] = map(w2, a);
        y[first + 3u * LANES] = map(w3, a);
    }
    for (var i = begin + chunks * (4u * LANES) + lane; i < end; i = i + LANES) {
        y[i] = map(x[i], a);
    }
    if (!ALIGNED) {
        // The row's last word, where its end is the next row's begin. The tensor is a whole number
        // of words, so there is a next row.
        let last = row_end / WIDTH;
        if (row_end % WIDTH != 0u && part == 0u && lane == 0u) {
            let next = coefficients[row + 1u];
            let word = x[last];
            y[last] = select(map(word, next), map(word, a), word_mask(last * WIDTH, row_begin, row_end));
        }
    }
}
