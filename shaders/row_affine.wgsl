// Forward 4. LANES invocations own the words of one part of one row and write y there. A word
// belongs to the row of its first element; the last one may reach into the next row. One read of x
// (and of the residual), one write of y.
@group(0) @binding(1) var<storage, read> x: array<Stored>;
@group(0) @binding(2) var<storage, read> coefficients: array<StoredAffine>;
@group(0) @binding(3) var<storage, read> residual: array<Stored>;
@group(0) @binding(4) var<storage, read_write> y: array<Stored>;

// Of the first `count` elements of a word. In place, x is in y.
fn map(i: u32, count: u32, a: Affine) -> Word {
    var word = Word(0.0);
    if (HAS_X) {
        word = load_x(i, count);
    } else {
        word = load_y(i, count);
    }
    var t = normalized(word, Word(a.pivot), Word(a.offset), Word(a.scale), Word(a.shift));
    if (HAS_RESIDUAL) {
        t = t + load_residual(i, count);
    }
    return activate(t);
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
    let words = row_words(item);
    let a = affine_of(coefficients[words.row]);

    let chunks = (words.end - words.begin) / (4u * LANES);
    for (var i = 0u; i < chunks; i = i + 1u) {
        let first = words.begin + i * (4u * LANES) + lane;
        let w0 = map(first, WIDTH, a);
        let w1 = map(first + LANES, WIDTH, a);
        let w2 = map(first + 2u * LANES, WIDTH, a);
        let w3 = map(first + 3u * LANES, WIDTH, a);
        store_y(first, w0, WIDTH);
        store_y(first + LANES, w1, WIDTH);
        store_y(first + 2u * LANES, w2, WIDTH);
        store_y(first + 3u * LANES, w3, WIDTH);
    }
    let loose = words.begin + chunks * (4u * LANES) + lane;
    for (var i = loose; i < words.end; i = i + LANES) {
        store_y(i, map(i, WIDTH, a), WIDTH);
    }
    if (!ALIGNED) {
        // The row's last word, where its end is the next row's begin, or the tensor's end.
        if (words.kept != 0u && lane == 0u) {
            let count = last_count(words);
            let mine = map(words.last, count, a);
            var others = Word(0.0);
            if (has_next(words.row)) {
                others = map(words.last, count, affine_of(coefficients[words.row + 1u]));
            }
            store_y(words.last, select(others, mine, kept_mask(words)), count);
        }
    }
}
