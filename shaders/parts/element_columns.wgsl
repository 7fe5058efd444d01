// A sample's elements as columns over the samples. An invocation owns COLUMN_WORDS neighbouring words of a group over one
// part of the samples, each a work item; params.columns counts them with those that each group's last invocation lacks.
// (In kernels, a line with # stands for one of each of them.)
struct ElementSpan {
    g: u32,
    part: u32,
    // The first word's first element, within a sample; how many words there are.
    first: u32,
    size: u32,
    // Samples [begin, end). A part may lie behind the last one: it is empty then.
    begin: u32,
    end: u32,
}

fn element_span(item: u32) -> ElementSpan {
    let part = item / params.columns;
    let w = item - part * params.columns;
    let group_columns = params.columns / params.num_groups;
    let g = w / group_columns;
    let within = w - g * group_columns;
    let group_len = params.num_channels / params.num_groups;
    let begin = part * params.words_per_part;
    let end = max(begin, min(begin + params.words_per_part, params.row_len));
    let size = min(COLUMN_WORDS, group_len / WIDTH - within);
    return ElementSpan(g, part, g * group_len + within * WIDTH, size, begin, end);
}

// The span's first word in a sample.
fn first_word(span: ElementSpan, sample: u32) -> u32 {
    return (sample * params.num_channels + span.first) / WIDTH;
}

// The k-th word, counted from the first; behind the last, the last again.
fn near(span: ElementSpan, k: u32) -> u32 {
    if (COLUMN_WORDS == 1u) {
        return 0u;
    }
    return min(k, span.size - 1u);
}

fn is_there(span: ElementSpan, k: u32) -> bool {
    return COLUMN_WORDS == 1u || k < span.size;
}

// Its first element within a sample.
fn element_of(span: ElementSpan, k: u32) -> u32 {
    return span.first + near(span, k) * WIDTH;
}
