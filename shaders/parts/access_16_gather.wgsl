// The first `count` elements, more than 0, of a tensor's word, which is put together from pairs. What
// follows may belong to others, or to no one.
fn load_TENSOR(grain: u32, count: u32) -> Word {
    let first = grain * (GRAIN / 2u);
    var pairs = vec2<u32>(TENSOR[first], 0u);
    if (count > 2u) {
        pairs.y = TENSOR[first + 1u];
    }
    return load_pairs(pairs);
}
// Where it is written:
// The pairs that these elements lie in.
fn store_TENSOR(grain: u32, word: Word, count: u32) {
    let first = grain * (GRAIN / 2u);
    let pairs = store_pairs(word);
    TENSOR[first] = pairs.x;
    if (count > 2u) {
        TENSOR[first + 1u] = pairs.y;
    }
}
