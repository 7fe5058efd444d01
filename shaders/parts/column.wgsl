// Tensors with channels last: in memory (N, L, C), params.columns words of channels at each position.
// A work item is one word of channels over one part of the positions of a sample. LANES invocations
// share it and take turns at its positions; neighbours in a workgroup are TILE items, not lanes, so
// that they read neighbouring words. Where COLUMN_WORDS is more than 1, an invocation takes as many items,
// neighbouring words of one part, and LANES is 1. (In kernels, a line with # stands for one of each of them.)
const TILE: u32 = WORKGROUP_SIZE / LANES;

fn column_item(workgroup: vec3<u32>, num_workgroups: vec3<u32>, local: u32) -> u32 {
    let linear = workgroup.x + workgroup.y * num_workgroups.x;
    return (linear * TILE + local % TILE) * COLUMN_WORDS;
}

fn column_lane(local: u32) -> u32 {
    return local / TILE;
}

struct ColumnSpan {
    // Row of the word's first channel; the others follow. Of the last word, not all elements may be
    // channels.
    row: u32,
    count: u32,
    part: u32,
    // Positions [begin, end) of the sample. A part may lie behind the last one: it is empty then.
    begin: u32,
    end: u32,
    // Where the word is at position 0, in grains (GRAIN elements, the least that is stored alone) of the
    // window, modulo 2^32.
    origin: u32,
}

fn column_span(item: u32) -> ColumnSpan {
    let index = item + params.first_item;
    let block = index / params.columns;
    let w = index - block * params.columns;
    let sample = block / params.parts;
    let part = block - sample * params.parts;
    let begin = part * params.words_per_part;
    let end = max(begin, min(begin + params.words_per_part, params.row_len));
    let row = sample * params.num_channels + w * WIDTH;
    let count = min(WIDTH, params.num_channels - w * WIDTH);
    let origin = sample * params.row_len * position_grains() + w * GRAINS - params.first_word;
    return ColumnSpan(row, count, part, begin, end, origin);
}

// Grains from one position to the next.
fn position_grains() -> u32 {
    return params.num_channels / GRAIN;
}

fn column_grain(span: ColumnSpan, position: u32) -> u32 {
    return span.origin + position * position_grains();
}

// That of the k-th word of an invocation.
fn neighbour_span(span: ColumnSpan, k: u32) -> ColumnSpan {
    return ColumnSpan(span.row + k * WIDTH, span.count, span.part, span.begin, span.end, span.origin + k * GRAINS);
}

// Row of a word's i-th element; where that is no channel, of the last one.
fn row_of(span: ColumnSpan, i: u32) -> u32 {
    return span.row + min(i, span.count - 1u);
}

// The word with `value` as its element i. i is a constant wherever this is called: nothing is left
// of the mask then.
fn with_element(word: Word, i: u32, value: f32) -> Word {
    return select(word, Word(value), word_mask(0u, i, i + 1u));
}

// The maps of the rows of a word's elements.
struct ColumnAffine {
    pivot: Word,
    offset: Word,
    scale: Word,
    shift: Word,
}

fn with_affine(words: ColumnAffine, i: u32, a: Affine) -> ColumnAffine {
    return ColumnAffine(
        with_element(words.pivot, i, a.pivot),
        with_element(words.offset, i, a.offset),
        with_element(words.scale, i, a.scale),
        with_element(words.shift, i, a.shift),
    );
}

fn normalized_columns(word: Word, a: ColumnAffine) -> Word {
    return normalized(word, a.pivot, a.offset, a.scale, a.shift);
}

// An element of the tensor, for words that reach into the next position: each of their elements has a
// row of its own.
struct ColumnElement {
    sample: u32,
    position: u32,
    channel: u32,
}

// The first element of a word of the binding.
fn first_element(word: u32) -> ColumnElement {
    // Modulo 2^32, and so exact: tensors have no more elements.
    let element = (params.first_word + word) * WIDTH;
    let position = element / params.num_channels;
    let sample = position / params.row_len;
    return ColumnElement(sample, position - sample * params.row_len, element - position * params.num_channels);
}

fn next_element(e: ColumnElement) -> ColumnElement {
    let channel = e.channel + 1u;
    let wraps = channel == params.num_channels;
    let position = e.position + select(0u, 1u, wraps);
    let ends = position == params.row_len;
    return ColumnElement(
        e.sample + select(0u, 1u, ends),
        select(position, 0u, ends),
        select(channel, 0u, wraps),
    );
}

// Whether it lies in the tensor: the last word of an odd number of 16-bit elements has one behind it.
fn is_element(e: ColumnElement) -> bool {
    return e.sample < params.num_samples;
}

// Its row; behind the tensor, one that exists.
fn element_row(e: ColumnElement) -> u32 {
    return select(0u, e.sample * params.num_channels + e.channel, is_element(e));
}
