// Backward 4 for short rows. One invocation owns one word of a group's elements over one part of the samples, and
// writes dx there: scale (dz - mean of dz - x-hat mean of dz x-hat), the channel's two means
// being 0 where no gradient flows through its statistics. One read of x, one of dy, one write of dx.
// #import spec
// #import params/element_columns
// #import tables
// #import storage/f32
// #import layout/item
// #import layout/elements
// #import layout/element_columns

@group(0) @binding(3) var<storage, read> x: array<Stored>;
@group(0) @binding(4) var<storage, read> grad_y: array<Stored>;
@group(0) @binding(5) var<storage, read> group_gradients: array<StoredGroupGradient>;
// #if channel_gradients
@group(0) @binding(6) var<storage, read> channel_gradients: array<GradientPair>;
// #end
@group(0) @binding(7) var<storage, read_write> grad_x: array<Stored>;

// The channels' means of dz and of dz x-hat, the latter times rstd.
struct Means {
    bias: Word,
    weight: Word,
}

// #if channel_gradients
fn with_means(means: Means, k: u32, place: Place) -> Means {
    let pair = channel_gradients[place.channel];
    return Means(with_element(means.bias, k, pair.bias), with_element(means.weight, k, pair.weight));
}
// #end

fn means_at(first: u32, known: ElementChannels) -> Means {
    var means = Means(Word(0.0), Word(0.0));
    // #if channel_gradients
    let place = place_of(first);
    means = with_means(means, 0u, place);
    if (WIDTH > 1u) {
        let second = next_place(place);
        means = with_means(means, 1u, second);
        if (WIDTH > 2u) {
            let third = next_place(second);
            means = with_means(means, 2u, third);
            means = with_means(means, 3u, next_place(third));
        }
    }
    means.weight = means.weight * known.rstd;
    // #end
    return means;
}

fn put(i: u32, known: ElementChannels, means: Means, group: GroupGradient) {
    let word = load(x[slot(i)], i);
    let gradient = gradient_of(load(grad_y[slot(i)], i), known);
    let above = above_mean(z_of(word, known), group.mean_pivot, group.mean_offset, group.mean_rest);
    var dz = group_gradient_of(gradient, above, group);
    // #if channel_gradients
    dz = (dz - means.bias) - means.weight * above_channel_mean(word, known);
    // #end
    var dx = known.scale * dz;
    if (ACCUMULATE) {
        dx = load(grad_x[slot(i)], i) + dx;
    }
    grad_x[i] = store(dx);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn element_affine_backward(
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
    let means = means_at(span.first, known);
    for (var sample = span.begin; sample < span.end; sample = sample + 1u) {
        let group = group_gradient(group_gradients[sample * params.groups.num_groups + span.g]);
        put(element_word(span, sample), known, means, group);
    }
}
