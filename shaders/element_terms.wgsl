// Backward 3a for short rows. One invocation owns one word of a group's elements over one part of the samples, and
// writes for each of them the sums over these samples: terms of the channel part's gradients and of those of weight and
// bias where these are per channel. One read of x, one of dy.
//
// The terms of channel c lie (channel_len * parts, C): a fold over the batch reads them.
// #import spec
// #import params/element_columns
// #import tables
// #import storage/f32
// #import arithmetic/word_sums
// #import layout/item
// #import layout/elements
// #import layout/element_columns

@group(0) @binding(3) var<storage, read> x: array<Stored>;
@group(0) @binding(4) var<storage, read> grad_y: array<Stored>;
@group(0) @binding(5) var<storage, read> group_gradients: array<StoredGroupGradient>;
// #if channel_terms
@group(0) @binding(6) var<storage, read_write> channel_terms: array<GradientPair>;
// #end
// #if affine_terms
@group(0) @binding(7) var<storage, read_write> affine_terms: array<GradientPair>;
// #end

// Sums over samples, the bias's and the weight's: of a run of them, and of runs.
struct Terms {
    channel: Sums,
    affine: Sums,
}

struct TermTotals {
    channel: Totals,
    affine: Totals,
}

fn no_terms() -> Terms {
    return Terms(no_sums(), no_sums());
}

fn and_terms(totals: TermTotals, run: Terms) -> TermTotals {
    return TermTotals(and_run(totals.channel, run.channel), and_run(totals.affine, run.affine));
}

// And those of a sample more; i: its word.
fn and_word(terms: Terms, i: u32, known: ElementChannels, group: GroupGradient) -> Terms {
    let word = load(x[slot(i)], i);
    let grad = load(grad_y[slot(i)], i);
    let above = above_mean(z_of(word, known), group.mean_pivot, group.mean_offset, group.mean_rest);
    var sums = terms;
    // #if channel_terms
    let dz = group_gradient_of(gradient_of(grad, known), above, group);
    sums.channel = Sums(sums.channel.a + dz, sums.channel.b + dz * above_channel_mean(word, known));
    // #end
    // #if affine_terms
    sums.affine = Sums(sums.affine.a + grad, sums.affine.b + grad * (Word(group.rstd) * above));
    // #end
    return sums;
}

fn put(span: ElementSpan, totals: TermTotals, known: ElementChannels) {
    let channel = totals_of(totals.channel);
    let affine = totals_of(totals.affine);
    let channel_weight = known.rstd * channel.b;
    var place = place_of(span.first);
    for (var k = 0u; k < WIDTH; k = k + 1u) {
        let c = place.channel;
        let entry = place.within * params.split.parts + span.part;
        // #if channel_terms
        channel_terms[entry * params.groups.num_channels + c] = GradientPair(word_at(channel.a, k), word_at(channel_weight, k));
        // #end
        // #if affine_terms
        affine_terms[entry * params.groups.num_channels + c] = GradientPair(word_at(affine.a, k), word_at(affine.b, k));
        // #end
        place = next_place(place);
    }
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn element_terms(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let item = item_index(workgroup, num_workgroups, local);
    if (item >= params.dispatch.items) {
        return;
    }
    let span = element_span(item);
    let known = element_channels(span.first);
    var totals = TermTotals(no_totals(), no_totals());
    var terms = no_terms();
    for (var sample = span.begin; sample < span.end; sample = sample + 1u) {
        let group = group_gradient(group_gradients[sample * params.groups.num_groups + span.g]);
        terms = and_word(terms, element_word(span, sample), known, group);
        if (ends_run(sample - span.begin)) {
            totals = and_terms(totals, terms);
            terms = no_terms();
        }
    }
    put(span, and_terms(totals, terms), known);
}
