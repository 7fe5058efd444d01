//! DirectX 12, under wine.

use std::process::ExitCode;

use crate::args::Args;

/// Does what the command line asks for.
pub fn run(_args: Args) -> ExitCode {
    todo!()
}
