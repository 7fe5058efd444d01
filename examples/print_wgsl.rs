//! The final WGSL of any kernel, as it is handed to wgpu.
//!
//! `cargo run --example print_wgsl -- group_fold lanes=1 without=weight,bias`

use bcnorm::kernels::{KernelId, Spec, canonical_specs, wgsl};
use bcnorm::{Activation, DType};

fn usage() -> String {
    let kernels: Vec<&str> = KernelId::ALL.iter().map(|kernel| kernel.name()).collect();
    format!(
        "usage: print_wgsl KERNEL [lanes=8] [subgroup=1] [words=1] [width=4] [f16|bf16] [native] [relu|silu] \
         [unaligned] [accumulate] [without=BINDING,...]\nkernels: {}",
        kernels.join(" ")
    )
}

/// The specialization that is asked for, with all bindings that go together but for those that it is to be without.
pub fn spec(arguments: &[String]) -> Option<Spec> {
    let (name, rest) = arguments.split_first()?;
    let kernel = *KernelId::ALL.iter().find(|kernel| kernel.name() == name)?;
    let mut specs = canonical_specs();
    specs.retain(|spec| spec.kernel == kernel);
    let (mut dtype, mut activation) = (DType::F32, Activation::None);
    let (mut aligned, mut accumulate, mut native) = (true, false, false);
    let (mut lanes, mut subgroup_size, mut column_words) = (None, 1, 1);
    for argument in rest {
        match argument.split_once('=').unwrap_or((argument, "")) {
            ("lanes", text) => lanes = Some(text.parse().ok()?),
            ("words", text) => column_words = text.parse().ok()?,
            ("subgroup", text) => subgroup_size = text.parse().ok()?,
            ("width", text) => {
                let width: u32 = text.parse().ok()?;
                specs.retain(|spec| spec.width == width);
            }
            ("without", names) => {
                for name in names.split(',') {
                    specs.retain(|spec| !spec.has(name));
                }
            }
            ("f16", "") => dtype = DType::F16,
            ("bf16", "") => dtype = DType::BF16,
            ("native", "") => native = true,
            ("relu", "") => activation = Activation::Relu,
            ("silu", "") => activation = Activation::Silu,
            ("unaligned", "") => aligned = false,
            ("accumulate", "") => accumulate = true,
            _ => return None,
        }
    }
    specs.retain(|spec| (spec.dtype, spec.activation) == (dtype, activation));
    specs.retain(|spec| (spec.aligned, spec.accumulate) == (aligned, accumulate));
    let all = |spec: &Spec| (spec.width, spec.bindings().count(), spec.lanes);
    let mut spec = specs.into_iter().max_by_key(all)?;
    spec.lanes = lanes.unwrap_or(if column_words > 1 { 1 } else { spec.lanes });
    spec.subgroup_size = subgroup_size;
    spec.column_words = column_words;
    spec.workgroup_size = spec.lanes.max(64);
    spec.native_unpack = native;
    spec.native_pack = native;
    if native && spec.check().is_err() {
        // A kernel that writes no tensor.
        spec.native_pack = false;
    }
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
