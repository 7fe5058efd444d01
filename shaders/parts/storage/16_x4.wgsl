// Tensors of 16 bits, words of 4 elements: pairs in a u32, the first of a pair in its lower half.
// #import storage/word_x4
// #import storage/bits_f16

alias Stored = vec2<u32>;

fn slot(i: u32) -> u32 {
    return i;
}

fn load(stored: Stored, i: u32) -> Word {
    let lower = stored << vec2<u32>(16u);
    return decode(vec4<u32>(lower.x, stored.x, lower.y, stored.y));
}

fn store(word: Word) -> Stored {
    let upper = encode(word);
    return (upper.xz >> vec2<u32>(16u)) | (upper.yw & vec2<u32>(0xffff0000u));
}
