// The uniform of a kernel, `params`, is made of these blocks; src/params.rs is their twin, tests/suite/reflection compares
// the two. Each is 16 bytes or 32, so that the next begins where uniforms want it.

// What every dispatch is told.
struct Dispatch {
    // Work items; LANES invocations share one.
    items: u32,
    // Work items of the windows before this one.
    first_item: u32,
    // Words of the tensor before what is bound of it.
    first_word: u32,
    // 0, and no compiler knows it: what arithmetic/rounded hides values behind.
    zero: u32,
}

// How the norm is set.
struct Norm {
    // TRAINING, ESTIMATE, ...
    flags: u32,
    // Of the group part.
    eps: f32,
    // Of the channel part.
    channel_eps: f32,
    // Momentum, or the moving speed of the estimates.
    momentum: f32,
}

// Groups of channels, channels of rows.
struct Shape {
    num_channels: u32,
    // 0 without a group part.
    num_groups: u32,
    // Rows of a channel that lie together: 1, or L where a sample's elements are rows over the samples.
    rows_together: u32,
    // Elements of a row.
    row_len: u32,
}

// How rows are split into parts, with channels first.
struct RowSplit {
    num_rows: u32,
    // Elements of a row.
    row_len: u32,
    // Parts of a row.
    parts: u32,
    // Words of a part.
    words_per_part: u32,
}

// How positions are split into parts, with channels last.
struct ColumnSplit {
    num_samples: u32,
    num_channels: u32,
    // Positions of a sample.
    row_len: u32,
    // Words of channels at a position.
    words_per_position: u32,
    // Parts of a sample.
    parts: u32,
    // Positions of a part.
    positions_per_part: u32,
    // Words of the window, for kernels that take words as they come.
    num_words: u32,
    unused: u32,
}

// A table of (entries, columns), and how a fold takes it.
struct Table {
    columns: u32,
    // Those of them that belong to the channel part: 0 or C. The affine's follow.
    channel_columns: u32,
    entries: u32,
    // Entries that a fold makes one of.
    entries_per_segment: u32,
}

// Short rows: the elements of a (sample, group), which lie together.
struct ElementGroups {
    num_channels: u32,
    num_groups: u32,
    // Elements of a channel in a sample.
    channel_len: u32,
    // Words of a group in a sample.
    words_per_group: u32,
}

// Short rows: how a sample's elements, as columns over the samples, are split into parts.
struct SampleSplit {
    num_samples: u32,
    // Words of a sample.
    words_per_sample: u32,
    // Parts of the samples.
    parts: u32,
    // Samples of a part.
    samples_per_part: u32,
}

// Flags of Norm.
// The batch's statistics are used.
const TRAINING: u32 = 1u;
// Channel statistics are running estimates (EstBN), moved by the batch.
const ESTIMATE: u32 = 2u;
// The momentum is 1 / num_batches_tracked.
const CUMULATIVE: u32 = 4u;
// Parameter gradients are added to what is there.
const ACCUMULATE_PARAMETERS: u32 = 8u;
// The group part's weight and bias are per channel.
const PER_CHANNEL: u32 = 16u;
// The group part's variance is unbiased.
const UNBIASED: u32 = 32u;
// The channel part's sums are written as they are, for an exchange with other devices.
const SUMS: u32 = 64u;
