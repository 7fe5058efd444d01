// Backward 2. LANES invocations own one (sample, group): what it makes of dy in each of its rows, and
// its terms of the gradients: of bias and weight, per group or per row, and per row those of bn.bias
// and bn.weight. All sums are of differences from the group's mean of dy (times the weight, where that
// is per channel), so that a large one cancels nowhere.
@group(0) @binding(1) var<storage, read> rows: array<Moments>;
@group(0) @binding(2) var<storage, read> products: array<Products>;
@group(0) @binding(3) var<storage, read> channels: array<Channel>;
@group(0) @binding(4) var<storage, read> groups: array<Group>;
@group(0) @binding(5) var<storage, read_write> gradient_terms: array<GradientPair>;
@group(0) @binding(6) var<storage, read_write> row_gradients: array<RowGradient>;

// The same of w dy, where the group part's weight w is per channel.
fn weighted(entry: Products, channel: Channel) -> Products {
    if ((params.flags & PER_CHANNEL) == 0u) {
        return entry;
    }
    let w = channel.weight;
    let pivot = rounded(w * entry.pivot);
    let offset = product_rest(w, entry.pivot, pivot) + w * entry.offset;
    return Products(entry.count, pivot, offset, entry.x_mean, w * entry.product);
}

// Mean of dy (or w dy) over the row, less the group's mean.
fn grad_above_mean(entry: Products, mean: Moments) -> f32 {
    return rounded(entry.pivot - mean.pivot) + (entry.offset - mean.offset);
}

// a / b; 0 where b is 0: a group without spread has nothing to project out.
fn ratio(a: f32, b: f32) -> f32 {
    return select(a / b, 0.0, b == 0.0);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn group_fold_backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let item = item_index(workgroup, num_workgroups, local);
    let lane = local % LANES;
    let active_item = item < params.items;
    let safe_item = min(item, params.items - 1u);
    let g = safe_item % params.num_groups;
    let sample = safe_item / params.num_groups;
    let size = params.num_channels / params.num_groups;
    let first_channel = g * size;
    let first_row = safe_item * size;
    let group = groups[safe_item];
    let len = f32(params.row_len);
    let group_len = f32(size) * len;

    // Mean of dy over the group, as pivot + offset: rows are moments without a spread. Where w is per
    // channel, dy is w dy from here on.
    var mean = Moments(0u, 0.0, 0.0, 0.0);
    for (var i = lane; i < size; i = i + LANES) {
        let entry = weighted(products[first_row + i], channels[first_channel + i]);
        mean = merge_moments(mean, Moments(params.row_len, entry.pivot, entry.offset, 0.0));
    }
    mean = reduce_moments(mean, local);

    // z less its mean, c its multiple in dy: project it out once, and once more from what is left,
    // since rounding leaves some of it (Gram-Schmidt, twice is enough). In small groups little else
    // remains of dz, and the plain difference would be rounding.
    var projection = vec2<f32>(0.0, 0.0);
    for (var i = lane; i < size; i = i + LANES) {
        let row = rows[first_row + i];
        let channel = channels[first_channel + i];
        let entry = weighted(products[first_row + i], channel);
        let above = above_group_mean(row, channel, group);
        let grad_above = grad_above_mean(entry, mean);
        projection = projection + vec2<f32>(
            channel.scale * entry.product + (len * grad_above) * above,
            channel.scale * channel.scale * row.m2 + len * (above * above),
        );
    }
    projection = reduce_pair(projection, local);
    let spread = projection.y;
    let c = ratio(projection.x, spread);
    var left = vec2<f32>(0.0, 0.0);
    for (var i = lane; i < size; i = i + LANES) {
        let row = rows[first_row + i];
        let channel = channels[first_channel + i];
        let entry = weighted(products[first_row + i], channel);
        let above = above_group_mean(row, channel, group);
        let rest = rounded(grad_above_mean(entry, mean) - c * above);
        let inner = entry.product - c * (channel.scale * row.m2);
        left = left + vec2<f32>(len * rest, channel.scale * inner + (len * rest) * above);
    }
    left = reduce_pair(left, local);
    if (!active_item) {
        return;
    }
    let shift = left.x / group_len;
    let c_left = ratio(left.y, spread);

    // Columns of the terms: the channel part's, if it has any, then those of bias and weight, if there
    // are any.
    let first_term = sample * params.columns;
    let first_affine = first_term + params.channel_columns;
    let channel_terms = HAS_GRADIENT_TERMS && params.channel_columns != 0u;
    let affine_terms = HAS_GRADIENT_TERMS && params.columns != params.channel_columns;
    let per_channel = (params.flags & PER_CHANNEL) != 0u;
    let h = group.rstd * projection.x;
    if (affine_terms && !per_channel && lane == 0u) {
        let sum = group_len * mean.pivot + group_len * mean.offset;
        gradient_terms[first_affine + g] = GradientPair(sum, h);
    }
    // dz = rstd weight (dy less all of z, plus the share of z that eps leaves): its mean over each
    // row, and its sum times x-hat.
    let freedom = degrees_of_freedom(group_len);
    let variance = spread / freedom;
    let kept = (c + c_left) * ratio(params.eps, variance + params.eps);
    let scale = group.rstd * group.weight;
    let k = group.weight * h / freedom;
    for (var i = lane; i < size; i = i + LANES) {
        let row = rows[first_row + i];
        let channel = channels[first_channel + i];
        let plain = products[first_row + i];
        let entry = weighted(plain, channel);
        let above = above_group_mean(row, channel, group);
        let rest = rounded(grad_above_mean(entry, mean) - c * above) - (shift + c_left * above);
        let dz_mean = scale * (rest + kept * above);
        row_gradients[first_row + i] = RowGradient(
            scale * channel.weight,
            -(group.rstd * group.rstd * k * channel.scale),
            dz_mean,
        );
        if (channel_terms) {
            let m2 = channel.scale * row.m2;
            let inner = (entry.product - c * m2) - c_left * m2;
            let t1 = len * dz_mean;
            let t2 = scale * (inner + kept * m2);
            gradient_terms[first_term + first_channel + i] = GradientPair(t1, channel.rstd * (t2 + x_above_mean(row, channel) * t1));
        }
        if (affine_terms && per_channel) {
            let sum = len * plain.pivot + len * plain.offset;
            gradient_terms[first_affine + first_channel + i] = GradientPair(sum, group.rstd * (channel.scale * plain.product + above * sum));
        }
    }
}
