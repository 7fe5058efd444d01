// Tensors of f32: words are stored as they are.
// #import storage/word_x4

alias Stored = Word;

// Which entry of a tensor's binding a word lies in.
fn slot(i: u32) -> u32 {
    return i;
}

// The i-th word of a tensor, from that entry.
fn load(stored: Stored, i: u32) -> Word {
    return stored;
}

fn store(word: Word) -> Stored {
    return word;
}
