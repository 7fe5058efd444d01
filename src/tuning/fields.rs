//! The fields of a tuning: groups, units and the numbers for each class of adapter, in one table.

use super::{AdapterClass, Tuning};
use crate::limits::Limits;

/// A number of a tuning, for those that go over all of them by name.
pub(super) enum Number<'a> {
    U32(&'a mut u32),
    U64(&'a mut u64),
}

impl<'a> From<&'a mut u32> for Number<'a> {
    fn from(value: &'a mut u32) -> Self {
        Number::U32(value)
    }
}

impl<'a> From<&'a mut u64> for Number<'a> {
    fn from(value: &'a mut u64) -> Self {
        Number::U64(value)
    }
}

/// WebGPU's default `max_storage_buffer_binding_size`.
const DEFAULT_BINDING: u64 = Limits::DEFAULT.max_storage_buffer_binding_size;

/// Declares the groups, [`Tuning`] and its constants from a table of `field: type in unit = [GPU, SOFTWARE, CPU]`.
macro_rules! tuning {
    ($(
        $(#[$group_doc:meta])*
        $group:ident: $Group:ident {
            $(
                $(#[$doc:meta])*
                $field:ident: $type:ident in $unit:ident = [$gpu:expr, $software:expr, $cpu:expr];
            )*
        }
    )*) => {
        $(
            $(#[$group_doc])*
            #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
            #[non_exhaustive]
            pub struct $Group {
                $(
                    $(#[$doc])*
                    #[doc = concat!("\n\nUnit: ", stringify!($unit), ".")]
                    pub $field: $type,
                )*
            }
        )*

        impl Tuning {
            /// The tuning for GPUs.
            pub const GPU: Tuning = Tuning {
                class: AdapterClass::Gpu,
                $($group: $Group { $($field: $gpu),* },)*
            };

            /// The tuning for software adapters: one lane a row, no barrier. Workgroups of 8 to 64 are equally fast on
            /// tensors of 6 MB (`bcnorm bench --tune`), 32 is best on small ones. Parts of fewer than 64 words save
            /// less than the dispatch that folds them costs.
            pub const SOFTWARE: Tuning = Tuning {
                class: AdapterClass::Software,
                $($group: $Group { $($field: $software),* },)*
            };

            /// The tuning for the CPU executor.
            pub const CPU: Tuning = Tuning {
                class: AdapterClass::Cpu,
                $($group: $Group { $($field: $cpu),* },)*
            };
        }

        /// Every number by its name, `group.field`, in the order of the text.
        pub(super) fn numbers(tuning: &mut Tuning) -> Vec<(&'static str, Number<'_>)> {
            vec![$($((
                concat!(stringify!($group), ".", stringify!($field)),
                Number::from(&mut tuning.$group.$field),
            ),)*)*]
        }
    };
}

tuning! {
    /// The kernels that reduce rows to table entries (`row_moments`, `row_products`), and those of short rows
    /// (`element_*`).
    reduction: Reduction {
        /// The invocations of a workgroup.
        workgroup_size: u32 in invocations = [256, 32, 1];
        /// The most invocations that share a row, or a part of one: a power of two that divides the workgroup size.
        lanes: u32 in invocations = [256, 1, 1];
        /// A row gets another lane once its lanes have more words (4 elements) each than this.
        words_per_lane: u32 in words = [64, 64, 8];
        /// Lanes and parts keep this many words where rows alone make too few invocations. What a lane costs beside
        /// its words (the ends of its part, the merges with the other lanes) is that of some 20 words.
        min_words_per_lane: u32 in words = [8, 64, 8];
    }

    /// The kernels that write a tensor (`row_affine`, `column_affine` and their backwards).
    map: Map {
        /// The invocations of a workgroup.
        workgroup_size: u32 in invocations = [256, 32, 1];
        /// The most invocations that share a row, or a part of one: a power of two that divides the workgroup size.
        lanes: u32 in invocations = [256, 1, 1];
        /// A row gets another lane once its lanes have more words than this. Lanes of a map share nothing, and
        /// neighbours should work on neighbouring words, so that few are best on a GPU.
        words_per_lane: u32 in words = [2, 64, 8];
    }

    /// How rows are split into parts, which are work items of their own; of reductions and of maps.
    parts: Parts {
        /// Rows are split into parts until this many invocations are in flight.
        min_invocations: u32 in invocations = [1 << 17, 512, 64];
        /// Rows are split into more parts where a lane would have more words than this; 195,000 at most. It bounds
        /// loops (llvmpipe ends an invocation after 65,535 iterations, silently) and the growth of rounding. (On the
        /// CPU a word may be a single element, where the tensor is no whole number of 4.)
        max_words_per_lane: u32 in words = [512, 1024, 4096];
        /// Channels last: a part, which is all channels of its positions, has no more bytes than this, so that it
        /// fits a window. It does not follow the binding limit, since parts decide the order of sums.
        max_column_bytes: u64 in bytes = [32 << 20, 32 << 20, 32 << 20];
    }

    /// The kernels for channels last: each invocation owns a word of neighbouring channels (`column_*`).
    columns: Columns {
        /// The invocations of a workgroup of a reduction. It takes 80 bytes of workgroup memory for each, so that
        /// WebGPU's default limits allow 128.
        workgroup_size: u32 in invocations = [128, 32, 1];
        /// A workgroup of a reduction reads this many neighbouring words of a position before its lanes share them
        /// out by positions: a power of two.
        tile: u32 in words = [16, 16, 16];
        /// An invocation takes up to this many neighbouring words of a position, 16 at most, where lanes do not share
        /// a part. Processors want to read along positions, not across them; but kernels take longer to compile.
        words: u32 in words = [1, 8, 1];
        /// A position keeps this many invocations before one takes more than a word: those that a processor runs at
        /// once.
        min_invocations: u32 in invocations = [8, 8, 8];
    }

    /// The kernels that merge entries of tables.
    fold: Fold {
        /// The invocations of a workgroup.
        workgroup_size: u32 in invocations = [64, 8, 1];
        /// The most invocations that share a column of a table: a power of two. Where it is more than `workgroup_size`, columns
        /// that need as many get larger workgroups. (On an H200 64 lanes took 31 us for columns of 2,048 entries, 4.5 us
        /// for one entry a lane.)
        lanes: u32 in invocations = [256, 1, 1];
        /// A column gets another lane once its lanes have more entries each than this.
        entries_per_lane: u32 in entries = [1, 4096, 4096];
        /// Columns get lanes in spite of `lanes` where a fold has fewer invocations than this. (One invocation of
        /// llvmpipe's eight would do all the work of a vector: at one group of 2,042 channels forward takes 4.1 copies
        /// with it, 12.5 without.)
        min_invocations: u32 in invocations = [1, 64, 1];
        /// A lane that a column gets for that reason keeps this many entries.
        min_entries_per_lane: u32 in entries = [8, 8, 8];
        /// A batch of more samples than this is folded in two steps.
        samples_per_segment: u32 in samples = [1024, 256, 256];
    }

    /// When rows are short: they have no tables of their own then. (Channels first, where groups lie together.)
    short_rows: ShortRows {
        /// A row of at most this many elements is short: every element is made a row where it is needed.
        max_row: u32 in elements = [4, 4, 2];
        /// A batch norm over rows of at most this many elements is planned as C L columns reduced over N, where L is
        /// less than N.
        max_batch_row: u32 in elements = [16, 64, 64];
    }

    /// When a forward without a backward takes a group whole, in one kernel that reads x once.
    inference: Inference {
        /// A group of at most this many elements is taken so. The kernel computes more for an element than the
        /// kernels on rows do.
        max_group: u32 in elements = [4096, 0, 0];
        /// A tensor of at most this many elements is taken so: in a larger one that costs more than the dispatches
        /// and the read of x that it saves.
        max_tensor: u32 in elements = [1 << 20, 0, 0];
    }

    /// What a plan may ask of the device.
    limits: PlanLimits {
        /// A dispatch has at most this many workgroups in one dimension.
        max_workgroups: u32 in workgroups = [65_535, 65_535, 65_535];
        /// A dispatch binds at most this many bytes of a tensor; a larger tensor is worked on in windows.
        max_binding_bytes: u64 in bytes = [DEFAULT_BINDING, DEFAULT_BINDING, u64::MAX];
        /// This many adjacent invocations are reduced by subgroup shuffles instead of workgroup memory: a power of
        /// two, the smallest subgroup of the device at most ([`Limits::subgroup_size`]). 1 disables shuffles, and
        /// kernels need no feature. The bits of a result do not depend on it. (On an H200 shuffles save 1 us of a
        /// call: 7 % at (16, 512, 7, 7), 1 % at (32, 256, 56, 56).)
        subgroup_size: u32 in invocations = [1, 1, 1];
        /// Not 0: f16 is read by the device's own conversion, which must have the bits of the integer arithmetic that 0
        /// stands for ([`Limits::native_unpack`]). (With both of them (32, 256, 56, 56) took 62 us forward and 88 backward
        /// on an H200, 79 and 111 by integers.)
        native_unpack: u32 in flag = [0, 0, 0];
        /// Not 0: f16 is written by the device's own conversion ([`Limits::native_pack`]).
        native_pack: u32 in flag = [0, 0, 0];
    }
}
