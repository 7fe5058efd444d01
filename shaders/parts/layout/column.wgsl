// Tensors with channels last: in memory (N, L, C), params.split.words_per_position words of channels at each position.
// A work item is one word of channels over one part of the positions of a sample. LANES invocations
// share it and take turns at its positions; neighbours in a workgroup are TILE items, not lanes, so
// that they read neighbouring words. Where COLUMN_WORDS is more than 1, an invocation takes as many items,
// neighbouring words of one part, and LANES is 1.
//
// COLUMN_WORDS is 8 on llvmpipe, which runs eight invocations as one vector: with a word each they jump from 128 bytes
// to 128 bytes, which takes 3 to 6 times as long ((4, 256, 56, 56) and (8, 512, 28, 28), forward and backward).
// #import spec
// #import params/columns
// #import storage/word_x4
// #import arithmetic/activation
// #import arithmetic/with_element
// #import tables

const TILE: u32 = WORKGROUP_SIZE / LANES;

fn column_item(workgroup: vec3<u32>, num_workgroups: vec3<u32>, local: u32) -> u32 {
    let linear = workgroup.x + workgroup.y * num_workgroups.x;
    return (linear * TILE + local % TILE) * COLUMN_WORDS;
}

fn column_lane(local: u32) -> u32 {
    return local / TILE;
}

struct ColumnSpan {
    // Row of the word's first channel; the others follow.
    row: u32,
    part: u32,
    // Positions [begin, end) of the sample. A part may lie behind the last one: it is empty then.
    begin: u32,
    end: u32,
    // Where the word is at position 0, in words of the window, modulo 2^32.
    origin: u32,
}

fn column_span(item: u32) -> ColumnSpan {
    let index = item + params.dispatch.first_item;
    let block = index / params.split.words_per_position;
    let w = index - block * params.split.words_per_position;
    let sample = block / params.split.parts;
    let part = block - sample * params.split.parts;
    let begin = part * params.split.positions_per_part;
    let end = max(begin, min(begin + params.split.positions_per_part, params.split.row_len));
    let row = sample * params.split.num_channels + w * WIDTH;
    let origin = sample * params.split.row_len * params.split.words_per_position + w - params.dispatch.first_word;
    return ColumnSpan(row, part, begin, end, origin);
}

fn column_word(span: ColumnSpan, position: u32) -> u32 {
    return span.origin + position * params.split.words_per_position;
}

// That of the k-th word of an invocation.
fn neighbour_span(span: ColumnSpan, k: u32) -> ColumnSpan {
    return ColumnSpan(span.row + k * WIDTH, span.part, span.begin, span.end, span.origin + k);
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
