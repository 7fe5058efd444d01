//! Which specializations stand for all.

use bcnorm::kernels::{Family, KernelId, Spec, canonical_specs};
use std::collections::HashSet;

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

/// A cover of all specializations: the [canonical ones](canonical_specs), and of each kernel workgroups of every kind, subgroups,
/// and devices' own conversions of f16.
pub fn covering_specs() -> Vec<Spec> {
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
