// Tensors of 16 bits, words of 1 element: two share a u32, the first in its lower half. They are only
// read: a u32 is the least that is written alone.
// #import storage/word_x1
// #import storage/unpack_f16

alias Stored = u32;

fn slot(i: u32) -> u32 {
    return i / 2u;
}

fn load(stored: Stored, i: u32) -> Word {
    return unpack_pair(stored >> ((i & 1u) * 16u)).x;
}
