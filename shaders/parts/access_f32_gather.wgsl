// The first `count` elements, more than 0, of a tensor's word, which is put together from single ones.
// What follows may belong to others, or to no one.
fn load_TENSOR(grain: u32, count: u32) -> Word {
    let first = grain * GRAIN;
    var word = vec4<f32>(TENSOR[first], 0.0, 0.0, 0.0);
    if (count > 1u) {
        word.y = TENSOR[first + 1u];
    }
    if (count > 2u) {
        word.z = TENSOR[first + 2u];
    }
    if (count > 3u) {
        word.w = TENSOR[first + 3u];
    }
    return word;
}
// Where it is written:
fn store_TENSOR(grain: u32, word: Word, count: u32) {
    let first = grain * GRAIN;
    TENSOR[first] = word.x;
    if (count > 1u) {
        TENSOR[first + 1u] = word.y;
    }
    if (count > 2u) {
        TENSOR[first + 2u] = word.z;
    }
    if (count > 3u) {
        TENSOR[first + 3u] = word.w;
    }
}
