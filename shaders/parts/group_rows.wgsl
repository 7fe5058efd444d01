// The rows of a (sample, group). LANES lanes take turns at them; where HELD is not 0, each holds as many, and these
// are all: a line of a kernel with # stands for one of each of them.
struct GroupRows {
    g: u32,
    first_channel: u32,
    first_row: u32,
    size: u32,
    // From a turn of a lane to its next.
    step: u32,
}

fn group_rows(item: u32) -> GroupRows {
    let g = item % params.num_groups;
    let size = params.num_channels / params.num_groups;
    return GroupRows(g, g * size, item * size, size, max(HELD, 1u) * LANES);
}
