// Words of 2 elements, of 16 bits: where words of 4 do not fit. An odd tensor's last word has one element of padding.
alias Word = vec2<f32>;
alias Bits = vec2<u32>;
alias Mask = vec2<bool>;

// By a select: FXC makes a dot product with a one-hot vector of word[i], and a NaN beside the element spoils it.
fn word_at(word: Word, i: u32) -> f32 {
    return select(word.x, word.y, i == 1u);
}

fn word_sum(word: Word) -> f32 {
    return word.x + word.y;
}

// Which elements of the word that begins at element `first` lie in [begin, end).
fn word_mask(first: u32, begin: u32, end: u32) -> Mask {
    let i = vec2<u32>(first, first + 1u);
    return (i >= vec2<u32>(begin)) & (i < vec2<u32>(end));
}

fn mask_count(mask: Mask) -> u32 {
    let ones = select(vec2<u32>(0u), vec2<u32>(1u), mask);
    return ones.x + ones.y;
}
