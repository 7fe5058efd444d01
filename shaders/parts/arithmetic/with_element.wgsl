// #import storage/word_x4

// The word with `value` as its element i. i is a constant wherever this is called: nothing is left
// of the mask then.
fn with_element(word: Word, i: u32, value: f32) -> Word {
    return select(word, Word(value), word_mask(0u, i, i + 1u));
}
