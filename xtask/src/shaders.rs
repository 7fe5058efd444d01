//! Every kernel in every language that wgpu has naga write, through the checkers there are: Khronos's for SPIR-V and GLSL, Tint
//! for WGSL. FXC's turn is in [`crate::dx12`], that of AMD's compiler in [`crate::isa`].

use std::process::ExitCode;

use crate::args::{Args, WebAction};
use crate::say;
use crate::setup;
use crate::system::System;
use crate::tasks::Step;
use crate::web;

/// The checkers, and what Debian has them in.
const CHECKERS: [(&str, &str); 2] = [
    ("spirv-val", "spirv-tools"),
    ("glslangValidator", "glslang-tools"),
];

/// Runs `bcnorm-backends`, the lints of the tests, and Tint.
pub fn run(args: Args) -> ExitCode {
    let system = System::probe();
    let missing = CHECKERS.iter().filter(|(name, _)| !system.program(name));
    let packages: Vec<&str> = missing.map(|(_, package)| *package).collect();
    if !packages.is_empty()
        && let Err(why) = setup::install(&system, &packages, args.install)
    {
        let names = packages.join(" ");
        say(&format!(
            "error: {why}; the checkers are in {names}, as Debian names them"
        ));
        return ExitCode::FAILURE;
    }
    let step = |name, line: &str| Step::new(name, &line.split(' ').collect::<Vec<_>>());
    let steps = [
        step(
            "languages",
            "run --release -p bcnorm-backends --features all",
        ),
        step(
            "lints",
            "test --release --workspace --test suite -- reflection::",
        ),
    ];
    // All of them, whichever fails.
    let statuses = steps.map(|step| step.status());
    let failed = statuses.into_iter().find(|status| *status != 0);
    let tint = web::run(WebAction::Tint, args.install);
    failed.map_or(tint, ExitCode::from)
}
