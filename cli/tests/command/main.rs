//! The command as users run it: every test starts the built program.
#![allow(missing_docs)]

mod bench;
mod common;
mod demo;
mod run;
mod verify;
