// Elements of bf16 as the upper half of 32 bits, of which the lower half is to be ignored.
// #import storage/word_x4

// Exact: a bf16 is the upper half of an f32.
fn decode(upper: Bits) -> Word {
    return bitcast<Word>(upper & Bits(0xffff0000u));
}

// To nearest, ties to even, by integers; a NaN stays one whatever its lower half was.
fn encode(word: Word) -> Bits {
    let bits = bitcast<Bits>(word);
    let odd = (bits >> Bits(16u)) & Bits(1u);
    let rounded_up = (bits + odd) + Bits(0x7fffu);
    let not_a_number = (bits & Bits(0x7fffffffu)) > Bits(0x7f800000u);
    return select(rounded_up, bits | Bits(0x00400000u), not_a_number);
}
