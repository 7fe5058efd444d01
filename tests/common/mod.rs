//! What the integration tests share. Each test file uses some of it.
#![allow(dead_code, missing_docs)]

pub mod adapters;
pub mod compare;
pub mod conditioning;
pub mod golden;
pub mod problem;
pub mod restrict;
pub mod run;
pub mod steps;
pub mod targets;
pub mod watch;
