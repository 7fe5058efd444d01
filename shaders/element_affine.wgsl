// Forward 3 and 4 in one, for short rows and for groups that fit on chip. LANES invocations own one (sample, group): the
// statistics of its z, then y = activation(norm(x) + residual). One read of x from memory, one of the residual, one
// write of y, where a group's words are a chunk of each lane (see layout/group_words.wgsl).
//
// As group_fold, where every element is a row. Sums are taken twice: about the first element for a mean
// that no single element can spoil much, then about that mean for what is left of it, and for the spread.
// #import spec
// #import params/elements
// #import tables
// #import storage/f32
// #import arithmetic/activation
// #import arithmetic/precise
// #import arithmetic/word_sums
// #import layout/item
// #import layout/elements
// #import layout/group_words
// #import reduction/serial

// #if x
@group(0) @binding(3) var<storage, read> x: array<Stored>;
// #end
// #if bias
@group(0) @binding(4) var<storage, read> bias: array<f32>;
// #end
// #if residual
@group(0) @binding(5) var<storage, read> residual: array<Stored>;
// #end
// #if groups
@group(0) @binding(6) var<storage, read_write> groups: array<Group>;
// #end
@group(0) @binding(7) var<storage, read_write> y: array<Stored>;

// A word's z, and the weight of its channels.
struct Normalized {
    z: Elements,
    weight: Word,
}

fn normalized_at(words: GroupWords, w: u32) -> Normalized {
    let i = words.base + w;
    let known = element_channels(words.first + w * WIDTH);
    var word: Word;
    // #if x
    word = load(x[slot(i)], i);
    // #else
    // In place, x is in y.
    word = load(y[slot(i)], i);
    // #end
    return Normalized(z_of(word, known), known.weight);
}

struct Chunk {
    w0: Normalized,
    w1: Normalized,
    w2: Normalized,
    w3: Normalized,
}

fn chunk_at(words: GroupWords, w: u32) -> Chunk {
    return Chunk(
        normalized_at(words, word_or_last(words, w)),
        normalized_at(words, word_or_last(words, w + LANES)),
        normalized_at(words, word_or_last(words, w + 2u * LANES)),
        normalized_at(words, word_or_last(words, w + 3u * LANES)),
    );
}

fn above_of(z: Elements, group: Group) -> Word {
    return above_mean(z, group.mean_pivot, group.mean_offset, group.mean_rest);
}

// The sums with a word's z, less a first one.
fn with_z(sums: Sums, words: GroupWords, w: u32, z: Elements, first: RowMean) -> Sums {
    let pivots = rounded_word(z.pivot - Word(first.pivot));
    return with_word(sums, words, w, pivots, rounded_word(z.offset - Word(first.offset)));
}

fn with_chunk_z(sums: Sums, words: GroupWords, w: u32, chunk: Chunk, first: RowMean) -> Sums {
    var run = with_z(sums, words, w, chunk.w0.z, first);
    run = with_z(run, words, w + LANES, chunk.w1.z, first);
    run = with_z(run, words, w + 2u * LANES, chunk.w2.z, first);
    return with_z(run, words, w + 3u * LANES, chunk.w3.z, first);
}

// The sums with a word's z less the group's mean, and its square.
fn with_above(sums: Sums, words: GroupWords, w: u32, z: Elements, group: Group, unit: f32) -> Sums {
    let above = above_of(z, group);
    let scaled = Word(unit) * above;
    return with_word(sums, words, w, above, scaled * scaled);
}

fn with_chunk_above(sums: Sums, words: GroupWords, w: u32, chunk: Chunk, group: Group, unit: f32) -> Sums {
    var run = with_above(sums, words, w, chunk.w0.z, group, unit);
    run = with_above(run, words, w + LANES, chunk.w1.z, group, unit);
    run = with_above(run, words, w + 2u * LANES, chunk.w2.z, group, unit);
    return with_above(run, words, w + 3u * LANES, chunk.w3.z, group, unit);
}

