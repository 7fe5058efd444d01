// Forward 3 and 4 in one, for short rows and for groups that fit on chip. LANES invocations own one
// (sample, group): the statistics of its z, then y = activation(norm(x) + residual). One read of x from
// memory, one of the residual, one write of y. HELD words of z of a lane stay in registers; where that is 0, they are
// made anew in each of four loops, from a cache that holds x.
//
// As group_fold, where every element is a row. Sums are taken twice: about the first element for a mean
// that no single element can spoil much, then about that mean for what is left of it.
@group(0) @binding(1) var<storage, read> x: array<Stored>;
@group(0) @binding(2) var<storage, read> channels: array<StoredChannel>;
@group(0) @binding(3) var<storage, read> weight: array<f32>;
@group(0) @binding(4) var<storage, read> bias: array<f32>;
@group(0) @binding(5) var<storage, read> residual: array<Stored>;
@group(0) @binding(6) var<storage, read_write> groups: array<Group>;
@group(0) @binding(7) var<storage, read_write> y: array<Stored>;

// In place, x is in y.
fn x_at(i: u32) -> Word {
    if (HAS_X) {
        return load_x(i, WIDTH);
    }
    return load_y(i, WIDTH);
}

// A word's z, and the weight of its channels.
struct Held {
    z: Elements,
    weight: Word,
}

fn held_at(words: GroupWords, w: u32, of_first: ElementChannels) -> Held {
    let safe = min(w, words.size - 1u);
    let known = word_channels(words, safe, of_first);
    return Held(z_of(x_at(words.base + safe), known), known.weight);
}

// Behind the group's last word, 0. (Held words that are not there lie behind it too.)
fn inside(words: GroupWords, w: u32, value: Word) -> Word {
    return select(Word(0.0), value, w < words.size);
}

fn above_of(z: Elements, group: Group) -> Word {
    return above_mean(z, group.mean_pivot, group.mean_offset, group.mean_rest);
}

// The bias of a word's elements.
fn bias_at(words: GroupWords, w: u32) -> Word {
    var word = Word(0.0);
    if (HAS_BIAS) {
        if (SINGLE) {
            return Word(bias[words.g]);
        }
        let first = words.first + w * WIDTH;
        let per_channel = (params.flags & PER_CHANNEL) != 0u;
        word = Word(bias[select(words.g, channel_at(first), per_channel)]);
        if (!ALIGNED) {
            if (WIDTH > 1u) {
                word = with_element(word, 1u, bias[select(words.g, channel_at(first + 1u), per_channel)]);
            }
            if (WIDTH > 2u) {
                word = with_element(word, 2u, bias[select(words.g, channel_at(first + 2u), per_channel)]);
                word = with_element(word, 3u, bias[select(words.g, channel_at(first + 3u), per_channel)]);
            }
        }
    }
    return word;
}

fn write_word(words: GroupWords, w: u32, held: Held, group: Group, of_first: Word) {
    if (w >= words.size) {
        return;
    }
    let i = words.base + w;
    var b = of_first;
    if (!SINGLE) {
        b = bias_at(words, w);
    }
    // One of the two weights is 1.
    let scale = (Word(group.weight) * held.weight) * Word(group.rstd);
    var t = scale * above_of(held.z, group) + b;
    if (HAS_RESIDUAL) {
        t = t + load_residual(i, WIDTH);
    }
    store_y(i, activate(t), WIDTH);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn element_affine(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let item = item_index(workgroup, num_workgroups, local);
    let lane = local % LANES;
    let active_item = item < params.items;
    let words = group_words(min(item, params.items - 1u));
    let count = f32(words.size * WIDTH);

    let of_first = element_channels(words.first);
    var h# = held_at(words, lane + #u * LANES, of_first);
    // The same where all are lane 0's.
    var z_first = h0.z;
    if (LANES > 1u) {
        z_first = z_of(x_at(words.base), of_first);
    }
    let pivot = word_at(z_first.pivot, 0u);
    let offset = word_at(z_first.offset, 0u);
    var pivots = Word(0.0);
    var offsets = Word(0.0);
    for (var i = 0u; i < words.chunks; i = i + 1u) {
        let w = i * (WORDS * LANES) + lane;
        if (HELD == 0u) {
            h# = held_at(words, w + #u * LANES, of_first);
        }
        // Of these words first: fewer roundings in a row.
        var of_pivots = Word(0.0);
        var of_offsets = Word(0.0);
        of_pivots = of_pivots + inside(words, w + #u * LANES, rounded_words(h#.z.pivot - Word(pivot)));
        of_offsets = of_offsets + inside(words, w + #u * LANES, rounded_words(h#.z.offset - Word(offset)));
        pivots = pivots + of_pivots;
        offsets = offsets + of_offsets;
    }
    let means = reduce_pair(vec2<f32>(word_sum(pivots), word_sum(offsets)), local) / count;
    let rest = word_at(z_first.rest, 0u);
    var group = Group(pivot + means.x, offset + means.y, rest, 0.0, 1.0);
    if (HAS_WEIGHT && (params.flags & PER_CHANNEL) == 0u) {
        group.weight = weight[words.g];
    }

    // What is left of the mean: nothing where all elements are of one value, whose parts are the mean's.
    // Then the spread.
    var left = Word(0.0);
    for (var i = 0u; i < words.chunks; i = i + 1u) {
        let w = i * (WORDS * LANES) + lane;
        if (HELD == 0u) {
            h# = held_at(words, w + #u * LANES, of_first);
        }
        var of_words = Word(0.0);
        of_words = of_words + inside(words, w + #u * LANES, above_of(h#.z, group));
        left = left + of_words;
    }
    group.mean_rest = rest + reduce_pair(vec2<f32>(word_sum(left), 0.0), local).x / count;
    var squares = Word(0.0);
    for (var i = 0u; i < words.chunks; i = i + 1u) {
        let w = i * (WORDS * LANES) + lane;
        if (HELD == 0u) {
            h# = held_at(words, w + #u * LANES, of_first);
        }
        let above# = inside(words, w + #u * LANES, above_of(h#.z, group));
        var of_words = Word(0.0);
        of_words = of_words + above# * above#;
        squares = squares + of_words;
    }
    let spread = reduce_pair(vec2<f32>(word_sum(squares), 0.0), local).x;
    group.rstd = reciprocal_std(spread / degrees_of_freedom(count) + params.eps);
    if (!active_item) {
        return;
    }
    if (HAS_GROUPS) {
        if (lane == 0u) {
            groups[item] = group;
        }
    }
    let first_bias = bias_at(words, 0u);
    for (var i = 0u; i < words.chunks; i = i + 1u) {
        let w = i * (WORDS * LANES) + lane;
        if (HELD == 0u) {
            h# = held_at(words, w + #u * LANES, of_first);
        }
        write_word(words, w + #u * LANES, h#, group, first_bias);
    }
}
