// Tensors of 16 bits, words of 2 elements: a u32, the first in its lower half.
// #import storage/word_x2
// #import storage/bits_f16

alias Stored = u32;

fn slot(i: u32) -> u32 {
    return i;
}

fn load(stored: Stored, i: u32) -> Word {
    return decode(vec2<u32>(stored << 16u, stored));
}

fn store(word: Word) -> Stored {
    let upper = encode(word);
    return (upper.x >> 16u) | (upper.y & 0xffff0000u);
}
