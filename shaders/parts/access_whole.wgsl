// A tensor's words, where each is one entry of its binding.
fn load_TENSOR(grain: u32, count: u32) -> Word {
    return load(TENSOR[stored_index(grain)], grain);
}
// Where it is written:
fn store_TENSOR(grain: u32, word: Word, count: u32) {
    TENSOR[grain] = store(word);
}
