// Which words a work item reads: one part of one row, cut at words. The word at an end may be
// shared with a neighbouring row; whole words are read in chunks of CHUNK words a lane, all others
// ("loose") under a mask.
// #import spec
// #import params/rows
// #import storage/word_x4

const CHUNK: u32 = 4u;

struct Span {
    row: u32,
    // Elements [begin, end), counted from the row's first word: a tensor's last one may be beyond u32.
    begin: u32,
    end: u32,
    // The row's first word. All words are those of the window, which may lie behind it: modulo 2^32.
    base: u32,
    // First whole word, and how many chunks of CHUNK * LANES whole words follow.
    whole: u32,
    chunks: u32,
    // Loose words: `lead` (0 or 1) before `whole`, the others from `tail` on.
    lead: u32,
    tail: u32,
    loose: u32,
}

fn part_span(item: u32) -> Span {
    let index = item + params.dispatch.first_item;
    let row = index / params.split.parts;
    let part = index - row * params.split.parts;
    let row_begin = row * params.split.row_len;
    let base = row_begin / WIDTH - params.dispatch.first_word;
    var row_from = 0u;
    if (!ALIGNED) {
        row_from = row_begin % WIDTH;
    }
    let word = part * params.split.words_per_part;
    let begin = max(row_from, word * WIDTH);
    // A part may lie behind the row's end: it is empty then.
    let end = max(begin, min(row_from + params.split.row_len, (word + params.split.words_per_part) * WIDTH));
    let whole = (begin + WIDTH - 1u) / WIDTH;
    let whole_end = max(whole, end / WIDTH);
    let chunks = (whole_end - whole) / (CHUNK * LANES);
    let lead = select(0u, 1u, !ALIGNED && begin % WIDTH != 0u && end > begin);
    let tail = whole + chunks * (CHUNK * LANES);
    let loose_end = max(tail, (end + WIDTH - 1u) / WIDTH);
    let loose = lead + (loose_end - tail);
    return Span(row, begin, end, base, base + whole, chunks, lead, base + tail, loose);
}

// The word of the q-th loose one; behind the last, words that hold no element of the span.
fn loose_word(span: Span, q: u32) -> u32 {
    return select(span.tail + q - span.lead, span.whole - 1u, q < span.lead);
}

// The mask of that word. A word behind the last loose one has its elements behind span.end. Where rows begin at words, all
// of a word is of the span, or nothing.
fn loose_mask(span: Span, word: u32) -> Mask {
    if (ALIGNED) {
        return Mask((word - span.base) * WIDTH < span.end);
    }
    return word_mask((word - span.base) * WIDTH, span.begin, span.end);
}

// Which of its elements is the span's first one in it.
fn loose_first(span: Span, word: u32) -> u32 {
    if (ALIGNED) {
        return 0u;
    }
    let first = (word - span.base) * WIDTH;
    return max(span.begin, first) - first;
}
