// The rows of a channel: one a sample; several that lie together where a sample's elements are rows over the samples.
// #import params/groups

fn channel_of_row(row: u32) -> u32 {
    return (row / params.shape.rows_together) % params.shape.num_channels;
}
