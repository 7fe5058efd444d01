// Backward 4 for short rows. One invocation owns COLUMN_WORDS words of a group's elements over one
// part of the samples, and writes dx there: scale (dz - mean of dz - x-hat mean of dz x-hat), the channel's two means
// being 0 where no gradient flows through its statistics. One read of x, one of dy, one write of dx.
@group(0) @binding(1) var<storage, read> x: array<Stored>;
@group(0) @binding(2) var<storage, read> grad_y: array<Stored>;
@group(0) @binding(3) var<storage, read> channels: array<StoredChannel>;
@group(0) @binding(4) var<storage, read> group_gradients: array<StoredGroupGradient>;
@group(0) @binding(5) var<storage, read> channel_gradients: array<GradientPair>;
@group(0) @binding(6) var<storage, read_write> grad_x: array<Stored>;

// The channels' means of dz and of dz x-hat, the latter times rstd.
struct Means {
    bias: Word,
    weight: Word,
}

fn with_means(means: Means, k: u32, element: u32) -> Means {
    let pair = channel_gradients[channel_at(element)];
    return Means(with_element(means.bias, k, pair.bias), with_element(means.weight, k, pair.weight));
}

fn means_at(first: u32, known: ElementChannels) -> Means {
    var means = Means(Word(0.0), Word(0.0));
    if (HAS_CHANNEL_GRADIENTS) {
        means = with_means(means, 0u, first);
        if (WIDTH > 1u) {
            means = with_means(means, 1u, first + 1u);
        }
        if (WIDTH > 2u) {
            means = with_means(means, 2u, first + 2u);
            means = with_means(means, 3u, first + 3u);
        }
        means.weight = means.weight * known.rstd;
    }
    return means;
}

fn map(i: u32, there: bool, known: ElementChannels, means: Means, group: GroupGradient) {
    if (!there) {
        return;
    }
    let word = load_x(i, WIDTH);
    let gradient = gradient_of(load_grad_y(i, WIDTH), known);
    let above = above_mean(z_of(word, known), group.mean_pivot, group.mean_offset, group.mean_rest);
    var dz = group_gradient_of(gradient, above, group);
    if (HAS_CHANNEL_GRADIENTS) {
        dz = (dz - means.bias) - means.weight * above_channel_mean(word, known);
    }
    var dx = known.scale * dz;
    if (ACCUMULATE) {
        dx = load_grad_x(i, WIDTH) + dx;
    }
    store_grad_x(i, dx, WIDTH);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn element_affine_backward(
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
    let means# = means_at(element_of(span, #u), known#);
    for (var sample = span.begin; sample < span.end; sample = sample + 1u) {
        let i = first_word(span, sample);
        let group = group_gradient(group_gradients[sample * params.num_groups + span.g]);
        map(i + near(span, #u), is_there(span, #u), known#, means#, group);
    }
}
