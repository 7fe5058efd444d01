// Which words a work item writes: those of one part of one row that begin in the row, as words of the
// window (modulo 2^32). The row's last word may reach beyond its end: all of it is the last part's.
// #import spec
// #import params/rows
// #import storage/word_x4

struct RowWords {
    row: u32,
    // Words that are all the row's.
    begin: u32,
    end: u32,
    // The same and, in the last part, the word that is not.
    tail_end: u32,
    // That word, and how many of its elements are the row's.
    last: u32,
    kept: u32,
}

fn row_words(item: u32) -> RowWords {
    let index = item + params.dispatch.first_item;
    let row = index / params.split.parts;
    let part = index - row * params.split.parts;
    let row_begin = row * params.split.row_len;
    // Counted from the row's first word: a tensor's last element may be beyond u32.
    let base = row_begin / WIDTH - params.dispatch.first_word;
    let row_from = row_begin % WIDTH;
    let row_end = row_from + params.split.row_len;
    let last = row_end / WIDTH;
    // A part may lie behind the last whole word.
    let begin = min((row_from + WIDTH - 1u) / WIDTH + part * params.split.words_per_part, last);
    let end = min(begin + params.split.words_per_part, last);
    let kept = row_end % WIDTH;
    let has_last = kept != 0u && part + 1u == params.split.parts;
    return RowWords(row, base + begin, base + end, base + end + select(0u, 1u, has_last), base + last, kept);
}

// Whether a row follows. Behind the last one there is padding at most, which is written as 0.
fn has_next(words: RowWords) -> bool {
    return words.row + 1u != params.split.num_rows;
}

// The row whose elements the last word has behind its own; one that exists.
fn next_row(words: RowWords) -> u32 {
    return words.row + select(0u, 1u, has_next(words));
}

// Which elements of a row's last word are its own.
fn kept_mask(words: RowWords) -> Mask {
    return word_mask(0u, 0u, words.kept);
}
