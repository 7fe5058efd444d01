// Backward 2. LANES invocations own one (sample, group): its terms of the gradients of bias and
// weight, and then, per row, the terms of the gradients of bn.bias and bn.weight. All sums are of
// differences from the group's mean of dy, so that a large one cancels nowhere.
@group(0) @binding(1) var<storage, read> rows: array<Moments>;
@group(0) @binding(2) var<storage, read> products: array<Products>;
@group(0) @binding(3) var<storage, read> channels: array<Channel>;
@group(0) @binding(4) var<storage, read> groups: array<Group>;
@group(0) @binding(5) var<storage, read_write> gradient_terms: array<GradientPair>;

// Mean of z over the row, less the group's mean.
fn above_group_mean(row: Moments, channel: Channel, group: Group) -> f32 {
    let shift = channel.scale * ((row.pivot - channel.mean_pivot) + (row.offset - channel.mean_offset));
    return (channel.bias - group.mean_pivot) + (shift - group.mean_offset);
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

    // Mean of dy over the group, as pivot + offset: rows are moments without a spread.
    var mean = Moments(0u, 0.0, 0.0, 0.0);
    for (var i = lane; i < size; i = i + LANES) {
        let entry = products[first_row + i];
        mean = merge_moments(mean, Moments(params.row_len, entry.pivot, entry.sum / len, 0.0));
    }
    mean = reduce_moments(mean, local);

    // H = sum of dy z-hat over the group.
    var h = 0.0;
    for (var i = lane; i < size; i = i + LANES) {
        let row = rows[first_row + i];
        let channel = channels[first_channel + i];
        let entry = products[first_row + i];
        let grad_above = (entry.pivot - mean.pivot) + (entry.sum / len - mean.offset);
        h = h + (channel.scale * entry.product + above_group_mean(row, channel, group) * (len * grad_above));
    }
    h = group.rstd * reduce_pair(vec2<f32>(h, 0.0), local).x;
    if (!active_item) {
        return;
    }

    let first_term = sample * params.columns;
    if (lane == 0u) {
        let sum = group_len * mean.pivot + group_len * mean.offset;
        gradient_terms[first_term + params.num_channels + g] = GradientPair(sum, h);
    }
    // dz = rstd (weight (dy - mean) - k z-hat), summed over each row: alone, and times x-hat.
    let k = group.weight * h / group_len;
    for (var i = lane; i < size; i = i + LANES) {
        let row = rows[first_row + i];
        let channel = channels[first_channel + i];
        let entry = products[first_row + i];
        let grad_above = (entry.pivot - mean.pivot) + (entry.sum / len - mean.offset);
        let above = above_group_mean(row, channel, group);
        let t1 = group.rstd * len * (group.weight * grad_above - k * group.rstd * above);
        let t2 = group.rstd * (group.weight * entry.product - k * group.rstd * channel.scale * row.m2);
        let x_above = (row.pivot - channel.mean_pivot) + (row.offset - channel.mean_offset);
        gradient_terms[first_term + first_channel + i] = GradientPair(t1, channel.rstd * (t2 + x_above * t1));
    }
}
