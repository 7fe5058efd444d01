// Forward 3. LANES invocations own one (sample, group): statistics of the channel part's output
// z = scale (x - mean) + bias (or x itself) over the group's channels and space, from row moments
// alone; then the affine map of each of its rows.
@group(0) @binding(1) var<storage, read> rows: array<Moments>;
@group(0) @binding(2) var<storage, read> channels: array<Channel>;
@group(0) @binding(3) var<storage, read> weight: array<f32>;
@group(0) @binding(4) var<storage, read> bias: array<f32>;
@group(0) @binding(5) var<storage, read_write> groups: array<Group>;
@group(0) @binding(6) var<storage, read_write> coefficients: array<Affine>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn group_fold(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let item = item_index(workgroup, num_workgroups, local);
    let lane = local % LANES;
    let active_item = item < params.items;
    let safe_item = min(item, params.items - 1u);
    let g = safe_item % params.num_groups;
    let size = params.num_channels / params.num_groups;
    let first_channel = g * size;
    let first_row = safe_item * size;
    let per_channel = (params.flags & PER_CHANNEL) != 0u;

    var moments = Moments(0u, 0.0, 0.0, 0.0);
    for (var i = lane; i < size; i = i + LANES) {
        let row = rows[first_row + i];
        let channel = channels[first_channel + i];
        // The row's z as moments without a spread, for the mean alone.
        let mean = row_mean(row, channel);
        moments = merge_moments(moments, Moments(row.count, mean.pivot, mean.offset, 0.0));
    }
    moments = reduce_moments(moments, local);
    var group = Group(moments.pivot, moments.offset, 0.0, 0.0, 1.0);
    if (HAS_WEIGHT && !per_channel) {
        group.weight = weight[g];
    }

    // Two more looks from the mean just found: what is left of it (relative to the first row, so
    // that rows of one mean leave exactly that), then the spread about it.
    let first = above_group_mean(rows[first_row], channels[first_channel], group);
    var left = vec2<f32>(0.0, 0.0);
    for (var i = lane; i < size; i = i + LANES) {
        let row = rows[first_row + i];
        let above = above_group_mean(row, channels[first_channel + i], group);
        left.x = left.x + f32(row.count) * (above - first);
    }
    group.mean_rest = first + reduce_pair(left, local).x / f32(moments.count);
    var spread = vec2<f32>(0.0, 0.0);
    for (var i = lane; i < size; i = i + LANES) {
        let row = rows[first_row + i];
        let channel = channels[first_channel + i];
        let above = above_group_mean(row, channel, group);
        spread.x = spread.x + (channel.scale * channel.scale * row.m2 + f32(row.count) * (above * above));
    }
    let variance = reduce_pair(spread, local).x / degrees_of_freedom(f32(moments.count));
    group.rstd = reciprocal_std(variance + params.eps);
    if (!active_item) {
        return;
    }
    if (lane == 0u) {
        groups[item] = group;
    }
    for (var i = lane; i < size; i = i + LANES) {
        let row = rows[first_row + i];
        let channel = channels[first_channel + i];
        // One of the two weights is 1.
        let scale = (group.weight * channel.weight) * group.rstd;
        var b = 0.0;
        if (HAS_BIAS) {
            let affine = select(g, first_channel + i, per_channel);
            b = bias[affine];
        }
        coefficients[first_row + i] = Affine(
            row.pivot,
            row.offset,
            scale * channel.scale,
            scale * above_group_mean(row, channel, group) + b,
        );
    }
}
