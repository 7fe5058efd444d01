//! What AMD's compiler makes of the kernels: sets up Mesa's driver for AMD, which comes in one package with llvmpipe, and runs
//! `bcnorm-isa`.

use std::process::ExitCode;

use crate::args::Args;
use crate::say;
use crate::setup::{self, Scope};
use crate::tasks::Step;

/// Runs `bcnorm-isa` with what follows the command's name; its exit status is ours.
pub fn run(args: Args) -> ExitCode {
    if !setup::prepare(Scope::Demo, args.install).usable {
        say("error: no Vulkan driver, no compiler");
        return ExitCode::FAILURE;
    }
    let command = ["run", "--release", "-p", "bcnorm-isa", "--"];
    ExitCode::from(Step::new("isa", &command).args(args.rest).status())
}
