// 4 elements of 16 bits as pairs in a u32, the first of a pair in its lower half.
fn load_pairs(pairs: vec2<u32>) -> Word {
    let lower = pairs << vec2<u32>(16u);
    return decode(vec4<u32>(lower.x, pairs.x, lower.y, pairs.y));
}

fn store_pairs(word: Word) -> vec2<u32> {
    let upper = encode(word);
    return (upper.xz >> vec2<u32>(16u)) | (upper.yw & vec2<u32>(0xffff0000u));
}
