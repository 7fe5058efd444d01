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
    grain: u32,
    tail: bool,
    aligned: bool,
}

/// The cuts of a family's tensors; tables have none.
fn cuts(family: Family) -> Vec<Cut> {
    use DType::{BF16, F16, F32};
    let of = |dtypes: &[DType], cuts: &[(u32, u32, bool, bool)]| -> Vec<Cut> {
        let of = |&dtype: &DType| {
            let cut = move |&(width, grain, tail, aligned): &(u32, u32, bool, bool)| Cut {
                dtype,
                width,
                grain,
                tail,
                aligned,
            };
            cuts.iter().map(cut).collect::<Vec<_>>()
        };
        dtypes.iter().flat_map(of).collect()
    };
    let (single, halves): (&[_], &[_]) = match family {
        Family::RowReduce | Family::RowMap => (
            &[
                (4, 4, false, true),
                (4, 4, false, false),
                (4, 4, true, false),
                (1, 1, false, true),
            ],
            &[
                (4, 4, false, true),
                (4, 4, false, false),
                (4, 4, true, false),
                (2, 2, false, true),
                (2, 2, false, false),
            ],
        ),
        Family::ColumnReduce => (
            &[
                (4, 4, false, true),
                (4, 1, false, true),
                (1, 1, false, true),
            ],
            &[
                (4, 4, false, true),
                (4, 2, false, true),
                (2, 2, false, true),
                (1, 1, false, true),
            ],
        ),
        Family::ColumnMap => (
            &[
                (4, 4, false, true),
                (4, 1, false, true),
                (1, 1, false, true),
            ],
            &[
                (4, 4, false, true),
                (4, 2, false, true),
                (2, 2, false, true),
                (2, 2, false, false),
            ],
        ),
        Family::ElementReduce | Family::ElementColumn => (
            &[
                (4, 4, false, true),
                (4, 4, false, false),
                (1, 1, false, true),
            ],
            &[
                (4, 4, false, true),
                (4, 4, false, false),
                (2, 2, false, true),
                (2, 2, false, false),
            ],
        ),
        Family::Fold | Family::Table => (&[(1, 1, false, true)], &[]),
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

/// Words of a group that lanes may hold, 16 elements at most: as many as there are, where one lane has all of them;
/// else it has more than two, or half the lanes would do. Of narrow words there are no more than make no whole
/// number of wide ones, where a lane has all. Of folds, rows.
fn helds(kernel: KernelId, lanes: u32, width: u32) -> Vec<u32> {
    if [KernelId::GroupFold, KernelId::GroupFoldBackward].contains(&kernel) {
        return vec![0, 1, 2, 3, 4];
    }
    match (kernel.kernel().family, lanes) {
        (Family::ElementReduce, 1) => {
            let whole =
                |&words: &u32| words == 0 || width == 4 || !(words * width).is_multiple_of(4);
            (0..=16 / width).filter(whole).collect()
        }
        (Family::ElementReduce, _) => [0].into_iter().chain(3..=16 / width).collect(),
        _ => vec![0],
    }
}

/// Words that an invocation takes, one or more.
fn together(family: Family, lanes: u32, cut: &Cut) -> &'static [u32] {
    match (family, lanes, cut.width, cut.grain) {
        (Family::ColumnReduce | Family::ColumnMap, 1, 4, 4) if cut.aligned && !cut.tail => &[1, 2],
        (Family::ElementColumn, ..) => &[1, 2],
        _ => &[1],
    }
}

/// Whether groups may be one channel, where kernels ask: a word that is not one channel's says no, a single
/// word that is says yes.
fn singles(family: Family, cut: &Cut, held: u32) -> &'static [bool] {
    match (family, cut.aligned, held) {
        (Family::ElementReduce, true, 1) => &[true],
        (Family::ElementReduce, true, _) => &[false, true],
        _ => &[false],
    }
}

/// Samples that an invocation takes, one or more: several only where it loads a group's channels again and again.
fn samples(family: Family, lanes: u32, held: u32, single: bool) -> &'static [u32] {
    match (family, lanes, held, single) {
        (Family::ElementReduce, 1, 0, false) => &[1, 2],
        _ => &[1],
    }
}

/// Every specialization that plans are made of, but for the size of workgroups and the number of
/// lanes, which are 1 or 8, with or without a fence, and for subgroups: see [`canonical`].
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
                    // Rows of two elements, which are one word.
                    let rows = [Family::RowReduce, Family::RowMap].contains(&declared.family);
                    let single = rows && cut.width == 2 && cut.aligned;
                    if lanes > 1 && (strides || alone || single) {
                        continue;
                    }
                    for accumulate in [false, true] {
                        if accumulate && !accumulates {
                            continue;
                        }
                        let words = together(declared.family, lanes, &cut);
                        for &column_words in words {
                            let helds = helds(kernel, lanes, cut.width);
                            let groups = helds.iter().flat_map(|&held| {
                                let singles = singles(declared.family, &cut, held).iter();
                                singles.flat_map(move |&single| {
                                    let samples = samples(declared.family, lanes, held, single);
                                    samples.iter().map(move |&samples| (held, single, samples))
                                })
                            });
                            for (held, single, samples) in groups {
                                specs.push(Spec {
                                    kernel,
                                    workgroup_size: 64,
                                    lanes,
                                    subgroup_size: 1,
                                    dtype: cut.dtype,
                                    width: cut.width,
                                    grain: cut.grain,
                                    column_words,
                                    tail: cut.tail,
                                    aligned: cut.aligned,
                                    held,
                                    single,
                                    samples,
                                    accumulate,
                                    fence: lanes > 1,
                                    activation,
                                    absent,
                                });
                            }
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
        samples: spec.samples.min(2),
        fence: lanes > 1,
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

/// Of kernels whose words, held words and bindings multiply to thousands of texts: each of the former
/// with the fewest and the most bindings, each set of bindings with one kind of words. Of the others all.
pub fn looked_at() -> Vec<Spec> {
    let mut specs = canonical_specs();
    specs.retain(|spec| {
        let family = spec.kernel.kernel().family;
        let fusions = fusions(spec.kernel);
        let bound = |&&(_, absent): &&(Activation, u16)| absent.count_ones();
        let ends = [
            fusions.iter().min_by_key(bound),
            fusions.iter().max_by_key(bound),
        ];
        let of_ends = ends.contains(&Some(&(spec.activation, spec.absent)));
        let plain = (spec.dtype, spec.width, spec.aligned, spec.held) == (DType::F32, 4, false, 4);
        family != Family::ElementReduce || of_ends || plain
    });
    specs
}

/// All of these, and workgroups of every kind.
pub fn specs() -> Vec<Spec> {
    let mut specs = looked_at();
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
                    for (fence, held) in [false, true].into_iter().flat_map(|fence| {
                        helds(kernel, lanes, cut.width)
                            .into_iter()
                            .map(move |held| (fence, held))
                    }) {
                        specs.push(Spec {
                            kernel,
                            workgroup_size,
                            lanes,
                            subgroup_size: 1,
                            dtype: cut.dtype,
                            width: cut.width,
                            grain: cut.grain,
                            column_words: 1,
                            tail: cut.tail,
                            aligned: cut.aligned,
                            held,
                            single: false,
                            samples: 1,
                            accumulate: fence
                                && kernel.kernel().bindings.iter().any(|b| b.name == "grad_x"),
                            fence,
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
        grain: 4,
        aligned: false,
        fence: true,
        ..Spec::new(kernel, 64, lanes)
    }
}
