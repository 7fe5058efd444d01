//! The command `bcnorm`: Batch-Channel Normalization on the GPUs of this machine.
#![forbid(unsafe_code)]

mod bench;
mod case;
mod demo;
mod device;
mod info;
mod npy;
mod partial;
mod progress;
mod request;
mod run;
mod section;
mod store;
mod table;
mod text;
mod tune;
mod tuning;
mod verify;

use clap::{Parser, Subcommand};
use std::io::{ErrorKind, Write as _};
use std::process::ExitCode;

/// Batch-Channel Normalization (Qiao et al. 2019, arXiv:1911.09738) on any GPU.
///
/// Normalizes images or activations on the GPU, forward and backward; checks that a GPU and its
/// driver compute the right thing; measures how fast they do.
#[derive(Parser)]
#[command(name = "bcnorm", version, arg_required_else_help = true, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  bcnorm info                         which GPUs there are, and which one is taken
  bcnorm demo photo.jpg               normalize a photograph's feature maps, draw before and after
  bcnorm verify tests/golden          does every GPU of this machine compute what PyTorch does?
  bcnorm run --input x.npy --params bcnorm.safetensors --groups 32 --output y.safetensors
  bcnorm bench                        milliseconds, GB/s, and the ratio to a plain copy
  bcnorm tune --save tuning.txt       search a faster tuning for this machine

Without a GPU, a software driver serves (on Debian: apt install mesa-vulkan-drivers).
WGPU_BACKEND=vulkan, gl, dx12 or metal restricts where adapters are looked for.
Exit status: 0 done, 1 failed, 2 wrong usage.";

#[derive(Subcommand)]
enum Command {
    /// List adapters, what they offer, and the tuning that is used on them
    Info(info::Args),
    /// Normalize a photograph's feature maps, check them against f64, draw them
    Demo(demo::Args),
    /// Run golden vectors on every adapter: do GPU and driver compute the right thing?
    Verify(verify::Args),
    /// Normalize stored activations with stored parameters
    Run(run::Args),
    /// Measure forward and backward against a copy of the same tensor
    Bench(bench::Args),
    /// Write what was measured as a section of a Markdown file
    Section(section::Args),
    /// Search a faster tuning for an adapter, by measurement
    Tune(tune::Args),
}

/// Status of a program that a closed pipe ended: 128 + SIGPIPE.
const BROKEN_PIPE: u8 = 141;

fn main() -> ExitCode {
    let Cli { command } = Cli::parse();
    #[cfg(target_os = "linux")]
    quiet_mesa();
    let result = match command {
        Command::Info(args) => info::run(args),
        Command::Demo(args) => demo::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Run(args) => run::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Section(args) => section::run(args),
        Command::Tune(args) => tune::run(args),
    };
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    if is_broken_pipe(&error) {
        return ExitCode::from(BROKEN_PIPE);
    }
    // Nothing is left to do if standard error is closed too.
    let _ = writeln!(std::io::stderr(), "error: {}", text::describe_error(&error));
    ExitCode::FAILURE
}

/// Mesa writes to standard error where XDG_RUNTIME_DIR is not set, at each look for adapters. So the
/// program starts again in its place with the variable set, to a folder that does not exist: no socket
/// can be found there, which is all that it would serve for.
#[cfg(target_os = "linux")]
fn quiet_mesa() {
    use std::os::unix::process::CommandExt as _;
    const RUNTIME_DIR: &str = "XDG_RUNTIME_DIR";
    let set = std::env::var_os(RUNTIME_DIR).is_some_and(|folder| !folder.is_empty());
    let Ok(program) = std::env::current_exe() else {
        return;
    };
    if !set {
        let mut args = std::env::args_os();
        let name = args.next().unwrap_or_else(|| program.clone().into());
        let mut again = std::process::Command::new(program);
        // It only returns where it failed: then there is noise.
        let _ = again
            .arg0(name)
            .args(args)
            .env(RUNTIME_DIR, "/nonexistent/bcnorm")
            .exec();
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
    })
}
