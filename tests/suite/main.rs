//! All tests of the library from outside, in one program: it links wgpu once.
#![allow(missing_docs)]

mod accuracy;
mod cases;
mod common;
mod determinism;
mod devices;
mod elements;
mod encode;
mod errors;
mod exchange;
mod family;
mod goldens;
mod hot_path;
mod layer;
mod limits;
mod nan;
mod native_f16;
mod oracle;
mod property;
mod reflection;
mod saved;
mod stages;
mod state;
mod subgroups;
mod sums;
mod weights;
mod windows;
