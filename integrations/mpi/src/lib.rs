#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod norm;
mod run;

pub use norm::{Error, Saved, SyncNorm};
pub use run::run;
