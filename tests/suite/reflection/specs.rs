//! Every specialization that plans are made of, and what naga reads from its text.

use bcnorm::kernels::{Family, KernelId, Spec, wgsl};
use bcnorm::{Activation, DType};
use naga::Module;
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use std::collections::HashSet;

/// WebGPU's default limits.
pub const MAX_STORAGE_BUFFERS: usize = 8;
pub const MAX_WORKGROUP_MEMORY: u32 = 16 << 10;
pub const MAX_WORKGROUP_SIZE: u32 = 256;
pub const MAX_WORKGROUPS: u32 = 65_535;

/// How a family's tensors are cut.
#[derive(Clone, Copy)]
struct Cut {
    dtype: DType,
    width: u32,
    aligned: bool,
}

/// The cuts of a family's tensors; tables have none.
fn cuts(family: Family) -> Vec<Cut> {
    use DType::{BF16, F16, F32};
    let of = |dtypes: &[DType], cuts: &[(u32, bool)]| -> Vec<Cut> {
        let of = |&dtype: &DType| {
            let cut = move |&(width, aligned): &(u32, bool)| Cut {
                dtype,
                width,
                aligned,
            };
            cuts.iter().map(cut).collect::<Vec<_>>()
        };
        dtypes.iter().flat_map(of).collect()
    };
    let (single, halves): (&[_], &[_]) = match family {
        Family::RowReduce | Family::RowMap | Family::ElementReduce | Family::ElementColumn => (
            &[(4, true), (4, false), (1, true)],
            &[(4, true), (4, false), (2, true), (2, false)],
        ),
        Family::ColumnReduce => (&[(4, true), (1, true)], &[(4, true), (2, true), (1, true)]),
        Family::ColumnMap => (&[(4, true), (1, true)], &[(4, true), (2, true), (2, false)]),
        Family::Fold | Family::Table => (&[(1, true)], &[]),
    };
    let mut cuts = of(&[F32], single);
    cuts.extend(of(&[F16, BF16], halves));
    cuts
}

/// The activations that plans combine with bindings of the kernel that are not there.
fn fusions(kernel: KernelId) -> Vec<(Activation, u16)> {
    let declared = kernel.kernel().bindings;
    let optional: Vec<usize> = (0..declared.len())
        .filter(|&index| declared[index].optional)
        .collect();
    let has = |name: &str| declared.iter().any(|binding| binding.name == name);
    let activations = match kernel.kernel().family {
        Family::RowMap | Family::ColumnMap => 3,
        // Of short rows only where no backward follows.
        Family::ElementReduce if has("y") => 3,
        // Backward with an activation needs what it was applied to.
        Family::RowReduce | Family::ColumnReduce if has("coefficients") => 3,
        _ => 1,
    };
    let all = [Activation::None, Activation::Relu, Activation::Silu];
    let mut fusions = Vec::new();
    for subset in 0..1u16 << optional.len() {
        let mut absent = 0;
        for (bit, index) in optional.iter().enumerate() {
            absent |= (subset >> bit & 1) << index;
        }
        // Whether a binding is there; of those that the kernel does not have, none is.
        let there = |name: &str| {
            let index = declared.iter().position(|binding| binding.name == name);
            index.is_some_and(|index| absent >> index & 1 == 0)
        };
        for &activation in &all[..activations] {
            let possible = match kernel {
                // Mean and variance are tracked together, batches only with them; a fold has a
                // counter where it has statistics.
                KernelId::ChannelFold => {
                    there("running_mean") == there("running_var")
                        && (there("running_mean") || !there("num_batches_tracked"))
                }
                // Counts are for the means alone.
                KernelId::ChannelFoldBackward => there("channel_gradients") || !there("channels"),
                // In place, and with an activation, there is no backward.
                KernelId::ElementAffine => {
                    !there("groups") || (there("x") && activation == Activation::None)
                }
                KernelId::ElementTerms => there("channel_terms") || there("affine_terms"),
                _ if has("grad_y") => {
                    let fused = activation != Activation::None;
                    let residual = fused && there("residual");
                    there("coefficients") == fused
                        && there("residual") == residual
                        && (!has("grad_residual") || there("grad_residual") == residual)
                        // The activation is computed again from x.
                        && (there("x") || !fused)
                }
                _ => true,
            };
            if possible {
                fusions.push((activation, absent));
            }
        }
    }
    fusions
}

/// Words that an invocation takes, one or more.
fn together(family: Family, lanes: u32, cut: &Cut) -> &'static [u32] {
    match (family, lanes, cut.width) {
        (Family::ColumnReduce | Family::ColumnMap, 1, 4) => &[1, 2],
        _ => &[1],
    }
}

/// Whether a fold has no table to read: it has a lane then.
fn folds_nothing(kernel: KernelId, absent: u16) -> bool {
    kernel == KernelId::ChannelFold && absent & 1 == 1
}

