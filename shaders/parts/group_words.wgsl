// The words of a group, in each of SAMPLES samples. LANES lanes take turns at them, WORDS words at a time; where HELD is
// not 0, each holds as many, and these are all. In kernels, a line with # stands for one of each of these words, one
// with $ for one of each sample, and one with both for a word and its sample: SAMPLES is 1, or WORDS is.
const WORDS: u32 = select(select(HELD, 4u, HELD == 0u), 1u, SAMPLES > 1u);

struct GroupWords {
    g: u32,
    // The first sample, and the group's first element within each.
    sample: u32,
    first: u32,
    size: u32,
    chunks: u32,
}

fn group_words(item: u32) -> GroupWords {
    let g = item % params.num_groups;
    let size = params.words_per_part;
    let chunks = (size + (WORDS * LANES - 1u)) / (WORDS * LANES);
    return GroupWords(g, item / params.num_groups * SAMPLES, g * size * WIDTH, size, chunks);
}

// Those of one sample: its (sample, group), and the first word. Behind the last sample, the last again.
struct SampleWords {
    item: u32,
    base: u32,
    there: bool,
}

fn sample_words(words: GroupWords, k: u32) -> SampleWords {
    let sample = min(words.sample + k, params.num_samples - 1u);
    let item = sample * params.num_groups + words.g;
    return SampleWords(item, item * words.size, words.sample + k < params.num_samples);
}

// From the first of WORDS words to another.
fn behind(k: u32) -> u32 {
    return select(k * LANES, 0u, SAMPLES > 1u);
}

// What the samples share where there are several: the channels of a word, loaded once. `of_first`: those of the
// group's first.
fn shared_channels(words: GroupWords, w: u32, of_first: ElementChannels) -> ElementChannels {
    if (SAMPLES == 1u) {
        return of_first;
    }
    return element_channels(words.first + min(w, words.size - 1u) * WIDTH);
}

// What a word needs of its channels. SINGLE: the group is one channel.
fn word_channels(words: GroupWords, w: u32, known: ElementChannels) -> ElementChannels {
    if (SINGLE || SAMPLES > 1u) {
        return known;
    }
    return element_channels(words.first + w * WIDTH);
}

// And those of a word more. Behind the group's last, nothing. (Held words that are not there lie behind it, too.)
fn with_word(sums: Sums, words: GroupWords, w: u32, a: Word, b: Word) -> Sums {
    let zero = Word(0.0);
    let counts = w < words.size;
    return Sums(sums.a + select(zero, a, counts), sums.b + select(zero, b, counts));
}

// Those of a lane, with the last run.
fn lane_sums(totals: Totals, run: Sums) -> vec2<f32> {
    let sums = totals_of(and_run(totals, run));
    return vec2<f32>(word_sum(sums.a), word_sum(sums.b));
}
