//! The uniform of every kernel: the Rust twin of `Params` in `shaders/parts/params.wgsl`.

use bytemuck::{Pod, Zeroable};

/// Statistics are the batch's (training); without it they are the running ones.
pub const TRAINING: u32 = 1;
/// Channel statistics are running estimates (`EstBN`).
pub const ESTIMATE: u32 = 2;
/// The momentum is 1 / num_batches_tracked.
pub const CUMULATIVE: u32 = 4;
/// Parameter gradients are added to what is there.
pub const ACCUMULATE: u32 = 8;

/// What a dispatch must know of the shape. One layout serves every kernel; a kernel reads the
/// fields it needs.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Pod, Zeroable)]
pub struct Params {
    /// N.
    pub num_samples: u32,
    /// C.
    pub num_channels: u32,
    /// G.
    pub num_groups: u32,
    /// L, elements of a row.
    pub row_len: u32,
    /// Work items of this dispatch; `LANES` invocations share one.
    pub items: u32,
    /// Parts that a row is split into.
    pub parts: u32,
    /// Words of a part (a word is `WIDTH` elements).
    pub words_per_part: u32,
    /// Words of the whole tensor.
    pub num_words: u32,
    /// Entries per column of the table that a fold reads.
    pub entries: u32,
    /// Entries per segment that a fold makes of them.
    pub entries_per_segment: u32,
    /// Columns of the table that a fold reads.
    pub columns: u32,
    /// [`TRAINING`], [`ESTIMATE`], [`CUMULATIVE`], [`ACCUMULATE`].
    pub flags: u32,
    /// eps of the group part.
    pub eps: f32,
    /// eps of the channel part.
    pub channel_eps: f32,
    /// Momentum, or the moving speed of the estimates.
    pub momentum: f32,
    /// 0, and no compiler knows it: what `rounded` in params.wgsl hides values behind.
    pub zero: u32,
}
