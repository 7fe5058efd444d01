//! The final WGSL of any kernel, as it is handed to wgpu.
//!
//! `cargo run --example print_wgsl -- row_moments [lanes] [width] [unaligned]`

use bcnorm::kernels::{KernelId, Spec, wgsl};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let named = |kernel: &&KernelId| arguments.first().is_some_and(|name| name == kernel.name());
    let Some(&kernel) = KernelId::ALL.iter().find(named) else {
        eprintln!("usage: print_wgsl KERNEL [lanes] [width] [unaligned]; kernels:");
        for kernel in KernelId::ALL {
            eprintln!("  {}", kernel.name());
        }
        std::process::exit(2);
    };
    let number = |index: usize, default: u32| match arguments.get(index).map(|text| text.parse()) {
        None => default,
        Some(Ok(number)) => number,
        Some(Err(error)) => {
            eprintln!("{}: {error}", arguments[index]);
            std::process::exit(2);
        }
    };
    let lanes = number(1, 64);
    let spec = Spec {
        kernel,
        workgroup_size: lanes.max(64),
        lanes,
        width: number(2, 4),
        aligned: !arguments.iter().any(|argument| argument == "unaligned"),
        accumulate: false,
        fence: false,
    };
    print!("{}", wgsl(&spec));
}