// #if bias
fn bias_of(words: GroupWords, place: Place) -> f32 {
    return bias[select(words.g, place.channel, weight_per_channel())];
}

// The bias of a word's elements.
fn bias_at(words: GroupWords, w: u32) -> Word {
    let place = place_of(words.first + w * WIDTH);
    var word = Word(bias_of(words, place));
    if (!ALIGNED) {
        if (WIDTH > 1u) {
            let second = next_place(place);
            word = with_element(word, 1u, bias_of(words, second));
            if (WIDTH > 2u) {
                let third = next_place(second);
                word = with_element(word, 2u, bias_of(words, third));
                word = with_element(word, 3u, bias_of(words, next_place(third)));
            }
        }
    }
    return word;
}
// #end

fn put(words: GroupWords, w: u32, word: Normalized, group: Group) {
    if (w >= words.size) {
        return;
    }
    let i = words.base + w;
    // One of the two weights is 1.
    let scale = (Word(group.weight) * word.weight) * Word(group.rstd);
    var t = scale * above_of(word.z, group);
    // #if bias
    t = t + bias_at(words, w);
    // #end
    // #if residual
    t = t + load(residual[slot(i)], i);
    // #end
    y[i] = store(activate(t));
}

fn put_chunk(words: GroupWords, w: u32, chunk: Chunk, group: Group) {
    put(words, w, chunk.w0, group);
    put(words, w + LANES, chunk.w1, group);
    put(words, w + 2u * LANES, chunk.w2, group);
    put(words, w + 3u * LANES, chunk.w3, group);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn element_affine(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let item = item_index(workgroup, num_workgroups, local);
    let lane = local % LANES;
    let active_item = item < params.dispatch.items;
    let words = group_words(min(item, params.dispatch.items - 1u));
    let count = f32(words.size * WIDTH);
    let unit = square_unit(count);

    let first_word = normalized_at(words, 0u).z;
    let first = RowMean(
        word_at(first_word.pivot, 0u),
        word_at(first_word.offset, 0u),
        word_at(first_word.rest, 0u),
    );
    let own = chunk_at(words, lane);
    var sums = no_totals();
    var run = with_chunk_z(no_sums(), words, lane, own, first);
    for (var i = 1u; i < words.chunks; i = i + 1u) {
        let w = chunk_word(i, lane);
        run = with_chunk_z(run, words, w, chunk_at(words, w), first);
        if (ends_run(i)) {
            sums = and_run(sums, run);
            run = no_sums();
        }
    }
    let means = reduce_pair(lane_sums(sums, run), local) / count;
    var group = Group(first.pivot + means.x, first.offset + means.y, first.rest, 0.0, group_weight(words.g));

    // What is left of the mean: nothing where all elements are of one value, whose parts are the mean's. And the spread,
    // less what the former adds to it.
    sums = no_totals();
    run = with_chunk_above(no_sums(), words, lane, own, group, unit);
    for (var i = 1u; i < words.chunks; i = i + 1u) {
        let w = chunk_word(i, lane);
        run = with_chunk_above(run, words, w, chunk_at(words, w), group, unit);
        if (ends_run(i)) {
            sums = and_run(sums, run);
            run = no_sums();
        }
    }
    let left = reduce_pair(lane_sums(sums, run), local);
    group.mean_rest = group.mean_rest + left.x / count;
    let spread = left.y - (unit * left.x) * (unit * (left.x / count));
    // (Not max, which may lose a NaN.)
    let variance = select(spread, 0.0, spread < 0.0) / ((degrees_of_freedom(params.norm, count) * unit) * unit);
    group.rstd = reciprocal_std(variance + params.norm.eps);
    if (!active_item) {
        return;
    }
    // #if groups
    if (lane == 0u) {
        groups[item] = group;
    }
    // #end
    put_chunk(words, lane, own, group);
    for (var i = 1u; i < words.chunks; i = i + 1u) {
        let w = chunk_word(i, lane);
        put_chunk(words, w, chunk_at(words, w), group);
    }
}
