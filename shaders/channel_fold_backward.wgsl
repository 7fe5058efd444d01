// Backward 3. LANES invocations own one column. Those of the channel part come first: two parameter
// gradients each, and what the channel part subtracts from dz, the means of dz and of dz x-hat (or, for
// an exchange with other devices, the sums). Then those of weight and bias. An empty batch has no
// entries and gradient 0.
// #import spec
// #import params/channels
// #import tables
// #import arithmetic/sums
// #import layout/item
// #import reduction/serial

@group(0) @binding(1) var<storage, read> gradient_parts: array<GradientPair>;
// #if channels
@group(0) @binding(2) var<storage, read> channels: array<StoredChannel>;
// #end
// #if grad_bn_weight
@group(0) @binding(3) var<storage, read_write> grad_bn_weight: array<f32>;
// #end
// #if grad_bn_bias
@group(0) @binding(4) var<storage, read_write> grad_bn_bias: array<f32>;
// #end
// #if grad_weight
@group(0) @binding(5) var<storage, read_write> grad_weight: array<f32>;
// #end
// #if grad_bias
@group(0) @binding(6) var<storage, read_write> grad_bias: array<f32>;
// #end
// #if channel_gradients
@group(0) @binding(7) var<storage, read_write> channel_gradients: array<GradientPair>;
// #end

@compute @workgroup_size(WORKGROUP_SIZE)
fn channel_fold_backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let item = item_index(workgroup, num_workgroups, local);
    let lane = local % LANES;
    let active_item = item < params.dispatch.items;
    let column = min(item, params.dispatch.items - 1u);

    var all = no_sum();
    for (var i = lane; i < params.table.entries; i = i + LANES) {
        let part = gradient_parts[i * params.table.columns + column];
        all = and_term(all, vec2<f32>(part.bias, part.weight));
    }
    let pair = reduce_pair(total(all), local);
    if (!active_item || lane != 0u) {
        return;
    }
    let accumulate = (params.norm.flags & ACCUMULATE_PARAMETERS) != 0u;
    if (column < params.table.channel_columns) {
        // #if channel_gradients
        var means = pair;
        // #if channels
        if ((params.norm.flags & SUMS) == 0u) {
            means = pair / max(f32(channel_of(channels[column]).count), 1.0);
        }
        // #end
        channel_gradients[column] = GradientPair(means.x, means.y);
        // #end
        // #if grad_bn_bias
        var bn_bias = pair.x;
        if (accumulate) {
            bn_bias = bn_bias + grad_bn_bias[column];
        }
        grad_bn_bias[column] = bn_bias;
        // #end
        // #if grad_bn_weight
        var bn_weight = pair.y;
        if (accumulate) {
            bn_weight = bn_weight + grad_bn_weight[column];
        }
        grad_bn_weight[column] = bn_weight;
        // #end
    } else {
        let a = column - params.table.channel_columns;
        // #if grad_bias
        var bias = pair.x;
        if (accumulate) {
            bias = bias + grad_bias[a];
        }
        grad_bias[a] = bias;
        // #end
        // #if grad_weight
        var weight = pair.y;
        if (accumulate) {
            weight = weight + grad_weight[a];
        }
        grad_weight[a] = weight;
        // #end
    }
}
