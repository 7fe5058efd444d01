// The mean of a row as the group part sees it.
// #import layout/channel_table
// #import tables
// #import arithmetic/rounded
// #import arithmetic/precise

// Without a channel part z is x, and the row's own pair is its mean. With one, the channel's bias is
// the pivot, so that a large bias costs nothing.
fn row_mean(row: Moments, channel: Channel) -> RowMean {
    if (!has_channel_part()) {
        return RowMean(row.pivot, row.offset, 0.0);
    }
    let above = x_above_mean(row, channel);
    let shift = rounded(channel.scale * above);
    return RowMean(channel.bias, shift, product_rest(channel.scale, above, shift) + channel.scale_low * above);
}

// Mean of z over a row, less the group's mean.
fn above_group_mean(row: Moments, channel: Channel, group: Group) -> f32 {
    let mean = row_mean(row, channel);
    let high = rounded(mean.pivot - group.mean_pivot) + rounded(mean.offset - group.mean_offset);
    return rounded(high) + (mean.rest - group.mean_rest);
}
