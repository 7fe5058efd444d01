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

fn z_at(words: GroupWords, w: u32) -> Elements {
    let safe = min(w, words.size - 1u);
    return z_of(x_at(words.base + safe), element_channels(words.first + safe * WIDTH));
}

struct Chunk {
    z0: Elements,
    z1: Elements,
    z2: Elements,
    z3: Elements,
}

fn chunk_at(words: GroupWords, w: u32) -> Chunk {
    let z0 = z_at(words, w);
    var chunk = Chunk(z0, z0, z0, z0);
    if (WORDS > 1u) {
        chunk.z1 = z_at(words, w + LANES);
    }
    if (WORDS > 2u) {
        chunk.z2 = z_at(words, w + 2u * LANES);
    }
    if (WORDS > 3u) {
        chunk.z3 = z_at(words, w + 3u * LANES);
    }
    return chunk;
}

// Behind the group's last word, 0. (Held words that are not there lie behind it too.)
fn inside(words: GroupWords, w: u32, value: Word) -> Word {
    return select(Word(0.0), value, w < words.size);
}

fn above_of(z: Elements, group: Group) -> Word {
    return above_mean(z, group.mean_pivot, group.mean_offset, group.mean_rest);
}

// The bias of a word's elements.
fn bias_at(first: u32, g: u32) -> Word {
    var word = Word(0.0);
    if (HAS_BIAS) {
        if ((params.flags & PER_CHANNEL) == 0u) {
            return Word(bias[g]);
        }
        word = Word(bias[first / params.channel_len]);
        if (!ALIGNED) {
            if (WIDTH > 1u) {
                word = with_element(word, 1u, bias[(first + 1u) / params.channel_len]);
            }
            if (WIDTH > 2u) {
                word = with_element(word, 2u, bias[(first + 2u) / params.channel_len]);
                word = with_element(word, 3u, bias[(first + 3u) / params.channel_len]);
            }
        }
    }
    return word;
}

fn scale_at(first: u32, group: Group) -> Word {
    if ((params.flags & PER_CHANNEL) == 0u) {
        return Word(group.weight * group.rstd);
    }
    return element_channels(first).weight * Word(group.rstd);
}

fn write_word(words: GroupWords, w: u32, z: Elements, group: Group) {
    if (w >= words.size) {
        return;
    }
    let i = words.base + w;
    let first = words.first + w * WIDTH;
    var t = scale_at(first, group) * above_of(z, group) + bias_at(first, words.g);
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

    let z_first = z_at(words, 0u);
    let pivot = word_at(z_first.pivot, 0u);
    let offset = word_at(z_first.offset, 0u);
    var chunk = chunk_at(words, lane);
    var pivots = Word(0.0);
    var offsets = Word(0.0);
    for (var i = 0u; i < words.chunks; i = i + 1u) {
        let w = i * (WORDS * LANES) + lane;
        if (HELD == 0u) {
            chunk = chunk_at(words, w);
        }
        let p0 = inside(words, w, rounded_words(chunk.z0.pivot - Word(pivot)));
        let p1 = inside(words, w + LANES, rounded_words(chunk.z1.pivot - Word(pivot)));
        let p2 = inside(words, w + 2u * LANES, rounded_words(chunk.z2.pivot - Word(pivot)));
        let p3 = inside(words, w + 3u * LANES, rounded_words(chunk.z3.pivot - Word(pivot)));
        pivots = pivots + ((p0 + p1) + (p2 + p3));
        let o0 = inside(words, w, rounded_words(chunk.z0.offset - Word(offset)));
        let o1 = inside(words, w + LANES, rounded_words(chunk.z1.offset - Word(offset)));
        let o2 = inside(words, w + 2u * LANES, rounded_words(chunk.z2.offset - Word(offset)));
        let o3 = inside(words, w + 3u * LANES, rounded_words(chunk.z3.offset - Word(offset)));
        offsets = offsets + ((o0 + o1) + (o2 + o3));
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
            chunk = chunk_at(words, w);
        }
        let l0 = inside(words, w, above_of(chunk.z0, group));
        let l1 = inside(words, w + LANES, above_of(chunk.z1, group));
        let l2 = inside(words, w + 2u * LANES, above_of(chunk.z2, group));
        let l3 = inside(words, w + 3u * LANES, above_of(chunk.z3, group));
        left = left + ((l0 + l1) + (l2 + l3));
    }
    group.mean_rest = rest + reduce_pair(vec2<f32>(word_sum(left), 0.0), local).x / count;
    var squares = Word(0.0);
    for (var i = 0u; i < words.chunks; i = i + 1u) {
        let w = i * (WORDS * LANES) + lane;
        if (HELD == 0u) {
            chunk = chunk_at(words, w);
        }
        let a0 = inside(words, w, above_of(chunk.z0, group));
        let a1 = inside(words, w + LANES, above_of(chunk.z1, group));
        let a2 = inside(words, w + 2u * LANES, above_of(chunk.z2, group));
        let a3 = inside(words, w + 3u * LANES, above_of(chunk.z3, group));
        squares = squares + ((a0 * a0 + a1 * a1) + (a2 * a2 + a3 * a3));
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
    for (var i = 0u; i < words.chunks; i = i + 1u) {
        let w = i * (WORDS * LANES) + lane;
        if (HELD == 0u) {
            chunk = chunk_at(words, w);
        }
        write_word(words, w, chunk.z0, group);
        write_word(words, w + LANES, chunk.z1, group);
        write_word(words, w + 2u * LANES, chunk.z2, group);
        write_word(words, w + 3u * LANES, chunk.z3, group);
    }
}
