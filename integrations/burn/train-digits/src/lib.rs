//! A residual network that learns handwritten digits at batch size 2: convolutions, loss and optimizer by burn, norms by
//! bcnorm or by burn. PyTorch's twin, `examples/reference/train_digits.py`, has the same digits, initial weights, order
//! and log.
//!
//! - [`args`]: the command line
//! - [`digits`], [`random`]: what is learned, in which order, and from which weights on
//! - [`network`]: the network, and its state by PyTorch's names
//! - [`training`]: a step, an evaluation
//! - [`checkpoint`]: states in files
//! - [`log`]: what a run was like, as a table
//! - [`ranks`]: several ranks, each with its share of a batch
//! - [`run`]: a run from the first step to the last
//! - [`compare`], [`chart`]: many runs in one picture
//! - [`mod@bench`]: what a step costs
#![forbid(unsafe_code)]

pub mod args;
pub mod bench;
pub mod chart;
pub mod checkpoint;
pub mod compare;
pub mod device;
pub mod digits;
pub mod log;
pub mod network;
pub mod random;
pub mod ranks;
pub mod run;
pub mod training;
