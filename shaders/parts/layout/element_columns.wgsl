// A sample's elements as columns over the samples. A work item is one word of a group's elements over one part of the
// samples.
// #import spec
// #import params/element_columns

struct ElementSpan {
    g: u32,
    part: u32,
    // The word, and its first element, within a sample.
    word: u32,
    first: u32,
    // Samples [begin, end). A part may lie behind the last one: it is empty then.
    begin: u32,
    end: u32,
}

fn element_span(item: u32) -> ElementSpan {
    let part = item / params.split.words_per_sample;
    let word = item - part * params.split.words_per_sample;
    let first = word * WIDTH;
    let g = word / params.groups.words_per_group;
    let begin = part * params.split.samples_per_part;
    let end = max(begin, min(begin + params.split.samples_per_part, params.split.num_samples));
    return ElementSpan(g, part, word, first, begin, end);
}

// The span's word in a sample.
fn element_word(span: ElementSpan, sample: u32) -> u32 {
    return sample * params.split.words_per_sample + span.word;
}
