// Elements of f16 as the upper half of 32 bits, of which the lower half is to be ignored. WGSL lets
// adapters round, overflow and flush as they like in pack2x16float and unpack2x16float.
// #import storage/word_x4

// Exact for all patterns. The exponent goes where f32 has it; nothing here is a subnormal number of
// f32, which adapters may flush.
fn decode(upper: Bits) -> Word {
    let magnitude = ((upper >> Bits(3u)) & Bits(0x0fffe000u)) + Bits(0x38000000u);
    let normal = bitcast<Word>(magnitude);
    // Subnormal ones (and 0) have no leading 1, and the unit of the next exponent.
    let subnormal = (normal + normal) - Word(0x1p-14);
    let finite = select(normal, subnormal, magnitude < Bits(0x38800000u));
    let any = select(bitcast<Bits>(finite), magnitude | Bits(0x7f800000u), magnitude >= Bits(0x47800000u));
    return bitcast<Word>(any | (upper & Bits(0x80000000u)));
}

// To nearest, ties to even, by integers; beyond the largest f16 an Inf.
fn encode(word: Word) -> Bits {
    let bits = bitcast<Bits>(word);
    let magnitude = bits & Bits(0x7fffffffu);
    // Exponent and significand with the 13 bits that go, which are rounded here; at most Inf's.
    let odd = (magnitude >> Bits(13u)) & Bits(1u);
    let normal = min((magnitude + odd) + Bits(0xc8000fffu), Bits(0x0f800000u));
    // Sums in [0.5, 1) have the subnormals' unit in their last place. (WGSL does not say how a sum is
    // rounded; all adapters do it to nearest even, and the tests ask them.)
    let subnormal = bitcast<Bits>(abs(word) + Word(0.5)) << Bits(13u);
    let number = select(normal, subnormal, magnitude < Bits(0x38800000u));
    let any = select(number, Bits(0x0fc00000u), magnitude > Bits(0x7f800000u));
    return (any << Bits(3u)) | (bits & Bits(0x80000000u));
}
