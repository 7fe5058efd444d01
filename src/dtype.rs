//! How the elements of a tensor are stored: their type and their order. A leaf: descriptors and errors both need it.

/// How a tensor's values are stored. Arithmetic, tables and parameters are f32 whatever it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum DType {
    /// IEEE 754 binary32.
    #[default]
    F32,
    /// IEEE 754 binary16. Beyond 65,504 it overflows to Inf, as a rounded store must.
    F16,
    /// bfloat16: the upper half of an f32.
    BF16,
}

impl DType {
    /// Bytes of one element.
    pub const fn bytes(self) -> u64 {
        match self {
            DType::F32 => 4,
            DType::F16 | DType::BF16 => 2,
        }
    }

    /// The least number of elements that a kernel stores at once: two of 16 bits share a u32.
    pub(crate) const fn min_store_elements(self) -> u32 {
        match self {
            DType::F32 => 1,
            DType::F16 | DType::BF16 => 2,
        }
    }

    /// `f32`, `f16` or `bf16`.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
        }
    }
}

/// The order of a tensor's elements in memory. Shapes are given as (N, C, *spatial) in either, as with
/// PyTorch's memory formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Layout {
    /// N, C, *spatial: the elements of a channel lie together.
    #[default]
    ChannelsFirst,
    /// N, *spatial, C: the channels of a position lie together.
    ChannelsLast,
}

impl Layout {
    /// `channels_first` or `channels_last`.
    pub const fn name(self) -> &'static str {
        match self {
            Layout::ChannelsFirst => "channels_first",
            Layout::ChannelsLast => "channels_last",
        }
    }
}
