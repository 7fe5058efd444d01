//! What the integration tests share. Each test file uses some of it.
#![allow(dead_code, missing_docs, unused_imports)]

pub mod adapters;
pub mod by_hand;
pub mod conditioning;
pub mod rig;
pub mod steps;
pub mod targets;
pub mod uniformity;
pub mod watch;
pub mod work;

pub use bcnorm_cases::{compare, golden, problem, restrict, run};
