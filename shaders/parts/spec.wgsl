// The constants of a specialization: here those of the simplest. src/kernels/source.rs writes them for every other.

// Invocations of a workgroup.
const WORKGROUP_SIZE: u32 = 64u;
// Invocations that share a work item: a power of two that divides WORKGROUP_SIZE.
const LANES: u32 = 1u;
// Lanes that exchange values by subgroup shuffles: a power of two that divides LANES; 1: none do.
const SUBGROUP_SIZE: u32 = 1u;
// Elements of a tensor's word.
const WIDTH: u32 = 4u;
// Words of neighbouring channels that an invocation takes, where channels come last.
const COLUMN_WORDS: u32 = 1u;
// What the second pass applies: see arithmetic/activation.wgsl.
const ACTIVATION: u32 = 0u;
// Whether rows (with channels last, positions) begin at words; of short rows, whether a word is all one channel's.
const ALIGNED: bool = true;
// Of short rows: whether a group's words are a chunk of each lane.
const RESIDENT: bool = false;
// Whether the gradient of x is added to what is there.
const ACCUMULATE: bool = false;
