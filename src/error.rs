//! One error type for the whole library: each message names the value, the limit and the way out.

use crate::dtype::{DType, Layout};
use crate::role::Role;
use std::sync::Arc;

/// Everything that can be wrong with a request, found before any work is recorded.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The tensor has no channel dimension.
    #[error(
        "a tensor of rank {rank} has no channel dimension: bcnorm takes (N, C, *spatial), rank 2 or more"
    )]
    Rank {
        /// Number of dimensions given.
        rank: usize,
    },
    /// The tensor has more elements than a kernel can index.
    #[error(
        "a tensor of shape {dims:?} has {elements} {what}; a kernel indexes at most {limit}: {way_out}"
    )]
    TooManyElements {
        /// Shape given.
        dims: Vec<usize>,
        /// What are too many: elements, those of one row, samples or channels.
        what: &'static str,
        /// How many it has (saturating).
        elements: u128,
        /// Largest number of them.
        limit: u64,
        /// What to do.
        way_out: &'static str,
    },
    /// `num_channels` is zero.
    #[error("num_channels is 0: a normalization needs at least one channel")]
    NoChannels,
    /// `num_groups` is zero or does not divide `num_channels`.
    #[error(
        "num_groups = {num_groups} does not divide num_channels = {num_channels}: choose a divisor (1 to {num_channels})"
    )]
    Groups {
        /// Groups asked for.
        num_groups: usize,
        /// Channels of the norm.
        num_channels: usize,
    },
    /// The tensor's channels are not the norm's.
    #[error(
        "the tensor {dims:?} has {found} channels (dimension 1), the norm has num_channels = {expected}"
    )]
    ChannelMismatch {
        /// Shape of the tensor.
        dims: Vec<usize>,
        /// Channels of the tensor.
        found: usize,
        /// Channels of the norm.
        expected: usize,
    },
    /// A scalar parameter is out of its range.
    #[error("{name} = {value} is out of range: it must be {range}")]
    Parameter {
        /// Its PyTorch name.
        name: &'static str,
        /// The value given.
        value: f32,
        /// The legal range, in words.
        range: &'static str,
    },
    /// Statistics of a single value.
    #[error("expected more than 1 value per {of}, got a tensor of shape {dims:?}: {way_out}")]
    OneValuePerChannel {
        /// Shape of the tensor.
        dims: Vec<usize>,
        /// What the statistics are of, and when they are the input's own.
        of: &'static str,
        /// What to do.
        way_out: String,
    },
    /// A norm was given a momentum or moving speed that it has no use for, or both.
    #[error("{norm} takes no {given}: {way_out}")]
    Stats {
        /// Which norm.
        norm: &'static str,
        /// What it was given.
        given: &'static str,
        /// What to do.
        way_out: &'static str,
    },
    /// The input of a call has another shape than the one it belongs to.
    #[error("{what} has shape {found:?}, expected {expected:?}")]
    Shape {
        /// Which tensor.
        what: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape it must have.
        expected: Vec<usize>,
    },
    /// The input of a call is stored otherwise than the one it belongs to.
    #[error(
        "{what} is {} {}, expected {} {} as x",
        .found.0.name(), .found.1.name(), .expected.0.name(), .expected.1.name()
    )]
    Storage {
        /// Which tensor.
        what: String,
        /// Its type and layout.
        found: (DType, Layout),
        /// Those it must have.
        expected: (DType, Layout),
    },
    /// Host data of the wrong length.
    #[error("{what} has {found} values, expected {expected}")]
    Length {
        /// What was given.
        what: String,
        /// Its number of values.
        found: usize,
        /// The number it must have.
        expected: usize,
    },
    /// Buffers that a plan needs were not bound.
    #[error("the plan needs buffers that were not bound: {}", list(.roles))]
    Missing {
        /// All that are missing.
        roles: Vec<Role>,
    },
    /// A buffer is too small at the given offset.
    #[error(
        "{role} needs {needed} bytes at offset {offset}, but its buffer ends at {size}: bind a larger buffer or a smaller offset"
    )]
    BufferTooSmall {
        /// Which buffer.
        role: Role,
        /// Bytes needed.
        needed: u64,
        /// Offset given, in bytes.
        offset: u64,
        /// Size of the buffer, in bytes.
        size: u64,
    },
    /// A buffer's offset is not aligned.
    #[error(
        "the offset {offset} of {role} is not a multiple of {alignment} (min_storage_buffer_offset_alignment of the device)"
    )]
    Misaligned {
        /// Which buffer.
        role: Role,
        /// Offset given, in bytes.
        offset: u64,
        /// Alignment asked by the device, in bytes.
        alignment: u64,
    },
    /// A buffer lacks a usage flag.
    #[error("{what} lacks BufferUsages::{missing}: create it with that flag (it has {usage})")]
    Usage {
        /// Which buffer.
        what: String,
        /// Flag that is missing.
        missing: &'static str,
        /// Flags that the buffer has.
        usage: String,
    },
    /// Two roles share memory although one of them is written.
    #[error(
        "{first} and {second} share a buffer ({conflict}) and {written} is written: give them buffers of their own"
    )]
    Aliasing {
        /// One role.
        first: Role,
        /// The other role.
        second: Role,
        /// The role of the two that is written.
        written: Role,
        /// How they conflict.
        conflict: &'static str,
    },
    /// A device or tuning limit is exceeded: `value` is more than `limit`.
    #[error("{what} is {value}, over the limit {limit} ({limit_name}): {way_out}")]
    Limit {
        /// What is too large.
        what: String,
        /// How large it is.
        value: u64,
        /// The limit.
        limit: u64,
        /// The limit's name in wgpu.
        limit_name: &'static str,
        /// What to do.
        way_out: &'static str,
    },
    /// What is used together belongs to several devices.
    #[error(
        "{what} belongs to another device: make all that is used together with one wgpu::Device and its queue"
    )]
    WrongDevice {
        /// What is another device's.
        what: String,
    },
    /// A forward in place that backward would need the input of.
    #[error(
        "forward in place overwrites x, which the backward of a training forward reads: write to a tensor of its own, or use eval()"
    )]
    InPlace,
    /// Backward was asked of a forward that it cannot go back through.
    #[error("backward of a forward {why}: {way_out}")]
    NothingSaved {
        /// Why not.
        why: &'static str,
        /// What to do.
        way_out: &'static str,
    },
    /// Backward was given what another layer's forward saved.
    #[error("this Saved is another layer's: give it to the layer whose forward returned it")]
    ForeignSaved,
    /// A tensor for the gradient of a residual, where nothing would be written to it.
    #[error("{}: leave grad_residual out", no_residual_gradient(*.residual))]
    NoResidualGradient {
        /// Whether forward had a residual.
        residual: bool,
    },
    /// A state dict does not fit; every mismatch is listed.
    #[error("the state dict does not fit: {}", plain(&.problems.join("; ")))]
    StateDict {
        /// One line per entry that is missing, extra or of the wrong size.
        problems: Vec<String>,
    },
    /// A safetensors file cannot be read or written; every bad entry is listed.
    #[error("{}: {}", plain(.file), plain(&.problems.join("; ")))]
    Checkpoint {
        /// The file.
        file: String,
        /// One line per entry, or what failed as a whole.
        problems: Vec<String>,
        /// What the file system says of it, where that failed.
        source: Option<Source>,
    },
    /// The text of a tuning cannot be read, or no plan can be made with its values; everything wrong with it is
    /// listed.
    #[error("the tuning cannot be used: {}", plain(&.problems.join("; ")))]
    Tuning {
        /// One line per setting that is unknown, twice there or of no value of its field.
        problems: Vec<String>,
    },
    /// A step was to run that the plan does not have.
    #[error(
        "the step {kernel} is not one of this plan's: run steps of the plan's own (Plan::steps)"
    )]
    ForeignStep {
        /// The step's kernel.
        kernel: &'static str,
    },
    /// No backend offers a GPU adapter.
    #[error("no GPU adapter found: install a Vulkan driver (on Debian: mesa-vulkan-drivers)")]
    NoAdapter,
    /// The adapter refused a device, the device objected, or it was lost.
    #[error("the GPU device failed: {what}")]
    Device {
        /// What was being done, or what happened.
        what: String,
        /// What wgpu says of it.
        source: Option<Source>,
    },
}

