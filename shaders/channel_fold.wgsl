// Forward 2. LANES invocations own one channel: merge its moments, update the running statistics, count the
// batch, write the statistics in force. With running statistics, and without a channel part, there is nothing
// to merge (entries = 0).
// #import spec
// #import params/channels
// #import tables
// #import arithmetic/precise
// #import arithmetic/sums
// #import arithmetic/moments
// #import layout/item
// #import reduction/serial

// #if channel_parts
@group(0) @binding(1) var<storage, read> channel_parts: array<StoredMoments>;
// #end
// #if bn_weight
@group(0) @binding(2) var<storage, read> bn_weight: array<f32>;
// #end
// #if bn_bias
@group(0) @binding(3) var<storage, read> bn_bias: array<f32>;
// #end
// #if weight
@group(0) @binding(4) var<storage, read> weight: array<f32>;
// #end
// #if num_batches_tracked
@group(0) @binding(5) var<storage, read_write> num_batches_tracked: array<u32>;
// #end
// #if running_mean
@group(0) @binding(6) var<storage, read_write> running_mean: array<f32>;
// #end
// #if running_var
@group(0) @binding(7) var<storage, read_write> running_var: array<f32>;
// #end
@group(0) @binding(8) var<storage, read_write> channels: array<StoredChannel>;

// The weight of the group part, where it is per channel.
fn group_weight(c: u32) -> f32 {
    var w = 1.0;
    // #if weight
    w = weight[c];
    // #end
    return w;
}

// known: whether an infinite variance is one that was given. It leaves the bias; any other is an overflow.
fn in_force(c: u32, pivot: f32, offset: f32, variance: f32, known: bool, count: u32) -> Channel {
    var w = 1.0;
    // #if bn_weight
    w = bn_weight[c];
    // #end
    var b = 0.0;
    // #if bn_bias
    b = bn_bias[c];
    // #end
    let v = variance + params.norm.channel_eps;
    let rstd = select(reciprocal_std(v), 0.0, known && v > 3.4e38);
    let scale = rounded(w * rstd);
    let scale_low = product_rest(w, rstd, scale) + w * reciprocal_std_rest(v, rstd);
    return Channel(pivot, offset, rstd, scale, scale_low, b, group_weight(c), count);
}

// The batch normalizes; running statistics, if there are any, take the unbiased variance. A batch of
// no values leaves them as they are.
fn batch_statistics(c: u32, batch: Moments) -> Channel {
    // #if num_batches_tracked
    // Where the momentum is cumulative, batch_count has counted: all channels read what none may write.
    let cumulative = (params.norm.flags & CUMULATIVE) != 0u;
    if (!cumulative && c == 0u) {
        num_batches_tracked[0] = next_count(num_batches_tracked[0]);
    }
    // #end
    // #if running_mean
    if (batch.count != 0u) {
        var momentum = params.norm.momentum;
        // #if num_batches_tracked
        if (cumulative) {
            momentum = 1.0 / f32(num_batches_tracked[0]);
        }
        // #end
        let unbiased = batch.variance * (f32(batch.count) / f32(batch.count - 1u));
        let old_mean = running_mean[c];
        running_mean[c] = (1.0 - momentum) * old_mean + (momentum * batch.pivot + momentum * batch.offset);
        running_var[c] = (1.0 - momentum) * running_var[c] + momentum * unbiased;
    }
    // #end
    return in_force(c, batch.pivot, batch.offset, batch.variance, false, batch.count);
}

// #if running_mean
// Running statistics as they are.
fn running_statistics(c: u32) -> Channel {
    return in_force(c, running_mean[c], 0.0, running_var[c], true, 0u);
}

// EstBN: the second moment about the old running mean; the updated estimates normalize. The mean in
// force, (1 - s) old + s batch, is kept relative to the nearer of the two.
fn estimated_statistics(c: u32, batch: Moments) -> Channel {
    if (batch.count == 0u) {
        return running_statistics(c);
    }
    let speed = params.norm.momentum;
    let old_mean = running_mean[c];
    let delta = rounded(batch.pivot - old_mean) + batch.offset;
    let old_variance = running_var[c];
    let second_moment = speed * batch.variance + (speed * delta) * delta;
    let variance = (1.0 - speed) * old_variance + second_moment;
    let near_batch = speed > 0.5;
    let pivot = select(old_mean, batch.pivot, near_batch);
    let offset = select(speed * delta, batch.offset - (1.0 - speed) * delta, near_batch);
    running_mean[c] = pivot + offset;
    running_var[c] = variance;
    return in_force(c, pivot, offset, variance, old_variance > 3.4e38, 0u);
}
// #end

fn statistics(c: u32, batch: Moments) -> Channel {
    // #if running_mean
    if ((params.norm.flags & TRAINING) == 0u) {
        return running_statistics(c);
    }
    if ((params.norm.flags & ESTIMATE) != 0u) {
        return estimated_statistics(c, batch);
    }
    // #end
    return batch_statistics(c, batch);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn channel_fold(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let item = item_index(workgroup, num_workgroups, local);
    let lane = local % LANES;
    let active_item = item < params.dispatch.items;
    let c = min(item, params.dispatch.items - 1u);

    var batch = Moments(0u, 0.0, 0.0, 0.0);
    // #if channel_parts
    for (var i = lane; i < params.table.entries; i = i + LANES) {
        batch = merge_moments(batch, moments_of(channel_parts[i * params.table.columns + c]));
    }
    batch = reduce_moments(batch, local);
    var left = no_sum();
    for (var i = lane; i < params.table.entries; i = i + LANES) {
        left = and_term(left, second_look(moments_of(channel_parts[i * params.table.columns + c]), batch));
    }
    batch = after_second_look(batch, reduce_pair(total(left), local));
    // #end
    if (active_item && lane == 0u) {
        channels[c] = stored_channel(statistics(c, batch));
    }
}
