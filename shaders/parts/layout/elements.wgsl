// Short rows: a table with an entry for each row would be as large as the tensor. Here every element is
// a row of its own, made when it is needed and kept nowhere; only groups and channels have tables. The
// elements of a (sample, group) lie next to each other, channel after channel, params.groups.channel_len of each.
// #import spec
// #import params/elements
// #import tables
// #import arithmetic/rounded_word
// #import arithmetic/with_element
// #import layout/channel_table

fn upper_halves(v: Word) -> Word {
    return bitcast<Word>(bitcast<Bits>(v) & Bits(0xfffff000u));
}

// product_rest of precise.wgsl, element by element.
fn product_rests(a: Word, b: Word, p: Word) -> Word {
    let a_high = upper_halves(a);
    let b_high = upper_halves(b);
    let a_low = a - a_high;
    let b_low = b - b_high;
    let rest = (((a_high * b_high - p) + a_high * b_low) + a_low * b_high) + a_low * b_low;
    return select(Word(0.0), rest, abs(p) < Word(1e38));
}

// What a word's elements need of their channels.
struct ElementChannels {
    mean_pivot: Word,
    mean_offset: Word,
    rstd: Word,
    scale: Word,
    scale_low: Word,
    bias: Word,
    weight: Word,
}

fn with_channel(known: ElementChannels, i: u32, channel: Channel) -> ElementChannels {
    return ElementChannels(
        with_element(known.mean_pivot, i, channel.mean_pivot),
        with_element(known.mean_offset, i, channel.mean_offset),
        with_element(known.rstd, i, channel.rstd),
        with_element(known.scale, i, channel.scale),
        with_element(known.scale_low, i, channel.scale_low),
        with_element(known.bias, i, channel.bias),
        with_element(known.weight, i, channel.weight),
    );
}

// Which channel an element of a sample belongs to, and which of its elements it is.
struct Place {
    channel: u32,
    within: u32,
}

// A quotient of f32s, which is vectors' work on processors, where one of integers is not; it may be one off, as long as
// there are 2^20 channels at most (src/plan/short_rows.rs).
fn place_of(element: u32) -> Place {
    let len = params.groups.channel_len;
    let near = u32(f32(element) / f32(len));
    // Modulo 2^32.
    let rest = element - near * len;
    let c = select(near + select(0u, 1u, rest >= len), near - 1u, rest >= 0x80000000u);
    return Place(c, element - c * len);
}

// Of the element behind.
fn next_place(place: Place) -> Place {
    let ends = place.within + 1u == params.groups.channel_len;
    return Place(place.channel + select(0u, 1u, ends), select(place.within + 1u, 0u, ends));
}

// Of the word that begins at an element of a sample. ALIGNED: all of it is one channel's.
fn element_channels(first: u32) -> ElementChannels {
    let place = place_of(first);
    let a = channel_entry(place.channel);
    var known = ElementChannels(
        Word(a.mean_pivot),
        Word(a.mean_offset),
        Word(a.rstd),
        Word(a.scale),
        Word(a.scale_low),
        Word(a.bias),
        Word(a.weight),
    );
    if (!ALIGNED) {
        if (WIDTH > 1u) {
            let second = next_place(place);
            known = with_channel(known, 1u, channel_entry(second.channel));
            if (WIDTH > 2u) {
                let third = next_place(second);
                known = with_channel(known, 2u, channel_entry(third.channel));
                known = with_channel(known, 3u, channel_entry(next_place(third).channel));
            }
        }
    }
    return known;
}

// x less its channel's mean.
fn above_channel_mean(x: Word, known: ElementChannels) -> Word {
    return rounded_word(x - known.mean_pivot) - known.mean_offset;
}

// z, what the group part normalizes: row_mean of precise.wgsl, element by element.
struct Elements {
    pivot: Word,
    offset: Word,
    rest: Word,
}

fn z_of(x: Word, known: ElementChannels) -> Elements {
    if (!has_channel_part()) {
        return Elements(x, Word(0.0), Word(0.0));
    }
    let above = above_channel_mean(x, known);
    let shift = rounded_word(known.scale * above);
    return Elements(known.bias, shift, product_rests(known.scale, above, shift) + known.scale_low * above);
}

// z less its group's mean.
fn above_mean(z: Elements, pivot: f32, offset: f32, rest: f32) -> Word {
    let high = rounded_word(z.pivot - Word(pivot)) + rounded_word(z.offset - Word(offset));
    return rounded_word(high) + (z.rest - Word(rest));
}

// dy, times the group part's weight where that is per channel, as pivot + offset.
struct Gradient {
    pivot: Word,
    offset: Word,
}

fn gradient_of(grad_y: Word, known: ElementChannels) -> Gradient {
    if (!weight_per_channel()) {
        return Gradient(grad_y, Word(0.0));
    }
    let pivot = rounded_word(known.weight * grad_y);
    return Gradient(pivot, product_rests(known.weight, grad_y, pivot));
}

// The same less the group's mean.
fn gradient_above(gradient: Gradient, pivot: f32, offset: f32) -> Word {
    return rounded_word(gradient.pivot - Word(pivot)) + (gradient.offset - Word(offset));
}

// dz: what the group part makes of dy.
fn group_gradient_of(gradient: Gradient, above: Word, group: GroupGradient) -> Word {
    let grad_above = gradient_above(gradient, group.grad_pivot, group.grad_offset);
    let rest = rounded_word(grad_above - Word(group.projection) * above);
    return Word(group.scale) * (rest - (Word(group.shift) + Word(group.rest) * above));
}
