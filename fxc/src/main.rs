//! Compiles every text of the library as wgpu's DX12 backend does with FXC: WGSL to HLSL by naga, HLSL to bytecode by
//! d3dcompiler_47.dll. `cargo xtask dx12 --shaders` runs it, under wine.
//!
//! A line of JSON a text on stdout, as they are done: `spec`, then `instructions` and `temp_registers`, or `error`.
//! Its one argument, if there is one, is n for every n-th text only.

mod report;

#[cfg(windows)]
mod compile;

use std::process::ExitCode;

#[cfg(windows)]
fn main() -> ExitCode {
    let every = match std::env::args().nth(1).map(|word| word.parse()) {
        None => 1,
        Some(Ok(every)) if every > 0 => every,
        Some(_) => {
            eprintln!("usage: bcnorm-fxc [N]   every N-th text");
            return ExitCode::from(2);
        }
    };
    match compile::all(every) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

#[cfg(not(windows))]
fn main() -> ExitCode {
    eprintln!("FXC is on Windows alone: `cargo xtask dx12 --shaders` runs this under wine");
    ExitCode::from(2)
}
