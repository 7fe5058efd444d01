// As rounded.wgsl, for the elements of a word.
// #import params/dispatch
// #import storage/word_x4

fn rounded_word(word: Word) -> Word {
    return bitcast<Word>(bitcast<Bits>(word) ^ Bits(params.dispatch.zero));
}
