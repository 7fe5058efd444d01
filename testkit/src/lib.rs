//! One normalization of the family with all its data, the three ways to compute it (on a GPU, on the
//! CPU executor, by the oracle), and the comparisons between them. The library's tests and the
//! command `bcnorm` both rest on it.
//!
//! - [`problem`]: a call and its data, drawn at random or from a golden file
//! - [`restrict`]: a large problem through some of its groups
//! - [`random`]: the generators that data are drawn by
//! - [`names`]: what golden files call inputs and outputs
//! - [`golden`]: reads golden files
//! - [`oracle`]: the norms of the family as their definitions read
//! - [`expected`]: what the oracle expects of a problem, output by output
//! - [`run`]: runs a problem, everything poisoned beforehand
//! - [`outputs`]: what runs leave
//! - [`compare`]: comparisons, of f32 and of 16-bit tensors
//! - [`storage`]: how a tensor's values lie in memory

#![forbid(unsafe_code)]

pub mod compare;
pub mod expected;
mod failure;
pub mod golden;
pub mod names;
pub mod oracle;
pub mod outputs;
pub mod problem;
pub mod random;
pub mod restrict;
pub mod run;
pub mod storage;

pub use failure::Failure;
