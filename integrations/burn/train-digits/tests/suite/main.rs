//! The tests of train-digits: one program, so that wgpu is linked once.

mod command;
mod common;
mod files;
mod random;
mod twin;
