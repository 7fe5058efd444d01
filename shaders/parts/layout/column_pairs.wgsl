// Tensors of 16 bits with an odd number of channels, last: a word is two elements, and may reach into the next
// position. Each of its elements has a row of its own.
// #import spec
// #import params/columns

struct ColumnElement {
    sample: u32,
    position: u32,
    channel: u32,
}

// The first element of a word of the binding.
fn first_element(word: u32) -> ColumnElement {
    // Modulo 2^32, and so exact: tensors have no more elements.
    let element = (params.dispatch.first_word + word) * WIDTH;
    let position = element / params.split.num_channels;
    let sample = position / params.split.row_len;
    return ColumnElement(sample, position - sample * params.split.row_len, element - position * params.split.num_channels);
}

fn next_element(e: ColumnElement) -> ColumnElement {
    let channel = e.channel + 1u;
    let wraps = channel == params.split.num_channels;
    let position = e.position + select(0u, 1u, wraps);
    let ends = position == params.split.row_len;
    return ColumnElement(
        e.sample + select(0u, 1u, ends),
        select(position, 0u, ends),
        select(channel, 0u, wraps),
    );
}

// Whether it lies in the tensor: the last word of an odd number of elements has one behind it.
fn is_element(e: ColumnElement) -> bool {
    return e.sample < params.split.num_samples;
}

// Its row; behind the tensor, one that exists.
fn element_row(e: ColumnElement) -> u32 {
    return select(0u, e.sample * params.split.num_channels + e.channel, is_element(e));
}
