//! The final WGSL of any kernel, as it is handed to wgpu.
//!
//! `cargo run --example print_wgsl -- group_fold lanes=1 without=weight,bias`

use bcnorm::kernels::{KernelId, Spec, canonical_specs, wgsl};
use bcnorm::{Activation, DType};

fn usage() -> String {
    let kernels: Vec<&str> = KernelId::ALL.iter().map(|kernel| kernel.name()).collect();
    format!(
        "usage: print_wgsl KERNEL [lanes=8] [subgroup=1] [words=1] [width=4] [f16|bf16] [relu|silu] \
         [unaligned] [accumulate] [without=BINDING,...]\nkernels: {}",
        kernels.join(" ")
    )
}

fn spec(arguments: &[String]) -> Option<Spec> {
    let (name, rest) = arguments.split_first()?;
    let kernel = *KernelId::ALL.iter().find(|kernel| kernel.name() == name)?;
    // The kernel with all that goes together.
    let specs = canonical_specs().into_iter();
    let specs = specs.filter(|spec| spec.kernel == kernel);
    let mut spec = specs.max_by_key(|spec| (spec.bindings().count(), spec.width))?;
    (spec.dtype, spec.aligned) = (DType::F32, true);
    (spec.activation, spec.absent) = (Activation::None, 0);
    for argument in rest {
        match argument.split_once('=').unwrap_or((argument, "")) {
            ("lanes", lanes) => spec.lanes = lanes.parse().ok()?,
            ("words", words) => spec.column_words = words.parse().ok()?,
            ("subgroup", size) => spec.subgroup_size = size.parse().ok()?,
            ("width", width) => spec.width = width.parse().ok()?,
            ("without", names) => {
                for name in names.split(',') {
                    let bindings = kernel.kernel().bindings.iter();
                    let mut named = bindings.map(|b| b.optional && b.name == name);
                    spec.absent |= 1 << named.position(|named| named)?;
                }
            }
            ("f16", "") => spec.dtype = DType::F16,
            ("bf16", "") => spec.dtype = DType::BF16,
            ("relu", "") => spec.activation = Activation::Relu,
            ("silu", "") => spec.activation = Activation::Silu,
            ("unaligned", "") => spec.aligned = false,
            ("accumulate", "") => spec.accumulate = true,
            _ => return None,
        }
    }
    spec.workgroup_size = spec.lanes.max(64);
    Some(spec)
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(spec) = spec(&arguments) else {
        eprintln!("{}", usage());
        std::process::exit(2);
    };
    if let Err(field) = spec.check() {
        eprintln!("{} accepts no such {field}: {spec:?}", spec.kernel.name());
        std::process::exit(2);
    }
    print!("{}", wgsl(&spec));
}
