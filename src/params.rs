//! The uniforms of the kernels: blocks of fields, each with one meaning, and which of them a kernel is given.
//!
//! `shaders/parts/params/` is the twin: `blocks.wgsl` has the blocks, the other files a uniform each. [`Params`] has a
//! variant for every kernel, of the type that its declaration names.

use bytemuck::{Pod, Zeroable};
use std::any::Any;
use std::ops::Range;

pub use crate::kernels::Params;

/// Flag of [`Norm`]: the batch's statistics are used (training, or a norm without running statistics).
pub const TRAINING: u32 = 1;
/// Channel statistics are running estimates (`EstBN`), moved by the batch.
pub const ESTIMATE: u32 = 2;
/// The momentum is 1 / num_batches_tracked.
pub const CUMULATIVE: u32 = 4;
/// Parameter gradients are added to what is there.
pub const ACCUMULATE: u32 = 8;
/// The group part's weight and bias are per channel.
pub const PER_CHANNEL: u32 = 16;
/// The group part's variance is unbiased.
pub const UNBIASED: u32 = 32;
/// The channel part's sums are written as they are, for an exchange with other devices.
pub const SUMS: u32 = 64;

macro_rules! blocks {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $ty:ty,)* })*) => {
        $(
            $(#[$doc])*
            #[repr(C)]
            #[derive(Debug, Clone, Copy, Default, PartialEq, Pod, Zeroable)]
            pub struct $name {
                $($(#[$field_doc])* pub $field: $ty,)*
            }
        )*
    };
}

// Each is 16 bytes or 32, so that the next begins where uniforms want it.
blocks! {
    /// What every dispatch is told.
    Dispatch {
        /// Work items; `LANES` invocations share one.
        items: u32,
        /// Work items of the windows before this one.
        first_item: u32,
        /// Words of the tensor before what is bound of it.
        first_word: u32,
        /// 0, and no compiler knows it: what `rounded` in arithmetic/rounded.wgsl hides values behind.
        zero: u32,
    }

    /// How the norm is set.
    Norm {
        /// [`TRAINING`], [`ESTIMATE`], [`CUMULATIVE`], [`ACCUMULATE`], [`PER_CHANNEL`],
        /// [`UNBIASED`], [`SUMS`].
        flags: u32,
        /// eps of the group part.
        eps: f32,
        /// eps of the channel part.
        channel_eps: f32,
        /// Momentum, or the moving speed of the estimates.
        momentum: f32,
    }

    /// Groups of channels, channels of rows.
    Shape {
        /// C.
        num_channels: u32,
        /// G; 0 without a group part.
        num_groups: u32,
        /// Rows of a channel that lie together: 1, or L where a sample's elements are rows over the samples.
        rows_together: u32,
        /// Elements of a row.
        row_len: u32,
    }

    /// How rows are split into parts, with channels first.
    RowSplit {
        /// Rows of the tensor.
        num_rows: u32,
        /// Elements of a row.
        row_len: u32,
        /// Parts of a row.
        parts: u32,
        /// Words of a part.
        words_per_part: u32,
    }

    /// How positions are split into parts, with channels last. (Of short rows, the elements of a sample are channels,
    /// and the samples are positions.)
    ColumnSplit {
        /// Samples.
        num_samples: u32,
        /// Channels.
        num_channels: u32,
        /// Positions of a sample.
        row_len: u32,
        /// Words of channels at a position.
        words_per_position: u32,
        /// Parts of a sample.
        parts: u32,
        /// Positions of a part.
        positions_per_part: u32,
        /// Words of the window, for kernels that take words as they come.
        num_words: u32,
        /// 0.
        unused: u32,
    }

    /// A table of (entries, columns), and how a fold takes it.
    Table {
        /// Columns.
        columns: u32,
        /// Those of them that belong to the channel part: 0 or C. The affine's follow.
        channel_columns: u32,
        /// Entries of a column.
        entries: u32,
        /// Entries that a fold makes one of.
        entries_per_segment: u32,
    }

    /// Short rows: the elements of a (sample, group), which lie together.
    ElementGroups {
        /// C.
        num_channels: u32,
        /// G.
        num_groups: u32,
        /// Elements of a channel in a sample, L.
        channel_len: u32,
        /// Words of a group in a sample.
        words_per_group: u32,
    }

    /// Short rows: how a sample's elements, as columns over the samples, are split into parts.
    SampleSplit {
        /// N.
        num_samples: u32,
        /// Words of a sample.
        words_per_sample: u32,
        /// Parts of the samples.
        parts: u32,
        /// Samples of a part.
        samples_per_part: u32,
    }

    /// Parts of a row that are merged.
    Parts {
        /// Parts of a row.
        parts: u32,
        /// 0.
        unused: [u32; 3],
    }
}

impl Dispatch {
    /// Of a step that is not cut into windows.
    pub(crate) fn of(items: u32) -> Self {
        Self {
            items,
            ..Self::default()
        }
    }

    /// Its items, counted over all windows.
    pub(crate) fn range(&self) -> Range<usize> {
        let first = self.first_item as usize;
        first..first + self.items as usize
    }
}

impl Parts {
    pub(crate) fn of(parts: u32) -> Self {
        Self {
            parts,
            unused: [0; 3],
        }
    }
}

impl Params {
    /// Into how many parts the step splits rows (with channels last, positions; of short rows, samples), and how many words
    /// (positions, samples) each has.
    pub fn parts(&self) -> Option<[u32; 2]> {
        let rows = self.block::<RowSplit>();
        let rows = rows.map(|split| [split.parts, split.words_per_part]);
        let columns = self.block::<ColumnSplit>();
        let columns = columns.map(|split| [split.parts, split.positions_per_part]);
        let samples = self.block::<SampleSplit>();
        let samples = samples.map(|split| [split.parts, split.samples_per_part]);
        rows.or(columns).or(samples)
    }
}

/// A kernel's uniform: what every dispatch is told, and blocks.
pub trait Uniform: Pod {
    /// `shaders/parts/params/<FILE>.wgsl`.
    const FILE: &'static str;
    /// Names and sizes of its members, in order.
    const MEMBERS: &'static [(&'static str, usize)];

    /// The block of a type, where it has one.
    fn block<B: 'static>(&self) -> Option<&B>;
}

