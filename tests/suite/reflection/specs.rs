//! Every specialization that plans are made of, and what naga reads from its text.

use bcnorm::Activation;
use bcnorm::kernels::{Family, KernelId, Spec, canonical_specs, wgsl};
use naga::Module;
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use std::collections::HashSet;

/// WebGPU's default limits.
pub const MAX_STORAGE_BUFFERS: usize = 8;
pub const MAX_WORKGROUP_MEMORY: u32 = 16 << 10;
pub const MAX_WORKGROUP_SIZE: u32 = 256;
pub const MAX_WORKGROUPS: u32 = 65_535;

/// One of each kernel for each workgroup, with fewer lanes than the smallest subgroup, as many, more: what a
/// reduction is made of does not depend on the rest.
fn with_subgroups(specs: &[Spec]) -> Vec<Spec> {
    let mut with = Vec::new();
    for spec in specs {
        for size in [4, 32] {
            let mut spec = *spec;
            spec.subgroup_size = spec.lanes.min(size);
            with.push(spec);
        }
    }
    let mut seen = HashSet::new();
    with.retain(|spec| {
        let reduction = (
            spec.kernel,
            spec.workgroup_size,
            spec.lanes,
            spec.subgroup_size,
        );
        spec.check().is_ok() && spec.subgroup_size > 1 && seen.insert(reduction)
    });
    with
}

/// One of each kernel for each width of f16, read and written by the device's own conversions.
fn with_native_f16(specs: &[Spec]) -> Vec<Spec> {
    let mut with = Vec::new();
    for spec in specs {
        for native_pack in [false, true] {
            let mut spec = *spec;
            spec.native_unpack = true;
            spec.native_pack = native_pack;
            with.push(spec);
        }
    }
    let mut seen = HashSet::new();
    with.retain(|spec| {
        let words = (spec.kernel, spec.width, spec.aligned, spec.native_pack);
        spec.check().is_ok() && seen.insert(words)
    });
    with
}

/// All of the canonical ones, and workgroups of every kind.
pub fn specs() -> Vec<Spec> {
    let mut specs = canonical_specs();
    for &kernel in KernelId::ALL {
        // The planner's workgroups for words of channels are smaller, as their entries are larger.
        let limit = match kernel.kernel().family {
            Family::ColumnReduce => 128,
            _ => 256,
        };
        let own = || specs.iter().filter(move |spec| spec.kernel == kernel);
        // The widest words need most memory.
        let widest = own().next().unwrap();
        let alike = own().filter(|spec| {
            (spec.dtype, spec.width, spec.aligned) == (widest.dtype, widest.width, widest.aligned)
        });
        let fewest = alike.clone().max_by_key(|spec| spec.absent.count_ones());
        let most = alike.min_by_key(|spec| spec.absent.count_ones());
        let ends: Vec<Spec> = fewest.into_iter().chain(most).copied().collect();
        for lanes in [1, 8, 64, 128, 256] {
            for workgroup_size in [lanes, 24, 64, 128, 256] {
                for end in &ends {
                    for accumulate in [false, true] {
                        let mut spec = *end;
                        spec.workgroup_size = workgroup_size;
                        spec.lanes = lanes;
                        spec.accumulate = accumulate;
                        if workgroup_size <= limit && spec.check().is_ok() {
                            specs.push(spec);
                        }
                    }
                }
            }
        }
    }
    specs.extend(with_subgroups(&specs));
    specs.extend(with_native_f16(&specs));
    let mut seen = HashSet::new();
    specs.retain(|spec| seen.insert(*spec));
    specs
}

/// Parses and validates with no capability beyond what WebGPU's core has (the conversions of f16 among them, for which naga
/// has a capability), but for subgroups where they are asked for.
pub fn reflect(spec: &Spec) -> (Module, ModuleInfo) {
    let text = wgsl(spec);
    let module = naga::front::wgsl::parse_str(&text)
        .unwrap_or_else(|error| panic!("{spec:?}: {}", error.emit_to_string(&text)));
    let mut capabilities = Capabilities::empty();
    capabilities.set(Capabilities::SUBGROUP, spec.subgroup_size > 1);
    let native = spec.native_unpack || spec.native_pack;
    capabilities.set(Capabilities::SHADER_FLOAT16_IN_FLOAT32, native);
    let info = Validator::new(ValidationFlags::all(), capabilities)
        .validate(&module)
        .unwrap_or_else(|error| panic!("{spec:?}: {}", error.emit_to_string(&text)));
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
