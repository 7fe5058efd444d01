// Forward 4. LANES invocations own the words of one part of one row and write y there. A word
// belongs to the row of its first element; the last one may reach into the next row. One read of x
// (and of the residual), one write of y.
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
@group(0) @binding(2) var<storage, read> coefficients: array<StoredAffine>;
// #if residual
@group(0) @binding(3) var<storage, read> residual: array<Stored>;
// #end
@group(0) @binding(4) var<storage, read_write> y: array<Stored>;

// What a word of y is made of. In place, x is in y.
struct Input {
    x: Word,
    residual: Word,
}

fn input_at(i: u32) -> Input {
    var input = Input(Word(0.0), Word(0.0));
    // #if x
    input.x = load(x[slot(i)], i);
    // #else
    input.x = load(y[slot(i)], i);
    // #end
    // #if residual
    input.residual = load(residual[slot(i)], i);
    // #end
    return input;
}

fn map(input: Input, a: Affine) -> Word {
    var t = normalized(input.x, Word(a.pivot), Word(a.offset), Word(a.scale), Word(a.shift));
    // #if residual
    t = t + input.residual;
    // #end
    return activate(t);
}

// Writes a word of what is left behind the chunks. The row's last one may end in the next row.
fn put_tail(words: RowWords, i: u32, input: Input, a: Affine, next: Affine) {
    if (i >= words.tail_end) {
        return;
    }
    var word = map(input, a);
    if (!ALIGNED) {
        if (i == words.last) {
            var others = Word(0.0);
            if (has_next(words)) {
                others = map(input, next);
            }
            word = select(others, word, kept_mask(words));
        }
    }
    y[i] = store(word);
}

// Two words of what is left: both are read before either is written. (Behind its end the first is read again.)
fn put_two(words: RowWords, i0: u32, a: Affine, next: Affine) {
    if (i0 >= words.tail_end) {
        return;
    }
    let i1 = i0 + LANES;
    let w0 = input_at(i0);
    let w1 = input_at(select(i0, i1, i1 < words.tail_end));
    put_tail(words, i0, w0, a, next);
    put_tail(words, i1, w1, a, next);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn row_affine(
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
    let a = affine_of(coefficients[words.row]);

    let chunks = (words.end - words.begin) / (4u * LANES);
    for (var i = 0u; i < chunks; i = i + 1u) {
        let first = words.begin + i * (4u * LANES) + lane;
        let w0 = input_at(first);
        let w1 = input_at(first + LANES);
        let w2 = input_at(first + 2u * LANES);
        let w3 = input_at(first + 3u * LANES);
        y[first] = store(map(w0, a));
        y[first + LANES] = store(map(w1, a));
        y[first + 2u * LANES] = store(map(w2, a));
        y[first + 3u * LANES] = store(map(w3, a));
    }
    // What is left, a chunk at most.
    let i = words.begin + chunks * (4u * LANES) + lane;
    var next = a;
    if (!ALIGNED) {
        next = affine_of(coefficients[next_row(words)]);
    }
    put_two(words, i, a, next);
    put_two(words, i + 2u * LANES, a, next);
}
