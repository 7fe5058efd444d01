// Forward 3 without a group part. One invocation owns one row: its affine map is its channel's. Where
// forward did not read x for moments, backward takes its products about the mean in force.
// #import spec
// #import params/groups
// #import tables
// #import arithmetic/precise
// #import layout/item
// #import layout/channel_rows

@group(0) @binding(1) var<storage, read> channels: array<StoredChannel>;
// #if rows
@group(0) @binding(2) var<storage, read_write> rows: array<StoredMoments>;
// #end
@group(0) @binding(3) var<storage, read_write> coefficients: array<StoredAffine>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn row_coefficients(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let item = item_index(workgroup, num_workgroups, local);
    if (item >= params.dispatch.items) {
        return;
    }
    let channel = channel_of(channels[channel_of_row(item)]);
    // #if rows
    rows[item] = stored_moments(Moments(params.shape.row_len, channel.mean_pivot, channel.mean_offset, 0.0));
    // #end
    coefficients[item] = stored_affine(Affine(channel.mean_pivot, channel.mean_offset, channel.scale, channel.bias));
}
