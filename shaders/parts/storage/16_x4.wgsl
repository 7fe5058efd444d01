// Tensors of 16 bits, words of 4 elements: two pairs.
// #import storage/word_x4
// #import storage/unpack_f16
// #import storage/pack_f16

alias Stored = vec2<u32>;

fn slot(i: u32) -> u32 {
    return i;
}

fn load(stored: Stored, i: u32) -> Word {
    return Word(unpack_pair(stored.x), unpack_pair(stored.y));
}

fn store(word: Word) -> Stored {
    return Stored(pack_pair(word.xy), pack_pair(word.zw));
}
