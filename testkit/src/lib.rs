//! One normalization of the family with all its data, the three ways to compute it (on a GPU, on the
//! CPU executor, by the oracle), and the comparisons between them. The library's tests and the
//! command `bcnorm` both rest on it.
//!
//! - [`oracle`]: the norms of the family as their definitions read
//! - [`problem`]: a call and its data, drawn at random or from a golden file
//! - [`golden`]: reads golden files
//! - [`chain`]: the golden files of Weight Standardization, a convolution and BCNorm in a row
//! - [`run`]: runs a problem, everything poisoned beforehand
//! - [`compare`]: comparisons, of f32 and of 16-bit tensors
//! - [`storage`]: how a tensor's values lie in memory
//! - [`restrict`]: a large problem through some of its groups

#![forbid(unsafe_code)]

pub mod chain;
pub mod compare;
pub mod golden;
pub mod oracle;
pub mod problem;
pub mod restrict;
pub mod run;
pub mod storage;

use std::fmt;

/// What kept a problem from running.
#[derive(Debug)]
pub enum Failure {
    /// The library refused, or the device was lost.
    Library(bcnorm::Error),
    /// The data do not fit the norm, or what came out is not what a kernel wrote.
    Data(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Library(error) => error.fmt(f),
            Failure::Data(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for Failure {}

impl From<bcnorm::Error> for Failure {
    fn from(error: bcnorm::Error) -> Self {
        Failure::Library(error)
    }
}