/// Every specialization that plans are made of, but for the size of workgroups and the number of
/// lanes, which are 1 or 8, and for subgroups: see [`canonical`].
pub fn canonical_specs() -> Vec<Spec> {
    let mut specs = Vec::new();
    for &kernel in KernelId::ALL {
        let declared = kernel.kernel();
        let accumulates = declared.bindings.iter().any(|b| b.name == "grad_x");
        for cut in cuts(declared.family) {
            for (activation, absent) in fusions(kernel) {
                for lanes in [1, 8] {
                    let strides = declared.family == Family::ColumnMap && !cut.aligned;
                    let alone = [Family::Table, Family::ElementColumn].contains(&declared.family);
                    if lanes > 1 && (strides || alone || folds_nothing(kernel, absent)) {
                        continue;
                    }
                    for accumulate in [false, true] {
                        if accumulate && !accumulates {
                            continue;
                        }
                        let words = together(declared.family, lanes, &cut);
                        for &column_words in words {
                            specs.push(Spec {
                                kernel,
                                workgroup_size: 64,
                                lanes,
                                subgroup_size: 1,
                                dtype: cut.dtype,
                                width: cut.width,
                                column_words,
                                aligned: cut.aligned,
                                accumulate,
                                activation,
                                absent,
                            });
                        }
                    }
                }
            }
        }
    }
    specs
}

/// The canonical specialization that stands for another.
pub fn canonical(spec: &Spec) -> Spec {
    let lanes = if spec.lanes == 1 { 1 } else { 8 };
    Spec {
        workgroup_size: 64,
        lanes,
        subgroup_size: 1,
        column_words: spec.column_words.min(2),
        ..*spec
    }
}

/// One of each kernel for each workgroup, with fewer lanes than the smallest subgroup, as many, more: what a
/// reduction is made of does not depend on the rest.
fn with_subgroups(specs: &[Spec]) -> Vec<Spec> {
    let reducing = |spec: &&Spec| spec.kernel.kernel().family.reduces_side_by_side();
    let mut with = Vec::new();
    for spec in specs.iter().filter(reducing) {
        let sizes = [4, 32].map(|size: u32| size.min(spec.lanes));
        with.extend(sizes.map(|subgroup_size| Spec {
            subgroup_size,
            ..*spec
        }));
    }
    let mut seen = HashSet::new();
    with.retain(|spec| {
        let reduction = (
            spec.kernel,
            spec.workgroup_size,
            spec.lanes,
            spec.subgroup_size,
        );
        spec.subgroup_size > 1 && seen.insert(reduction)
    });
    with
}

/// All of these, and workgroups of every kind.
pub fn specs() -> Vec<Spec> {
    let mut specs = canonical_specs();
    for &kernel in KernelId::ALL {
        let family = kernel.kernel().family;
        // The widest words need most memory.
        let cut = cuts(family)[0];
        let fusions = fusions(kernel);
        let fewest = fusions.iter().max_by_key(|(_, absent)| absent.count_ones());
        let most = fusions.iter().min_by_key(|(_, absent)| absent.count_ones());
        for lanes in [1, 8, 64, 128, 256] {
            let mut sizes = vec![lanes, lanes.max(64), 128, 256];
            if lanes <= 8 {
                sizes.push(24);
            }
            sizes.sort();
            sizes.dedup();
            // The planner's workgroups for them are smaller.
            let limit = if family == Family::ColumnReduce {
                128
            } else {
                256
            };
            for workgroup_size in sizes {
                if workgroup_size > limit || workgroup_size < lanes {
                    continue;
                }
                for &(activation, absent) in fewest.into_iter().chain(most) {
                    if lanes > 1 && folds_nothing(kernel, absent) {
                        continue;
                    }
                    let accumulates = kernel.kernel().bindings.iter().any(|b| b.name == "grad_x");
                    for accumulate in [false, true] {
                        if accumulate && !accumulates {
                            continue;
                        }
                        specs.push(Spec {
                            kernel,
                            workgroup_size,
                            lanes,
                            subgroup_size: 1,
                            dtype: cut.dtype,
                            width: cut.width,
                            column_words: 1,
                            aligned: cut.aligned,
                            accumulate,
                            activation,
                            absent,
                        });
                    }
                }
            }
        }
    }
    specs.extend(with_subgroups(&specs));
    let mut seen = HashSet::new();
    specs.retain(|spec| seen.insert(*spec));
    specs
}

/// Parses and validates with no capability beyond what WebGPU's core has, but for subgroups where they are
/// asked for.
pub fn reflect(spec: &Spec) -> (Module, ModuleInfo) {
    let text = wgsl(spec);
    let module = naga::front::wgsl::parse_str(&text)
        .unwrap_or_else(|error| panic!("{spec:?}: {}", error.emit_to_string(&text)));
    let capabilities = match spec.subgroup_size {
        1 => Capabilities::empty(),
        _ => Capabilities::SUBGROUP,
    };
    let info = Validator::new(ValidationFlags::all(), capabilities)
        .validate(&module)
        .unwrap_or_else(|error| panic!("{spec:?}: {}", error.emit_to_string(&text)));
    (module, info)
}

pub fn spec(kernel: KernelId, lanes: u32) -> Spec {
    Spec {
        width: 4,
        aligned: false,
        ..Spec::new(kernel, 64, lanes)
    }
}