/// An error of another library beneath an [`Error`], which [`source`](std::error::Error::source) returns as it was: a
/// [`std::io::Error`], say, to be downcast. Two are equal where they say the same.
#[derive(Debug, Clone)]
pub struct Source(Arc<Underlying>);

/// wgpu's errors may stay on their thread in a browser.
#[cfg(not(target_arch = "wasm32"))]
type Underlying = dyn std::error::Error + Send + Sync;
#[cfg(target_arch = "wasm32")]
type Underlying = dyn std::error::Error;

impl std::ops::Deref for Source {
    type Target = Underlying;

    fn deref(&self) -> &Underlying {
        &*self.0
    }
}

impl PartialEq for Source {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_string() == other.0.to_string()
    }
}

#[cfg(not(target_arch = "wasm32"))]
impl<E: std::error::Error + Send + Sync + 'static> From<E> for Source {
    fn from(error: E) -> Self {
        Source(Arc::new(error))
    }
}

#[cfg(target_arch = "wasm32")]
impl<E: std::error::Error + 'static> From<E> for Source {
    fn from(error: E) -> Self {
        Source(Arc::new(error))
    }
}

/// What names and texts of a file may hold is shown, not obeyed: a terminal would take control characters, and
/// those that turn the direction of writing, for commands.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                plain.extend(c.escape_unicode());
            }
            c if c.is_control() => plain.extend(c.escape_default()),
            c => plain.push(c),
        }
    }
    plain
}

fn list(roles: &[Role]) -> String {
    let names: Vec<String> = roles.iter().map(ToString::to_string).collect();
    names.join(", ")
}

fn no_residual_gradient(residual: bool) -> &'static str {
    if residual {
        "without an activation the residual's gradient is grad_y itself"
    } else {
        "forward had no residual, and so there is no gradient of it"
    }
}

/// An error where `value` is more than `limit`, and only there.
pub(crate) fn within(
    what: impl FnOnce() -> String,
    value: u64,
    limit: u64,
    limit_name: &'static str,
    way_out: &'static str,
) -> Result<(), Error> {
    if value <= limit {
        return Ok(());
    }
    Err(Error::Limit {
        what: what(),
        value,
        limit,
        limit_name,
        way_out,
    })
}
