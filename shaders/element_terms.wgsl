// Backward 3a for short rows. One invocation owns COLUMN_WORDS words of a group's elements over one
// part of the samples, and writes for each of them the sums over these samples: terms of the channel part's gradients
// and of those of weight and bias where these are per channel. One read of x, one of dy.
//
// The terms of channel c lie (channel_len * parts, C): a fold over the batch reads them.
@group(0) @binding(1) var<storage, read> x: array<Stored>;
@group(0) @binding(2) var<storage, read> grad_y: array<Stored>;
@group(0) @binding(3) var<storage, read> channels: array<StoredChannel>;
@group(0) @binding(4) var<storage, read> group_gradients: array<StoredGroupGradient>;
@group(0) @binding(5) var<storage, read_write> channel_terms: array<GradientPair>;
@group(0) @binding(6) var<storage, read_write> affine_terms: array<GradientPair>;

// Sums over samples.
struct Terms {
    channel: Pair,
    affine: Pair,
}

struct Pair {
    bias: Word,
    weight: Word,
}

fn none() -> Terms {
    let zero = Word(0.0);
    return Terms(Pair(zero, zero), Pair(zero, zero));
}

// And those of a sample more; i: its word.
fn and_word(terms: Terms, i: u32, known: ElementChannels, group: GroupGradient) -> Terms {
    let word = load_x(i, WIDTH);
    let grad = load_grad_y(i, WIDTH);
    let above = above_mean(z_of(word, known), group.mean_pivot, group.mean_offset, group.mean_rest);
    var sums = terms;
    if (HAS_CHANNEL_TERMS) {
        let dz = group_gradient_of(gradient_of(grad, known), above, group);
        let bias = sums.channel.bias + dz;
        sums.channel = Pair(bias, sums.channel.weight + dz * above_channel_mean(word, known));
    }
    if (HAS_AFFINE_TERMS) {
        let bias = sums.affine.bias + grad;
        sums.affine = Pair(bias, sums.affine.weight + grad * (Word(group.rstd) * above));
    }
    return sums;
}

// What a word found, if it is there.
fn put(span: ElementSpan, word: u32, terms: Terms, known: ElementChannels) {
    if (!is_there(span, word)) {
        return;
    }
    let channel_weight = known.rstd * terms.channel.weight;
    let num_channels = params.num_channels / params.channel_len;
    for (var k = 0u; k < WIDTH; k = k + 1u) {
        let element = element_of(span, word) + k;
        let c = channel_at(element);
        let entry = (element - c * params.channel_len) * params.parts + span.part;
        if (HAS_CHANNEL_TERMS) {
            channel_terms[entry * num_channels + c] = GradientPair(word_at(terms.channel.bias, k), word_at(channel_weight, k));
        }
        if (HAS_AFFINE_TERMS) {
            affine_terms[entry * num_channels + c] = GradientPair(word_at(terms.affine.bias, k), word_at(terms.affine.weight, k));
        }
    }
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn element_terms(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let item = column_item(workgroup, num_workgroups, local);
    if (item >= params.items) {
        return;
    }
    let span = element_span(item);
    let known# = element_channels(element_of(span, #u));
    var terms# = none();
    for (var sample = span.begin; sample < span.end; sample = sample + 1u) {
        let i = first_word(span, sample);
        let group = group_gradient(group_gradients[sample * params.num_groups + span.g]);
        terms# = and_word(terms#, i + near(span, #u), known#, group);
    }
    put(span, #u, terms#, known#);
}
