// Backward 2 without a group part. One invocation owns one row: dz is dy, and the terms of the gradients
// of the channel part's bias and weight are sums of dy and of dy x-hat.
// #import spec
// #import params/terms
// #import tables
// #import arithmetic/precise
// #import layout/item
// #import layout/channel_rows

@group(0) @binding(1) var<storage, read> rows: array<StoredMoments>;
@group(0) @binding(2) var<storage, read> products: array<Products>;
@group(0) @binding(3) var<storage, read> channels: array<StoredChannel>;
// #if gradient_terms
@group(0) @binding(4) var<storage, read_write> gradient_terms: array<GradientPair>;
// #end
@group(0) @binding(5) var<storage, read_write> row_gradients: array<RowGradient>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn row_terms_backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let item = item_index(workgroup, num_workgroups, local);
    if (item >= params.dispatch.items) {
        return;
    }
    let entry = products[item];
    row_gradients[item] = RowGradient(1.0, 1.0, 0.0, entry.pivot + entry.offset);
    // #if gradient_terms
    let row = moments_of(rows[item]);
    let c = channel_of_row(item);
    let channel = channel_of(channels[c]);
    // x-hat sums to 0 over the batch that made the statistics. If it is this one, dy may be taken
    // less any value of the channel's for the product with x-hat, so that a large mean of dy
    // cancels nowhere.
    var origin = 0.0;
    // The values of a channel in this batch: the table has an entry for each of its rows.
    let own = params.table.entries * params.shape.row_len;
    if (channel.count != 0u && channel.count == own) {
        origin = products[c * params.shape.rows_together].pivot;
    }
    // The table's row mean may be the mean in force: x_mean is what the row's own has more.
    let above = x_above_mean(row, channel) + entry.x_mean;
    let len = f32(params.shape.row_len);
    let sum = len * (rounded(entry.pivot - origin) + entry.offset);
    // Rows of one channel that lie together are entries of its column.
    let entry_of_channel = item % params.shape.rows_together;
    let column = item / params.shape.rows_together;
    gradient_terms[entry_of_channel * params.shape.num_channels + column] = GradientPair(
        len * entry.pivot + len * entry.offset,
        channel.rstd * (len * entry.covariance + above * sum),
    );
    // #end
}
