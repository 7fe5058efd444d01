// Words of 4 elements.
alias Word = vec4<f32>;
alias Bits = vec4<u32>;
alias Mask = vec4<bool>;

// By selects: FXC makes a dot product with a one-hot vector of word[i], and a NaN beside the element spoils it.
fn word_at(word: Word, i: u32) -> f32 {
    return select(select(word.x, word.y, i == 1u), select(word.z, word.w, i == 3u), i >= 2u);
}

fn word_sum(word: Word) -> f32 {
    return (word.x + word.y) + (word.z + word.w);
}

// Which elements of the word that begins at element `first` lie in [begin, end).
fn word_mask(first: u32, begin: u32, end: u32) -> Mask {
    let i = vec4<u32>(first, first + 1u, first + 2u, first + 3u);
    return (i >= vec4<u32>(begin)) & (i < vec4<u32>(end));
}

fn mask_count(mask: Mask) -> u32 {
    let ones = select(vec4<u32>(0u), vec4<u32>(1u), mask);
    return (ones.x + ones.y) + (ones.z + ones.w);
}
