//! The uniform of every kernel: the Rust twin of `Params` in `shaders/parts/params.wgsl`.

use bytemuck::{Pod, Zeroable};

/// The batch's statistics are used (training, or a norm without running statistics).
pub const TRAINING: u32 = 1;
/// Channel statistics are running estimates (`EstBN`), moved by the batch.
pub const ESTIMATE: u32 = 2;
/// The momentum is 1 / num_batches_tracked.
pub const CUMULATIVE: u32 = 4;
/// Parameter gradients are added to what is there.
pub const ACCUMULATE: u32 = 8;
/// There is no channel part: z is x.
pub const NO_CHANNEL_PART: u32 = 16;
/// The group part's weight and bias are per channel.
pub const PER_CHANNEL: u32 = 32;
/// The group part's variance is unbiased.
pub const UNBIASED: u32 = 64;
/// The channel part's sums are written as they are, for an exchange with other devices.
pub const SUMS: u32 = 128;

/// What a dispatch must know of the shape. One layout serves every kernel; a kernel reads the
/// fields it needs.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Pod, Zeroable)]
pub struct Params {
    /// N.
    pub num_samples: u32,
    /// C.
    pub num_channels: u32,
    /// G; 0 without a group part.
    pub num_groups: u32,
    /// L, elements of a row.
    pub row_len: u32,
    /// Work items of this dispatch; `LANES` invocations share one.
    pub items: u32,
    /// Work items of the windows before this one.
    pub first_item: u32,
    /// Words of the tensor before what is bound of it.
    pub first_word: u32,
    /// Parts that a row is split into.
    pub parts: u32,
    /// Words of a part (a word is `WIDTH` elements); with channels last, positions of a part.
    pub words_per_part: u32,
    /// Words of the window, where a kernel takes words as they come.
    pub num_words: u32,
    /// Entries per column of the table that a fold reads.
    pub entries: u32,
    /// Entries per segment that a fold makes of them.
    pub entries_per_segment: u32,
    /// Columns of the table that a fold reads; in kernels that own columns, words at a position.
    pub columns: u32,
    /// Those of them that belong to the channel part: 0 or C. The affine's follow.
    pub channel_columns: u32,
    /// [`TRAINING`], [`ESTIMATE`], [`CUMULATIVE`], [`ACCUMULATE`], [`NO_CHANNEL_PART`],
    /// [`PER_CHANNEL`], [`UNBIASED`], [`SUMS`].
    pub flags: u32,
    /// eps of the group part.
    pub eps: f32,
    /// eps of the channel part.
    pub channel_eps: f32,
    /// Momentum, or the moving speed of the estimates.
    pub momentum: f32,
    /// 0, and no compiler knows it: what `rounded` in arithmetic/rounded.wgsl hides values behind.
    pub zero: u32,
    /// For short rows, elements of a channel that lie together in a sample, L; else 0.
    pub channel_len: u32,
}
