// The rows of a (sample, group). LANES lanes take turns at them.
// #import params/groups

struct GroupRows {
    g: u32,
    first_channel: u32,
    first_row: u32,
    size: u32,
}

fn group_rows(item: u32) -> GroupRows {
    let g = item % params.shape.num_groups;
    let size = params.shape.num_channels / params.shape.num_groups;
    return GroupRows(g, g * size, item * size, size);
}
