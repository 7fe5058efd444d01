// Backward 4a. One invocation owns one row and writes its map from (dy, x) to
// dx = scale (dz - mean of dz - x-hat mean of dz x-hat); the channel's two means are 0 where no
// gradient flows through its statistics.
// #import spec
// #import params/groups
// #import tables
// #import arithmetic/precise
// #import layout/item
// #import layout/channel_rows

@group(0) @binding(1) var<storage, read> rows: array<StoredMoments>;
@group(0) @binding(2) var<storage, read> products: array<Products>;
// #if channels
@group(0) @binding(3) var<storage, read> channels: array<StoredChannel>;
// #end
@group(0) @binding(4) var<storage, read> row_gradients: array<RowGradient>;
// #if channel_gradients
@group(0) @binding(5) var<storage, read> channel_gradients: array<GradientPair>;
// #end
@group(0) @binding(6) var<storage, read_write> coefficients_backward: array<AffineBackward>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn row_coefficients_backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let item = item_index(workgroup, num_workgroups, local);
    if (item >= params.dispatch.items) {
        return;
    }
    let c = channel_of_row(item);
    let row = moments_of(rows[item]);
    let entry = products[item];
    var channel = unchanged_channel();
    // #if channels
    channel = channel_of(channels[c]);
    // #end
    // #if channel_gradients
    let means = channel_gradients[c];
    // #else
    // Neither a group part (it has no groups then) nor a gradient through the statistics: dx is scale dy,
    // and a NaN in dy stays where it is.
    if (params.shape.num_groups == 0u) {
        coefficients_backward[item] = AffineBackward(row.pivot, 0.0, 0.0, channel.scale, 0.0);
        return;
    }
    // #end
    let gradient = row_gradients[item];
    let scale = channel.scale * gradient.scale;
    let grad_scale = scale * gradient.weight;
    let inverse = x_unit_inverse(grad_scale);
    // Rounded, so that no compiler multiplies the small factors first: their product may be below f32's least number.
    var x_scale = rounded(scale * inverse) * gradient.x_scale;
    var above = gradient.mean;
    // #if channel_gradients
    x_scale = x_scale - rounded(channel.scale * inverse) * (means.weight * channel.rstd);
    above = (above - means.bias) - means.weight * channel.rstd * x_above_mean(row, channel);
    // #end
    coefficients_backward[item] = AffineBackward(
        row.pivot,
        x_scale,
        entry.pivot,
        grad_scale,
        channel.scale * above - (grad_scale * entry.offset + x_scale * rounded(row.offset * x_unit(grad_scale))),
    );
}
