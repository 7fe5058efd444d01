// Backward 4a. One invocation owns one row and writes its map from (dy, x) to dx.
@group(0) @binding(1) var<storage, read> rows: array<Moments>;
@group(0) @binding(2) var<storage, read> products: array<Products>;
@group(0) @binding(3) var<storage, read> channels: array<Channel>;
@group(0) @binding(4) var<storage, read> groups: array<Group>;
@group(0) @binding(5) var<storage, read> gradient_terms: array<GradientPair>;
@group(0) @binding(6) var<storage, read> channel_gradients: array<GradientPair>;
@group(0) @binding(7) var<storage, read_write> coefficients_backward: array<AffineBackward>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn row_coefficients_backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let item = item_index(workgroup, num_workgroups, local);
    if (item >= params.items) {
        return;
    }
    let sample = item / params.num_channels;
    let c = item - sample * params.num_channels;
    let size = params.num_channels / params.num_groups;
    let g = c / size;
    let len = f32(params.row_len);
    let row = rows[item];
    let entry = products[item];
    let channel = channels[c];
    let group = groups[sample * params.num_groups + g];
    let first_term = sample * params.columns;
    let t1 = gradient_terms[first_term + c].bias;
    let h = gradient_terms[first_term + params.num_channels + g].weight;
    let means = channel_gradients[c];

    let k = group.weight * h / (f32(size) * len);
    let x_scale = -channel.scale * (group.rstd * group.rstd * k * channel.scale + means.weight * channel.rstd);
    let grad_scale = channel.scale * group.rstd * group.weight;
    let shift = channel.scale * ((t1 / len - means.bias) - means.weight * channel.rstd * x_above_mean(row, channel));
    coefficients_backward[item] = AffineBackward(
        row.pivot,
        x_scale,
        entry.pivot,
        grad_scale,
        shift - (grad_scale * entry.offset + x_scale * row.offset),
    );
}
