// Words of 1 element: where words of 4 do not fit.
alias Word = f32;
alias Bits = u32;
alias Mask = bool;

fn word_at(word: Word, i: u32) -> f32 {
    return word;
}

fn word_sum(word: Word) -> f32 {
    return word;
}

// Whether element `first` lies in [begin, end).
fn word_mask(first: u32, begin: u32, end: u32) -> Mask {
    return first >= begin && first < end;
}

fn mask_count(mask: Mask) -> u32 {
    return select(0u, 1u, mask);
}
