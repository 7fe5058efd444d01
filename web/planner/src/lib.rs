//! bcnorm's planner and CPU executor for JavaScript. An executor of plans in TypeScript (`web/src`) runs them
//! on the page's own GPUDevice, which wgpu cannot wrap; whatever needs to know what a norm is, is here.
//!
//! Structures travel as JSON, written by [`json`]; arrays of numbers as typed arrays; errors as `Error`
//! objects whose `name` is a code of `web/src/errors.ts`.
#![forbid(unsafe_code)]

#[cfg(feature = "cpu")]
mod cpu;
mod error;
mod json;
mod norm;
mod plan;
mod state;
mod tensor;
mod tuning;

use bcnorm::Role;
use error::Failure;

/// The role of a name.
fn role(name: &str) -> Result<Role, Failure> {
    let found = Role::ALL.iter().find(|role| role.name() == name);
    found
        .copied()
        .ok_or_else(|| Failure::unknown("buffer", "buffer", name))
}
