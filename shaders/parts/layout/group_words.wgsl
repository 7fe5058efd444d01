// The words of a (sample, group), which lie next to each other. LANES lanes take turns at them, CHUNK words at a time. A
// lane's first chunk stays in registers, others are read again by each loop: groups that fit are read once. (With one word
// a turn, layer normalization of (4096, 512) took 32 us on an H200 instead of 21.)
// #import spec
// #import params/elements
// #import storage/word_x4
// #import arithmetic/word_sums

const CHUNK: u32 = 4u;

struct GroupWords {
    g: u32,
    // The group's first word, and its first element within the sample.
    base: u32,
    first: u32,
    size: u32,
    chunks: u32,
}

fn group_words(item: u32) -> GroupWords {
    let g = item % params.groups.num_groups;
    let size = params.groups.words_per_group;
    let chunks = select((size + (CHUNK * LANES - 1u)) / (CHUNK * LANES), 1u, RESIDENT);
    return GroupWords(g, item * size, g * size * WIDTH, size, chunks);
}

// The first word of a lane's i-th chunk; the others follow, LANES apart.
fn chunk_word(i: u32, lane: u32) -> u32 {
    return i * (CHUNK * LANES) + lane;
}

// A word; behind the group's last, the last again.
fn word_or_last(words: GroupWords, w: u32) -> u32 {
    return min(w, words.size - 1u);
}

// The sums and a word more. Behind the group's last, nothing.
fn with_word(sums: Sums, words: GroupWords, w: u32, a: Word, b: Word) -> Sums {
    let zero = Word(0.0);
    let counts = w < words.size;
    return Sums(sums.a + select(zero, a, counts), sums.b + select(zero, b, counts));
}

// The sums of a lane, with the last run.
fn lane_sums(totals: Totals, run: Sums) -> vec2<f32> {
    var sums = run;
    if (!RESIDENT) {
        sums = totals_of(and_run(totals, run));
    }
    return vec2<f32>(word_sum(sums.a), word_sum(sums.b));
}
