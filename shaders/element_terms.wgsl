// Backward 3a for short rows. One invocation owns a word of a sample's elements over one part of the
// samples, and writes for each of them the sums over these samples: terms of the channel part's gradients
// and of those of weight and bias where these are per channel. One read of x, one of dy.
//
// The terms of channel c lie (channel_len * parts, C): a fold over the batch reads them.
@group(0) @binding(1) var<storage, read> x: array<Stored>;
@group(0) @binding(2) var<storage, read> grad_y: array<Stored>;
@group(0) @binding(3) var<storage, read> channels: array<StoredChannel>;
@group(0) @binding(4) var<storage, read> group_gradients: array<StoredGroupGradient>;
@group(0) @binding(5) var<storage, read_write> channel_terms: array<GradientPair>;
@group(0) @binding(6) var<storage, read_write> affine_terms: array<GradientPair>;

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
    let span = column_span(item);
    let g = span.row / (params.num_channels / params.num_groups);
    let known = element_channels(span.row);
    var channel_bias = Word(0.0);
    var channel_weight = Word(0.0);
    var affine_bias = Word(0.0);
    var affine_weight = Word(0.0);
    for (var sample = span.begin; sample < span.end; sample = sample + 1u) {
        let i = column_grain(span, sample);
        let group = group_gradient(group_gradients[sample * params.num_groups + g]);
        let word = load_x(i, WIDTH);
        let grad = load_grad_y(i, WIDTH);
        let above = above_mean(z_of(word, known), group.mean_pivot, group.mean_offset, group.mean_rest);
        if (HAS_CHANNEL_TERMS) {
            let dz = group_gradient_of(gradient_of(grad, known), above, group);
            channel_bias = channel_bias + dz;
            channel_weight = channel_weight + dz * above_channel_mean(word, known);
        }
        if (HAS_AFFINE_TERMS) {
            affine_bias = affine_bias + grad;
            affine_weight = affine_weight + grad * (Word(group.rstd) * above);
        }
    }
    channel_weight = known.rstd * channel_weight;
    let num_channels = params.num_channels / params.channel_len;
    for (var k = 0u; k < WIDTH; k = k + 1u) {
        let element = span.row + k;
        let c = element / params.channel_len;
        let entry = (element - c * params.channel_len) * params.parts + span.part;
        if (HAS_CHANNEL_TERMS) {
            channel_terms[entry * num_channels + c] = GradientPair(word_at(channel_bias, k), word_at(channel_weight, k));
        }
        if (HAS_AFFINE_TERMS) {
            affine_terms[entry * num_channels + c] = GradientPair(word_at(affine_bias, k), word_at(affine_weight, k));
        }
    }
}
