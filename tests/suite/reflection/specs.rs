//! Every specialization that plans are made of, and what naga reads from its text.

use bcnorm::Activation;
use bcnorm::kernels::{KernelId, Spec, canonical_specs, wgsl};
use bcnorm_backends::Kernel;
pub use bcnorm_backends::covering_specs as specs;
use naga::Module;
use naga::valid::ModuleInfo;

/// WebGPU's default limits.
pub const MAX_STORAGE_BUFFERS: usize = 8;
pub const MAX_WORKGROUP_MEMORY: u32 = 16 << 10;
pub const MAX_WORKGROUP_SIZE: u32 = 256;
pub const MAX_WORKGROUPS: u32 = 65_535;

/// Parses and validates with no capability beyond what WebGPU's core has (the conversions of f16 among them, for which naga
/// has a capability), but for subgroups where they are asked for.
pub fn reflect(spec: &Spec) -> (Module, ModuleInfo) {
    let Kernel { module, info, .. } =
        Kernel::new(*spec).unwrap_or_else(|error| panic!("{spec:?}: {error}"));
    (module, info)
}

/// One of a kernel, with all bindings that go together.
pub fn spec(kernel: KernelId) -> Spec {
    let specs = canonical_specs();
    let own = specs.into_iter().filter(|spec| spec.kernel == kernel);
    let most = own.max_by_key(|spec| (spec.bindings().count(), spec.lanes));
    most.unwrap()
}

#[test]
fn what_no_kernel_accepts_is_refused() {
    let accepted = spec(KernelId::RowAffine);
    assert_eq!(accepted.check(), Ok(()));
    type Change = fn(&mut Spec);
    let changes: [(&str, Change); 11] = [
        ("workgroup_size", |spec| spec.workgroup_size = 1 << 17),
        ("lanes", |spec| spec.lanes = 3),
        ("subgroup_size", |spec| spec.subgroup_size = 4),
        // Of f32.
        ("native_unpack", |spec| spec.native_unpack = true),
        ("native_pack", |spec| spec.native_pack = true),
        ("width", |spec| spec.width = 3),
        ("column_words", |spec| spec.column_words = 2),
        ("resident", |spec| spec.resident = true),
        ("accumulate", |spec| spec.accumulate = true),
        ("activation", |spec| {
            spec.kernel = KernelId::RowMoments;
            spec.absent = 0;
            spec.activation = Activation::Relu;
        }),
        // Its coefficients.
        ("absent", |spec| spec.absent |= 2),
    ];
    for (field, change) in changes {
        let mut spec = accepted;
        change(&mut spec);
        assert_eq!(spec.check(), Err(field));
    }
    let text = std::panic::catch_unwind(|| {
        let mut spec = accepted;
        spec.lanes = 3;
        wgsl(&spec)
    });
    assert!(text.is_err(), "a text of what no plan has");
}
