// Forward 3 and 4 in one, for short rows and for groups that fit on chip. LANES invocations own one group in SAMPLES
// samples: the statistics of its z, then y = activation(norm(x) + residual). One read of x from memory, one of the
// residual, one write of y. HELD words of z of a lane stay in registers; where that is 0, they are made anew in each of
// three loops, from a cache that holds x; several samples share the loads of the channels then.
//
// As group_fold, where every element is a row. Sums are taken twice: about the first element for a mean
// that no single element can spoil much, then about that mean for what is left of it, and for the spread.
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

fn held_at(words: GroupWords, sample: SampleWords, w: u32, known: ElementChannels) -> Held {
    let safe = min(w, words.size - 1u);
    let own = word_channels(words, safe, known);
    return Held(z_of(x_at(sample.base + safe), own), own.weight);
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

// The biases of the first of a chunk's words: of all of them where the group is one channel, or where they are one word
// of several samples.
fn shared_bias(words: GroupWords, w: u32, of_first: Word) -> Word {
    if (SAMPLES == 1u) {
        return of_first;
    }
    return bias_at(words, min(w, words.size - 1u));
}

fn write_word(words: GroupWords, sample: SampleWords, w: u32, held: Held, group: Group, known: Word) {
    if (w >= words.size || !sample.there) {
        return;
    }
    let i = sample.base + w;
    var b = known;
    if (!SINGLE && SAMPLES == 1u) {
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

fn put(sample: SampleWords, group: Group) {
    if (HAS_GROUPS) {
        if (sample.there) {
            groups[sample.item] = group;
        }
    }
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
    let unit = square_unit(count);
    let s$ = sample_words(words, $u);

    let of_first = element_channels(words.first);
    var h# = held_at(words, s$, lane + behind(#u), of_first);
    // The same where all are lane 0's.
    var first$ = h$.z;
    if (LANES > 1u) {
        first$ = z_of(x_at(s$.base), of_first);
    }
    let pivot$ = word_at(first$.pivot, 0u);
    let offset$ = word_at(first$.offset, 0u);
    var sums$ = no_totals();
    var run$ = no_sums();
    for (var i = 0u; i < words.chunks; i = i + 1u) {
        let w = i * (WORDS * LANES) + lane;
        if (HELD == 0u) {
            let known = shared_channels(words, w, of_first);
            h# = held_at(words, s$, w + behind(#u), known);
        }
        let pivots# = rounded_words(h#.z.pivot - Word(pivot$));
        run$ = with_word(run$, words, w + behind(#u), pivots#, rounded_words(h#.z.offset - Word(offset$)));
        if (ends_run(i)) {
            sums$ = and_run(sums$, run$);
            run$ = no_sums();
        }
    }
    let means$ = reduce_pair(lane_sums(sums$, run$), local) / count;
    var group$ = Group(pivot$ + means$.x, offset$ + means$.y, word_at(first$.rest, 0u), 0.0, 1.0);
    if (HAS_WEIGHT && (params.flags & PER_CHANNEL) == 0u) {
        group$.weight = weight[words.g];
    }

    // What is left of the mean: nothing where all elements are of one value, whose parts are the mean's. And the spread,
    // less what the former adds to it.
    sums$ = no_totals();
    run$ = no_sums();
    for (var i = 0u; i < words.chunks; i = i + 1u) {
        let w = i * (WORDS * LANES) + lane;
        if (HELD == 0u) {
            let known = shared_channels(words, w, of_first);
            h# = held_at(words, s$, w + behind(#u), known);
        }
        let above# = above_of(h#.z, group$);
        let scaled# = Word(unit) * above#;
        run$ = with_word(run$, words, w + behind(#u), above#, scaled# * scaled#);
        if (ends_run(i)) {
            sums$ = and_run(sums$, run$);
            run$ = no_sums();
        }
    }
    let left$ = reduce_pair(lane_sums(sums$, run$), local);
    group$.mean_rest = group$.mean_rest + left$.x / count;
    let spread$ = left$.y - (unit * left$.x) * (unit * (left$.x / count));
    // (Not max, which may lose a NaN.)
    let variance$ = select(spread$, 0.0, spread$ < 0.0) / ((degrees_of_freedom(count) * unit) * unit);
    group$.rstd = reciprocal_std(variance$ + params.eps);
    if (!active_item) {
        return;
    }
    if (lane == 0u) {
        put(s$, group$);
    }
    let first_bias = bias_at(words, 0u);
    for (var i = 0u; i < words.chunks; i = i + 1u) {
        let w = i * (WORDS * LANES) + lane;
        if (HELD == 0u) {
            let known = shared_channels(words, w, of_first);
            h# = held_at(words, s$, w + behind(#u), known);
        }
        let b = shared_bias(words, w, first_bias);
        write_word(words, s$, w + behind(#u), h#, group$, b);
    }
}
