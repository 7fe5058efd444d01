// The words of a (sample, group), which lie next to each other. LANES lanes take turns at them.
// #import spec
// #import params
// #import arithmetic/word_sums

struct GroupWords {
    g: u32,
    // The group's first word, and its first element within the sample.
    base: u32,
    first: u32,
    size: u32,
}

fn group_words(item: u32) -> GroupWords {
    let g = item % params.num_groups;
    let size = params.words_per_part;
    return GroupWords(g, item * size, g * size * WIDTH, size);
}

// Whether a lane's run of words ends with one.
fn ends_lane_run(w: u32) -> bool {
    return ends_run(w / LANES);
}

// The sums of a lane, with the last run.
fn lane_sums(totals: Totals, run: Sums) -> vec2<f32> {
    let sums = totals_of(and_run(totals, run));
    return vec2<f32>(word_sum(sums.a), word_sum(sums.b));
}
