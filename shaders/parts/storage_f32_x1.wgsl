// Storage f32, words of 1 element: as they are.
alias Stored = f32;

fn stored_index(i: u32) -> u32 {
    return i;
}

fn load(stored: Stored, i: u32) -> Word {
    return stored;
}

fn store(word: Word) -> Stored {
    return word;
}
