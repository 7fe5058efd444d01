// The uniform of every kernel; src/params.rs is its twin, tests/suite/reflection compares the two.
struct Params {
    num_samples: u32,
    num_channels: u32,
    num_groups: u32,
    row_len: u32,
    items: u32,
    first_item: u32,
    first_word: u32,
    parts: u32,
    words_per_part: u32,
    num_words: u32,
    entries: u32,
    entries_per_segment: u32,
    columns: u32,
    channel_columns: u32,
    flags: u32,
    eps: f32,
    channel_eps: f32,
    momentum: f32,
    zero: u32,
    channel_len: u32,
}

const TRAINING: u32 = 1u;
const ESTIMATE: u32 = 2u;
const CUMULATIVE: u32 = 4u;
const ACCUMULATE_PARAMETERS: u32 = 8u;
const NO_CHANNEL_PART: u32 = 16u;
const PER_CHANNEL: u32 = 32u;
const UNBIASED: u32 = 64u;
const SUMS: u32 = 128u;

@group(0) @binding(0) var<uniform> params: Params;
