// Tensors of 16 bits, words of 2 elements: a pair.
// #import storage/word_x2
// #import storage/unpack_f16
// #import storage/pack_f16

alias Stored = u32;

fn slot(i: u32) -> u32 {
    return i;
}

fn load(stored: Stored, i: u32) -> Word {
    return unpack_pair(stored);
}

fn store(word: Word) -> Stored {
    return pack_pair(word);
}
