// Storage of 16 bits, words of 4 elements.
alias Stored = vec2<u32>;

fn stored_index(i: u32) -> u32 {
    return i;
}

fn load(stored: Stored, i: u32) -> Word {
    return load_pairs(stored);
}

fn store(word: Word) -> Stored {
    return store_pairs(word);
}
