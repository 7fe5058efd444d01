//! `cargo xtask`: set-up, demo, tests and checks of bcnorm.
//!
//! - [`args`]: what the command line asks for
//! - [`system`]: what this machine has (reads only)
//! - [`setup`]: installs what is missing
//! - [`tasks`]: the cargo commands behind each task
//! - [`web`]: the browser package and its page
//! - [`integration`]: bcnorm in burn and over MPI, workspaces of their own
//! - [`shaders`]: every kernel in every language
//! - [`isa`], [`dx12`], [`kit`]: GPUs' compilers, DirectX 12, an archive for a machine with a GPU
//! - [`workspace`]: where cargo and the sources are

mod args;
mod dx12;
mod integration;
mod isa;
mod kit;
mod setup;
mod shaders;
mod system;
mod tasks;
mod web;
mod workspace;

use std::env;
use std::io::{self, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    match args::parse(env::args_os().skip(1)) {
        Ok(args) => tasks::run(args),
        Err(message) => {
            say(&format!("error: {message}"));
            ExitCode::from(2)
        }
    }
}

/// A line for the reader, on stderr; a closed stderr is no reason to panic.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