/// Bytes of the largest uniform: what plans keep for each.
pub const UNIFORM_BYTES: usize = 64;

macro_rules! uniforms {
    ($($(#[$doc:meta])* $name:ident $file:ident { $($field:ident: $ty:ident),* })*) => {
        $(
            $(#[$doc])*
            #[repr(C)]
            #[derive(Debug, Clone, Copy, Default, PartialEq, Pod, Zeroable)]
            pub struct $name {
                #[allow(missing_docs)]
                pub dispatch: Dispatch,
                $(#[allow(missing_docs)] pub $field: $ty,)*
            }

            const _: () = assert!(size_of::<$name>() <= UNIFORM_BYTES);

            impl Uniform for $name {
                const FILE: &'static str = stringify!($file);
                const MEMBERS: &'static [(&'static str, usize)] = &[
                    ("dispatch", size_of::<Dispatch>()),
                    $((stringify!($field), size_of::<$ty>())),*
                ];

                fn block<B: 'static>(&self) -> Option<&B> {
                    let members: &[&dyn Any] = &[&self.dispatch, $(&self.$field),*];
                    members.iter().find_map(|member| member.downcast_ref())
                }
            }
        )*
    };
}

uniforms! {
    /// Uniform of batch_count, and what all have.
    DispatchParams dispatch {}
    /// Uniform of the kernels on rows of a tensor with channels first.
    RowParams rows { split: RowSplit }
    /// Uniform of the kernels on a tensor with channels last.
    ColumnParams columns { split: ColumnSplit }
    /// Uniform of the kernels that merge the parts of every row.
    PartParams parts { parts: Parts }
    /// Uniform of the kernels that shorten a table.
    TableParams table { table: Table }
    /// Uniform of the kernels on channels.
    ChannelParams channels { norm: Norm, table: Table }
    /// Uniform of the kernels on tables of groups and rows.
    GroupParams groups { norm: Norm, shape: Shape }
    /// Uniform of the kernels on groups and rows that write terms of the parameters' gradients.
    TermParams terms { norm: Norm, shape: Shape, table: Table }
    /// Uniform of the kernels on groups of elements.
    ElementParams elements { norm: Norm, groups: ElementGroups }
    /// Uniform of the kernels on elements as columns over the samples.
    ElementColumnParams element_columns { norm: Norm, groups: ElementGroups, split: SampleSplit }
}
