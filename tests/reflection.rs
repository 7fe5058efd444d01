//! The two sides of everything that is written twice: kernels' declarations against what naga reads
//! from their WGSL, structs against their layout, files against lists, plans against the loops and
//! indices of the kernels that run them. And what naga does not check: barriers in uniform control
//! flow, loads in the arms of `select`. Needs no GPU.
#![allow(missing_docs)]

#[path = "common/uniformity.rs"]
mod uniformity;
#[path = "common/work.rs"]
mod work;

use bcnorm::desc::{CHANNEL_EPS, MAX_ELEMENTS};
use bcnorm::kernels::{Access, BindingDecl, Element, Family, KernelId, Spec, wgsl};
use bcnorm::params::{self, Params};
use bcnorm::plan::{Direction, Step, Window};
use bcnorm::role::RoleKind;
use bcnorm::tables::{
    Affine, AffineBackward, Channel, GradientPair, Group, GroupGradient, Moments, Products,
    RowGradient,
};
use bcnorm::{
    Activation, BackwardOptions, ChannelStats, DType, Error, ForwardOptions, Fusion, Layout, Mode,
    NormDesc, NormKind, Plan, Role, RowSource, TensorDesc, Tuning, Write,
};
use naga::valid::{Capabilities, GlobalUse, ModuleInfo, ValidationFlags, Validator};
use naga::{
    AddressSpace, Expression, Literal, Module, Scalar, StorageAccess, TypeInner, VectorSize,
};
use std::collections::{BTreeSet, HashSet};
use std::num::NonZero;
use std::path::{Path, PathBuf};

/// WebGPU's default limits.
const MAX_STORAGE_BUFFERS: usize = 8;
const MAX_WORKGROUP_MEMORY: u32 = 16 << 10;
const MAX_WORKGROUP_SIZE: u32 = 256;
const MAX_WORKGROUPS: u32 = 65_535;

/// llvmpipe ends an invocation behind this many loop iterations, without any error.
const MAX_ITERATIONS: u64 = 65_535;

// ---------------------------------------------------------------------------------------------
// Kernels

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
fn canonical_specs() -> Vec<Spec> {
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
fn canonical(spec: &Spec) -> Spec {
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
fn looked_at() -> Vec<Spec> {
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
fn specs() -> Vec<Spec> {
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
fn reflect(spec: &Spec) -> (Module, ModuleInfo) {
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

#[test]
fn kernels_are_what_they_declare() {
    for spec in specs() {
        let (module, info) = reflect(&spec);
        let kernel = spec.kernel.kernel();
        assert_eq!(module.entry_points.len(), 1, "{spec:?}");
        let entry = &module.entry_points[0];
        assert_eq!(entry.name, kernel.name);
        assert_eq!(entry.stage, naga::ShaderStage::Compute);
        assert_eq!(
            entry.workgroup_size,
            [spec.workgroup_size, 1, 1],
            "{spec:?}"
        );
        assert!(entry.workgroup_size_overrides.is_none() && module.overrides.is_empty());

        let uses = info.get_entry_point(0);
        let there: Vec<(u32, &BindingDecl)> = spec.bindings().collect();
        let mut bound = BTreeSet::new();
        let mut instead = BTreeSet::new();
        let mut workgroup_memory = 0;
        for (handle, global) in module.global_variables.iter() {
            let name = global.name.as_deref().unwrap_or_default();
            let what = format!("{} {name}, {spec:?}", kernel.name);
            let Some(binding) = &global.binding else {
                if global.space == AddressSpace::Private {
                    // In place of a binding that is not there.
                    check_private(&module, global, &spec, &what);
                    assert!(instead.insert(name), "{what}: twice");
                    continue;
                }
                // Pipelines turn the zeroing of workgroup memory off.
                assert_eq!(global.space, AddressSpace::WorkGroup, "{what}");
                if !uses[handle].is_empty() {
                    workgroup_memory += module.types[global.ty].inner.size(module.to_ctx());
                }
                continue;
            };
            assert_eq!(binding.group, 0, "{what}");
            if binding.binding == 0 {
                assert_eq!(global.space, AddressSpace::Uniform, "{what}");
                assert_eq!(name, "params");
                assert_eq!(module.types[global.ty].name.as_deref(), Some("Params"));
                continue;
            }
            let declared = there
                .iter()
                .find(|(number, _)| *number == binding.binding)
                .unwrap_or_else(|| panic!("{what}: undeclared, or meant to be absent"))
                .1;
            assert_eq!(name, declared.name, "{what}");
            let access = match declared.access {
                Access::Read => StorageAccess::LOAD,
                Access::ReadWrite => StorageAccess::LOAD | StorageAccess::STORE,
            };
            assert_eq!(global.space, AddressSpace::Storage { access }, "{what}");
            // What is declared written is written, the rest is read, and nothing is idle.
            let wanted = match declared.access {
                Access::Read => GlobalUse::READ,
                Access::ReadWrite => GlobalUse::WRITE,
            };
            assert!(uses[handle].contains(wanted), "{what}: {:?}", uses[handle]);
            check_array(&module, global.ty, declared.element, &spec, None, &what);
            assert!(bound.insert(name), "{what}: bound twice");
        }
        let names = |bindings: &mut dyn Iterator<Item = &'static BindingDecl>| {
            bindings
                .map(|binding| binding.name)
                .collect::<BTreeSet<_>>()
        };
        let expected = names(&mut there.iter().map(|&(_, binding)| binding));
        assert_eq!(bound, expected, "{spec:?}");
        let absent = kernel
            .bindings
            .iter()
            .filter(|b| !expected.contains(b.name));
        assert_eq!(instead, names(&mut absent.into_iter()), "{spec:?}");
        check_constants(&module, &spec);

        assert!(
            kernel.bindings.len() <= MAX_STORAGE_BUFFERS,
            "{}",
            kernel.name
        );
        assert!(
            workgroup_memory <= MAX_WORKGROUP_MEMORY,
            "{spec:?}: {workgroup_memory}"
        );
        // What `Pipelines::prepare` asks of the device.
        assert_eq!(
            workgroup_memory,
            bcnorm::kernels::workgroup_memory(&spec),
            "{spec:?}"
        );
    }
}

/// A binding that is not there is an array of one element of its own.
fn check_private(module: &Module, global: &naga::GlobalVariable, spec: &Spec, what: &str) {
    let name = global.name.as_deref().unwrap_or_default();
    let mut declared = spec.kernel.kernel().bindings.iter();
    let declared = declared.find(|binding| binding.name == name);
    let declared = declared.unwrap_or_else(|| panic!("{what}: a private variable"));
    assert!(declared.optional, "{what}: not optional");
    assert!(
        spec.bindings().all(|(_, binding)| binding.name != name),
        "{what}: meant to be bound"
    );
    assert!(global.init.is_none(), "{what}");
    check_array(module, global.ty, declared.element, spec, Some(1), what);
}

/// The header's constants say what the specialization says.
fn check_constants(module: &Module, spec: &Spec) {
    let mut has = BTreeSet::new();
    for (_, constant) in module.constants.iter() {
        let name = constant.name.as_deref().unwrap_or_default();
        let value = &module.global_expressions[constant.init];
        let activation = match spec.activation {
            Activation::None => 0,
            Activation::Relu => 1,
            Activation::Silu => 2,
            other => panic!("{other:?} is not known here"),
        };
        let expected = match name {
            "WORKGROUP_SIZE" => Literal::U32(spec.workgroup_size),
            "LANES" => Literal::U32(spec.lanes),
            "SUBGROUP_SIZE" => Literal::U32(spec.subgroup_size),
            "WIDTH" => Literal::U32(spec.width),
            "HELD" => Literal::U32(spec.held),
            "SAMPLES" => Literal::U32(spec.samples),
            "COLUMN_WORDS" => Literal::U32(spec.column_words),
            "GRAIN" => Literal::U32(spec.grain),
            "GRAINS" => Literal::U32(spec.width / spec.grain),
            "ACTIVATION" => Literal::U32(activation),
            "ALIGNED" => Literal::Bool(spec.aligned),
            "SINGLE" => Literal::Bool(spec.single),
            "ACCUMULATE" => Literal::Bool(spec.accumulate),
            "FENCE" => Literal::Bool(spec.fence),
            _ => match name.strip_prefix("HAS_") {
                Some(binding) => {
                    has.insert(binding.to_lowercase());
                    let mut there = spec.bindings();
                    Literal::Bool(there.any(|(_, b)| b.name.to_uppercase() == binding))
                }
                None => continue,
            },
        };
        assert_eq!(*value, Expression::Literal(expected), "{name}, {spec:?}");
    }
    let declared = spec.kernel.kernel().bindings.iter();
    let optional = declared.filter(|binding| binding.optional);
    let optional: BTreeSet<String> = optional.map(|binding| binding.name.to_owned()).collect();
    assert_eq!(has, optional, "{spec:?}");
}

/// A binding is an array, of run-time size (`None`), of the element that the kernel declares.
fn check_array(
    module: &Module,
    ty: naga::Handle<naga::Type>,
    element: Element,
    spec: &Spec,
    len: Option<u32>,
    what: &str,
) {
    let TypeInner::Array { base, size, stride } = module.types[ty].inner else {
        panic!("{what}: {:?} is no array", module.types[ty]);
    };
    let expected = match len {
        None => naga::ArraySize::Dynamic,
        Some(len) => naga::ArraySize::Constant(len.try_into().unwrap()),
    };
    assert_eq!(size, expected, "{what}");
    assert_eq!(u64::from(stride), element.bytes(spec), "{what}");
    let base = &module.types[base];
    let vector = |size, scalar| TypeInner::Vector { size, scalar };
    let scalar = TypeInner::Scalar;
    let expected = match element {
        Element::Word => match (spec.dtype, spec.entry()) {
            (DType::F32, 4) => vector(VectorSize::Quad, Scalar::F32),
            (DType::F32, 1) => scalar(Scalar::F32),
            (DType::F16 | DType::BF16, 4) => vector(VectorSize::Bi, Scalar::U32),
            (DType::F16 | DType::BF16, 1 | 2) => scalar(Scalar::U32),
            other => panic!("{what}: {other:?} is not known here"),
        },
        Element::F32 => scalar(Scalar::F32),
        Element::U32 => scalar(Scalar::U32),
        Element::Struct { name, size } => {
            let found = base.name.as_deref().unwrap_or_default();
            let TypeInner::Struct { span, ref members } = base.inner else {
                panic!("{what}: {base:?} is no struct");
            };
            assert_eq!(span, size, "{what}");
            if let Some(found) = found.strip_prefix("Stored") {
                // The same struct, four numbers at a time.
                assert_eq!(found, name, "{what}");
                let quads = members.iter().all(|member| {
                    let inner = &module.types[member.ty].inner;
                    let quad = |scalar| *inner == vector(VectorSize::Quad, scalar);
                    quad(Scalar::F32) || quad(Scalar::U32)
                });
                assert!(
                    quads && members.len() as u32 * 16 == span,
                    "{what}: {members:?}"
                );
                return;
            }
            assert_eq!(found, name, "{what}");
            return;
        }
        other => panic!("{what}: {other:?} is not known here"),
    };
    assert_eq!(base.inner, expected, "{what}");
}

// ---------------------------------------------------------------------------------------------
// What is reached

/// What a condition is, where constants alone decide it. `HAS_X && more` becomes a variable that is set
/// under the condition `HAS_X`; such variables are followed `depth` times.
fn known(
    module: &Module,
    function: &naga::Function,
    condition: naga::Handle<Expression>,
    depth: u32,
) -> Option<bool> {
    match &function.expressions[condition] {
        Expression::Literal(Literal::Bool(known)) => Some(*known),
        Expression::Constant(constant) => {
            let init = module.constants[*constant].init;
            match module.global_expressions[init] {
                Expression::Literal(Literal::Bool(known)) => Some(known),
                _ => None,
            }
        }
        Expression::Load { pointer } if depth > 0 => {
            let Expression::LocalVariable(local) = function.expressions[*pointer] else {
                return None;
            };
            let mut values = Vec::new();
            stored(
                module,
                function,
                &function.body,
                local,
                depth - 1,
                &mut values,
            );
            let first = values.first().copied().flatten()?;
            let all = values.iter().all(|value| *value == Some(first));
            (all && function.local_variables[local].init.is_none()).then_some(first)
        }
        _ => None,
    }
}

/// What reached code stores in a variable.
fn stored(
    module: &Module,
    function: &naga::Function,
    block: &naga::Block,
    local: naga::Handle<naga::LocalVariable>,
    depth: u32,
    values: &mut Vec<Option<bool>>,
) {
    let is_it = |pointer: naga::Handle<Expression>| matches!(function.expressions[pointer], Expression::LocalVariable(to) if to == local);
    for statement in block {
        let mut inside = |block| stored(module, function, block, local, depth, values);
        match statement {
            naga::Statement::Block(block) => inside(block),
            naga::Statement::If {
                condition,
                accept,
                reject,
            } => {
                let known = known(module, function, *condition, depth);
                if known != Some(false) {
                    inside(accept);
                }
                if known != Some(true) {
                    inside(reject);
                }
            }
            naga::Statement::Switch { cases, .. } => {
                cases.iter().for_each(|case| inside(&case.body));
            }
            naga::Statement::Loop {
                body, continuing, ..
            } => {
                inside(body);
                inside(continuing);
            }
            naga::Statement::Store { pointer, value } if is_it(*pointer) => {
                values.push(known(module, function, *value, depth));
            }
            _ => {}
        }
    }
}

/// The names of the variables that code reads or writes which is not behind a condition that is
/// known to be false.
fn reached(module: &Module) -> BTreeSet<String> {
    fn root(
        function: &naga::Function,
        mut pointer: naga::Handle<Expression>,
    ) -> Option<naga::Handle<naga::GlobalVariable>> {
        loop {
            match function.expressions[pointer] {
                Expression::Access { base, .. } | Expression::AccessIndex { base, .. } => {
                    pointer = base;
                }
                Expression::GlobalVariable(global) => return Some(global),
                _ => return None,
            }
        }
    }
    fn walk(
        module: &Module,
        function: &naga::Function,
        block: &naga::Block,
        found: &mut BTreeSet<String>,
    ) {
        let mut add = |pointer| {
            if let Some(global) = root(function, pointer) {
                let name = module.global_variables[global].name.clone();
                found.insert(name.unwrap_or_default());
            }
        };
        for statement in block {
            match statement {
                naga::Statement::Emit(range) => {
                    for expression in range.clone() {
                        if let Expression::Load { pointer } = function.expressions[expression] {
                            add(pointer);
                        }
                    }
                }
                naga::Statement::Store { pointer, .. } => add(*pointer),
                _ => {}
            }
        }
        for statement in block {
            match statement {
                naga::Statement::Block(block) => walk(module, function, block, found),
                naga::Statement::If {
                    condition,
                    accept,
                    reject,
                } => {
                    let known = known(module, function, *condition, 3);
                    if known != Some(false) {
                        walk(module, function, accept, found);
                    }
                    if known != Some(true) {
                        walk(module, function, reject, found);
                    }
                }
                naga::Statement::Switch { cases, .. } => {
                    cases
                        .iter()
                        .for_each(|case| walk(module, function, &case.body, found));
                }
                naga::Statement::Loop {
                    body, continuing, ..
                } => {
                    walk(module, function, body, found);
                    walk(module, function, continuing, found);
                }
                naga::Statement::Call { function, .. } => {
                    let function = &module.functions[*function];
                    walk(module, function, &function.body, found);
                }
                _ => {}
            }
        }
    }
    let function = &module.entry_points[0].function;
    let mut found = BTreeSet::new();
    walk(module, function, &function.body, &mut found);
    found
}

/// What stands in for a binding that is not there is behind its `HAS_` constant, or behind what the
/// uniform says.
#[test]
fn absent_bindings_are_not_reached() {
    let mut absent = 0;
    for spec in looked_at() {
        let reached = reached(&reflect(&spec).0);
        let declared = spec.kernel.kernel().bindings;
        for (index, binding) in declared.iter().enumerate() {
            let there = spec.absent >> index & 1 == 0;
            // A fold over no entries reads none, and only tracked statistics are in force.
            let by_uniform = spec.kernel == KernelId::ChannelFold
                && ["channel_parts", "running_mean", "running_var"].contains(&binding.name);
            if !there && !by_uniform {
                assert!(
                    !reached.contains(binding.name),
                    "{}, {spec:?}",
                    binding.name
                );
                absent += 1;
            }
            // Without parameters a row's terms are none.
            let idle = spec.kernel == KernelId::RowTermsBackward
                && ["rows", "channels"].contains(&binding.name);
            if there && !(idle && spec.absent != 0) {
                assert!(reached.contains(binding.name), "{}, {spec:?}", binding.name);
            }
        }
    }
    assert!(absent > 500, "{absent}");
}

#[test]
fn every_kernel_but_the_counter_reads_its_uniform() {
    for &kernel in KernelId::ALL {
        let (module, info) = reflect(&spec(kernel, 8));
        let params = module
            .global_variables
            .iter()
            .find(|(_, global)| global.space == AddressSpace::Uniform);
        let (handle, _) = params.expect("every kernel has the uniform");
        let used = !info.get_entry_point(0)[handle].is_empty();
        assert_eq!(used, kernel != KernelId::BatchCount, "{}", kernel.name());
    }
}

fn spec(kernel: KernelId, lanes: u32) -> Spec {
    Spec {
        kernel,
        workgroup_size: 64,
        lanes,
        subgroup_size: 1,
        dtype: DType::F32,
        width: 4,
        grain: 4,
        column_words: 1,
        tail: false,
        aligned: false,
        held: 0,
        single: false,
        samples: 1,
        accumulate: false,
        fence: true,
        activation: Activation::None,
        absent: 0,
    }
}

#[test]
fn texts_ask_for_no_feature() {
    let (with, without): (Vec<_>, Vec<_>) =
        specs().into_iter().partition(|spec| spec.subgroup_size > 1);
    assert!(with.len() > 50);
    for spec in with {
        // Executors put it before the text where the compiler wants it; naga does not.
        let text = wgsl(&spec);
        assert!(text.contains("subgroupShuffleXor(") && !text.contains("enable"));
    }
    for spec in without {
        let text = wgsl(&spec);
        let code: String = text
            .lines()
            .map(|line| line.split("//").next().unwrap_or(""))
            .collect();
        for banned in [
            "override",
            "enable",
            "requires",
            "@id",
            "diagnostic",
            "subgroup",
            "atomic",
        ] {
            assert!(!code.contains(banned), "{}: {banned}", spec.kernel.name());
        }
    }
}

#[test]
fn barriers_are_in_uniform_control_flow() {
    let mut barriers = 0;
    for spec in specs() {
        let report = uniformity::analyse(&wgsl(&spec));
        assert!(
            report.violations.is_empty(),
            "{spec:?}: {:#?}",
            report.violations
        );
        let (_, reductions) = work::loops(spec.kernel);
        if spec.lanes > 1 && reductions > 0 {
            assert!(
                !report.barriers.is_empty(),
                "{spec:?}: shared lanes without a barrier"
            );
        }
        if spec.lanes == 1 {
            assert!(
                report.barriers.is_empty(),
                "{spec:?}: {:#?}",
                report.barriers
            );
        }
        barriers += report.barriers.len();
    }
    assert!(barriers > 0);
}

// ---------------------------------------------------------------------------------------------
// Loads in the arms of select

/// Both arms of a `select` are evaluated, or neither is meant to be: a load has no place there.
/// Loads from storage or workgroup memory, written within an arm, whose index is no constant: one
/// line each. (A load with a name of its own was made before.)
fn loads_in_arms(module: &Module) -> Vec<String> {
    let mut found = Vec::new();
    let entries = module.entry_points.iter().map(|entry| &entry.function);
    for function in module
        .functions
        .iter()
        .map(|(_, function)| function)
        .chain(entries)
    {
        for (_, expression) in function.expressions.iter() {
            if let Expression::Select { accept, reject, .. } = expression {
                let mut arms = vec![*accept, *reject];
                while let Some(arm) = arms.pop() {
                    if function.named_expressions.contains_key(&arm) {
                        continue;
                    }
                    if let Expression::Load { pointer } = function.expressions[arm]
                        && is_indexed_load(module, function, pointer)
                    {
                        let name = function.name.as_deref().unwrap_or_default();
                        found.push(format!("{name}: {:?}", function.expressions[pointer]));
                    }
                    arms.extend(operands(&function.expressions[arm]));
                }
            }
        }
    }
    found
}

fn is_indexed_load(
    module: &Module,
    function: &naga::Function,
    pointer: naga::Handle<Expression>,
) -> bool {
    let (mut pointer, mut indexed) = (pointer, false);
    loop {
        match function.expressions[pointer] {
            Expression::Access { base, index } => {
                indexed |= !matches!(
                    function.expressions[index],
                    Expression::Literal(_) | Expression::Constant(_)
                );
                pointer = base;
            }
            Expression::AccessIndex { base, .. } => pointer = base,
            Expression::GlobalVariable(global) => {
                let space = module.global_variables[global].space;
                let memory = matches!(
                    space,
                    AddressSpace::Storage { .. } | AddressSpace::WorkGroup
                );
                return indexed && memory;
            }
            _ => return false,
        }
    }
}

fn operands(expression: &Expression) -> Vec<naga::Handle<Expression>> {
    match expression {
        Expression::Access { base, index } => vec![*base, *index],
        Expression::AccessIndex { base: value, .. }
        | Expression::Splat { value, .. }
        | Expression::Swizzle { vector: value, .. }
        | Expression::Load { pointer: value }
        | Expression::Unary { expr: value, .. }
        | Expression::As { expr: value, .. }
        | Expression::Relational {
            argument: value, ..
        } => vec![*value],
        Expression::Compose { components, .. } => components.clone(),
        Expression::Binary { left, right, .. } => vec![*left, *right],
        Expression::Select {
            condition,
            accept,
            reject,
        } => vec![*condition, *accept, *reject],
        Expression::Math {
            arg,
            arg1,
            arg2,
            arg3,
            ..
        } => [Some(*arg), *arg1, *arg2, *arg3]
            .into_iter()
            .flatten()
            .collect(),
        _ => Vec::new(),
    }
}

#[test]
fn no_indexed_load_in_an_arm_of_select() {
    let mut selects = 0;
    for spec in specs() {
        let (module, _) = reflect(&spec);
        let found = loads_in_arms(&module);
        assert!(found.is_empty(), "{spec:?}: {found:#?}");
        for (_, function) in module.functions.iter() {
            let is_select = |e: &Expression| matches!(e, Expression::Select { .. });
            selects += function
                .expressions
                .iter()
                .filter(|(_, e)| is_select(e))
                .count();
        }
    }
    assert!(selects > 0);
}

#[test]
fn loads_in_arms_are_found() {
    let report = |statement: &str| {
        let text = format!(
            "@group(0) @binding(1) var<storage, read_write> input: array<f32>;
             var<workgroup> memory: array<f32, 64>;
             @compute @workgroup_size(64)
             fn main(@builtin(local_invocation_index) i: u32) {{ {statement} }}"
        );
        loads_in_arms(&naga::front::wgsl::parse_str(&text).unwrap())
    };
    for bad in [
        "input[0] = select(0.0, input[i], i < 4u);",
        "input[0] = select(input[i + 1u], 0.0, i < 4u);",
        "input[0] = select(0.0, 2.0 - abs(input[i] * 3.0), i < 4u);",
        "input[0] = select(0.0, memory[i], i < 4u);",
        "input[0] = select(0.0, select(memory[i], 1.0, i < 3u), i < 4u);",
    ] {
        assert!(!report(bad).is_empty(), "not found: {bad}");
    }
    for good in [
        "input[0] = select(0.0, input[3], i < 4u);",
        "let v = input[i]; input[0] = select(0.0, v, i < 4u);",
        "input[select(0u, i, i < 4u)] = 1.0;",
        "input[0] = input[select(0u, i, i < 4u)];",
    ] {
        assert!(report(good).is_empty(), "{good}: {:?}", report(good));
    }
}

// ---------------------------------------------------------------------------------------------
// Structs and constants

/// A field's type, as WGSL names its scalar.
trait Field {
    const SCALAR: Scalar;
}

impl Field for f32 {
    const SCALAR: Scalar = Scalar::F32;
}

impl Field for u32 {
    const SCALAR: Scalar = Scalar::U32;
}

fn scalar<T: Field>(_: &T) -> Scalar {
    T::SCALAR
}

/// (name, offset, scalar) of every field, and the struct's size. Does not compile where a
/// field is missing.
macro_rules! layout {
    ($name:ident { $($field:ident),* $(,)? }) => {{
        let value = $name::default();
        let $name { $($field: _,)* } = value;
        let fields = vec![$((stringify!($field), std::mem::offset_of!($name, $field), scalar(&value.$field))),*];
        (stringify!($name), fields, size_of::<$name>())
    }};
}

type StructLayout = (&'static str, Vec<(&'static str, usize, Scalar)>, usize);

fn layouts() -> Vec<StructLayout> {
    vec![
        layout!(Params {
            num_samples,
            num_channels,
            num_groups,
            row_len,
            items,
            first_item,
            first_word,
            parts,
            words_per_part,
            num_words,
            entries,
            entries_per_segment,
            columns,
            channel_columns,
            flags,
            eps,
            channel_eps,
            momentum,
            zero,
            channel_len
        }),
        layout!(Moments {
            count,
            pivot,
            offset,
            m2
        }),
        layout!(Channel {
            mean_pivot,
            mean_offset,
            rstd,
            scale,
            scale_low,
            bias,
            weight,
            count
        }),
        layout!(Group {
            mean_pivot,
            mean_offset,
            mean_rest,
            rstd,
            weight
        }),
        layout!(Affine {
            pivot,
            offset,
            scale,
            shift
        }),
        layout!(Products {
            count,
            pivot,
            offset,
            x_mean,
            product
        }),
        layout!(GradientPair { bias, weight }),
        layout!(GroupGradient {
            mean_pivot,
            mean_offset,
            mean_rest,
            rstd,
            grad_pivot,
            grad_offset,
            shift,
            projection,
            rest,
            scale,
            unused,
            unused_too
        }),
        layout!(RowGradient {
            grad_scale,
            x_scale,
            mean
        }),
        layout!(AffineBackward {
            x_pivot,
            x_scale,
            grad_pivot,
            grad_scale,
            shift
        }),
    ]
}

/// What a struct of the WGSL is called, holds, and measures.
fn wgsl_layout(module: &Module, name: &str) -> (Vec<(String, usize, Scalar)>, usize) {
    let ty = module
        .types
        .iter()
        .find(|(_, ty)| ty.name.as_deref() == Some(name));
    let (_, ty) = ty.unwrap_or_else(|| panic!("no struct {name} in the WGSL"));
    let TypeInner::Struct { members, span } = &ty.inner else {
        panic!("{name} is no struct");
    };
    let fields = members.iter().map(|member| {
        let TypeInner::Scalar(scalar) = module.types[member.ty].inner else {
            panic!("{name}: {member:?} is no scalar");
        };
        (
            member.name.clone().unwrap_or_default(),
            member.offset as usize,
            scalar,
        )
    });
    (fields.collect(), *span as usize)
}

#[test]
fn structs_have_one_layout() {
    let (module, _) = reflect(&spec(KernelId::GroupFold, 8));
    let layouts = layouts();
    for (name, fields, size) in &layouts {
        let (found, span) = wgsl_layout(&module, name);
        let fields: Vec<_> = fields
            .iter()
            .map(|&(f, o, s)| (f.to_owned(), o, s))
            .collect();
        assert_eq!(found, fields, "{name}");
        assert_eq!(span, *size, "{name}");
    }
    // No struct of tables.wgsl was left out, and no table of a kernel.
    let parts = ["params", "tables"]
        .map(|name| std::fs::read_to_string(shaders().join(format!("parts/{name}.wgsl"))).unwrap());
    // (Those that are stored four numbers at a time are not counted: check_array looks at them.)
    let in_files = parts
        .iter()
        .map(|text| text.matches("\nstruct ").count() - text.matches("\nstruct Stored").count());
    assert_eq!(in_files.sum::<usize>(), layouts.len());
    for &kernel in KernelId::ALL {
        for binding in kernel.kernel().bindings {
            if let Element::Struct { name, size } = binding.element {
                let (_, _, expected) = layouts.iter().find(|(n, _, _)| *n == name).unwrap();
                assert_eq!(size as usize, *expected, "{name}");
            }
        }
    }
}

#[test]
fn flags_have_one_value() {
    let (module, _) = reflect(&spec(KernelId::ChannelFold, 8));
    let constant = |name: &str| {
        let found = module
            .constants
            .iter()
            .find(|(_, c)| c.name.as_deref() == Some(name));
        let (_, constant) = found.unwrap_or_else(|| panic!("no constant {name} in the WGSL"));
        match module.global_expressions[constant.init] {
            Expression::Literal(Literal::U32(value)) => value,
            ref other => panic!("{name} is {other:?}"),
        }
    };
    let flags = [
        ("TRAINING", params::TRAINING),
        ("ESTIMATE", params::ESTIMATE),
        ("CUMULATIVE", params::CUMULATIVE),
        ("ACCUMULATE_PARAMETERS", params::ACCUMULATE),
        ("NO_CHANNEL_PART", params::NO_CHANNEL_PART),
        ("PER_CHANNEL", params::PER_CHANNEL),
        ("UNBIASED", params::UNBIASED),
        ("SUMS", params::SUMS),
    ];
    for (name, value) in flags {
        assert_eq!(constant(name), value, "{name}");
    }
    let all = flags.iter().fold(0, |all, (_, flag)| all | flag);
    assert_eq!(all.count_ones(), 8, "the flags share bits");
    // No flag of either side was left out.
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (file, opening) in [
        ("src/params.rs", "\npub const "),
        ("shaders/parts/params.wgsl", "\nconst "),
    ] {
        let text = std::fs::read_to_string(folder.join(file)).unwrap();
        assert_eq!(text.matches(opening).count(), flags.len(), "{file}");
    }
}

// ---------------------------------------------------------------------------------------------
// Files

fn shaders() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders")
}

/// Names (without ending) and texts of a folder's files with one ending, and no other files.
fn files(folder: &Path, ending: &str) -> Vec<(String, String)> {
    let entries = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut files = Vec::new();
    for path in entries.filter(|path| path.is_file()) {
        assert_eq!(path.extension().unwrap(), ending, "{}", path.display());
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        files.push((name, std::fs::read_to_string(&path).unwrap()));
    }
    assert!(!files.is_empty());
    files
}

#[test]
fn shaders_are_the_kernels() {
    let files = files(&shaders(), "wgsl");
    let in_folder: BTreeSet<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    let declared: BTreeSet<&str> = KernelId::ALL.iter().map(|kernel| kernel.name()).collect();
    assert_eq!(in_folder, declared);
    assert_eq!(
        KernelId::ALL.len(),
        declared.len(),
        "a kernel is listed twice"
    );
    for (name, text) in &files {
        let kernel = KernelId::ALL
            .iter()
            .find(|kernel| kernel.name() == name)
            .unwrap();
        assert_eq!(kernel.kernel().text, text, "{name}");
        // Lines of each word that an invocation takes at a time.
        let words = match kernel.kernel().family {
            Family::ElementReduce => 4,
            _ => 1,
        };
        // And a sample.
        let each = |line: &str| {
            let lines = if line.contains('#') { words } else { 1 };
            let line = line.replace('$', "0");
            let of = |word: usize| line.replace('#', &word.to_string()) + "\n";
            (0..lines).map(of).collect::<String>()
        };
        let expected: String = text.lines().map(each).collect();
        assert!(wgsl(&spec(*kernel, 8)).ends_with(&expected), "{name}");
        assert!(
            text.starts_with("// "),
            "{name} does not open with what a workgroup owns"
        );
    }
}

#[test]
fn every_part_is_used() {
    let texts: Vec<String> = specs().iter().map(wgsl).collect();
    for (name, text) in files(&shaders().join("parts"), "wgsl") {
        assert!(
            text.starts_with("// "),
            "{name} does not open with a comment"
        );
        // Accessors are a text for each tensor; a tensor that is only read has the first part.
        let text = text.replace("TENSOR", "x");
        for text in text.split("// Where it is written:\n") {
            let other = text.replace("_x(", "_y(").replace("x[", "y[");
            assert!(
                texts
                    .iter()
                    .any(|whole| whole.contains(text) || whole.contains(&other)),
                "no kernel has the part {name}: {text}"
            );
        }
    }
}

#[test]
fn every_kernel_has_a_mirror() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/stages");
    let files = files(&folder, "rs");
    for &kernel in KernelId::ALL {
        let openings = ["(", "<"].map(|next| format!("\npub fn {}{next}", kernel.name()));
        let of_file = |text: &String| {
            openings
                .iter()
                .map(|o| text.matches(o).count())
                .sum::<usize>()
        };
        let found: usize = files.iter().map(|(_, text)| of_file(text)).sum();
        assert_eq!(found, 1, "mirrors of {}", kernel.name());
    }
}

// ---------------------------------------------------------------------------------------------
// Plans

/// The tunings that the library brings, and some that ask for the utmost.
fn tunings() -> Vec<(&'static str, Tuning)> {
    let greedy = Tuning {
        words_per_lane: u32::MAX,
        max_words_per_lane: 195_000,
        min_invocations: 1,
        entries_per_lane: u32::MAX,
        samples_per_segment: u32::MAX,
        column_tile: 1 << 20,
        gather: false,
        ..Tuning::SOFTWARE
    };
    // Words that are put together have lanes, and rows have tables, however short they are.
    let splitting = Tuning {
        workgroup_size: 32,
        reduce_lanes: 8,
        map_lanes: 8,
        words_per_lane: 1,
        max_words_per_lane: 3,
        min_invocations: 1 << 20,
        fold_workgroup_size: 16,
        fold_lanes: 8,
        entries_per_lane: 1,
        samples_per_segment: 2,
        column_tile: 1,
        held_words: 16,
        column_workgroup_size: 64,
        gather: true,
        short_row: 0,
        short_word_row: 0,
        short_held_row: 0,
        short_batch_row: 0,
        ..Tuning::GPU
    };
    // Workgroups that are no power of two, and too few lanes for large folds.
    let odd = Tuning {
        workgroup_size: 24,
        held_words: 16,
        reduce_lanes: 8,
        map_lanes: 4,
        fold_workgroup_size: 12,
        fold_lanes: 4,
        entries_per_lane: 100_000,
        samples_per_segment: 200_000,
        column_tile: 2,
        column_workgroup_size: 24,
        ..Tuning::GPU
    };
    // Whatever a lane's share, it must be at least a word and an entry.
    let zeros = Tuning {
        words_per_lane: 0,
        min_invocations: 0,
        entries_per_lane: 0,
        samples_per_segment: 0,
        short_row: 0,
        short_word_row: 0,
        short_held_row: 0,
        short_batch_row: 0,
        fused_group: 0,
        ..Tuning::GPU
    };
    // Every row is short, every group fits; a lane, or as many as there may be, has all of it.
    let elements = Tuning {
        short_row: u32::MAX,
        short_batch_row: u32::MAX,
        fused_group: u32::MAX,
        max_binding_bytes: u64::MAX,
        ..greedy
    };
    let shared_elements = Tuning {
        short_row: u32::MAX,
        short_batch_row: u32::MAX,
        fused_group: u32::MAX,
        ..splitting
    };
    vec![
        ("GPU", Tuning::GPU),
        ("SOFTWARE", Tuning::SOFTWARE),
        ("CPU", Tuning::CPU),
        ("greedy", greedy),
        ("splitting", splitting),
        ("odd", odd),
        ("zeros", zeros),
        ("elements", elements),
        ("shared elements", shared_elements),
    ]
}

/// As [`tunings`], of small bindings: tensors of more than a few KiB are worked on in many windows.
fn narrow_tunings() -> Vec<(&'static str, Tuning)> {
    let mut tunings = tunings();
    tunings.retain(|(name, _)| ["GPU", "SOFTWARE", "splitting", "odd"].contains(name));
    for (_, tuning) in &mut tunings {
        tuning.max_binding_bytes = 8192;
        tuning.max_words_per_lane = tuning.max_words_per_lane.min(48);
        tuning.reduce_lanes = tuning.reduce_lanes.min(4);
        tuning.map_lanes = tuning.map_lanes.min(4);
    }
    tunings
}

/// Every norm of the family for these channels, with what changes its plans.
fn norms(channels: usize, groups: usize) -> Vec<(NormDesc, Mode)> {
    use Mode::{Eval, Train};
    let bc = NormDesc::bc_norm(channels, groups);
    let batch = NormDesc::batch_norm(channels);
    let est = NormDesc::est_bn(channels).with_moving_speed(0.75);
    let group = NormDesc::group_norm(groups, channels);
    let instance = NormDesc::instance_norm(channels);
    let tracked = instance
        .with_track_running_stats(true)
        .with_affine(true, true);
    let layer = NormDesc::layer_norm(channels);
    let cumulative = ChannelStats::Batch { momentum: None };
    let estimate = ChannelStats::Estimate { moving_speed: 0.25 };
    let mut norms = vec![
        (bc, Train),
        (bc.with_stats(cumulative), Train),
        (bc.with_stats(estimate), Train),
        (bc, Eval),
        (bc.with_stats(estimate).with_eps(0.5), Eval),
        (bc.with_per_channel_affine(true), Train),
        (
            bc.with_per_channel_affine(true).with_affine(true, false),
            Eval,
        ),
        (bc.with_track_running_stats(false), Train),
        (bc.with_track_running_stats(false), Eval),
        (
            bc.with_affine(false, false).with_bn_affine(false, false),
            Train,
        ),
        (
            bc.with_affine(false, false).with_bn_affine(false, false),
            Eval,
        ),
        (
            bc.with_affine(false, true).with_bn_affine(true, false),
            Eval,
        ),
        (
            bc.with_affine(true, false).with_bn_affine(false, false),
            Eval,
        ),
        (batch, Train),
        (batch.with_momentum(None), Train),
        (batch, Eval),
        (batch.with_affine(false, false), Train),
        (batch.with_affine(false, false), Eval),
        (
            batch
                .with_affine(true, false)
                .with_track_running_stats(false),
            Train,
        ),
        (batch.with_track_running_stats(false).with_eps(0.25), Eval),
        (est, Train),
        (est.with_affine(false, true), Eval),
        (group, Train),
        (group.with_affine(false, false), Eval),
        (group.with_affine(false, true), Train),
        (instance, Train),
        (tracked, Train),
        (tracked.with_momentum(None).with_affine(true, false), Train),
        (tracked, Eval),
        (layer, Train),
        (layer.with_affine(true, false), Eval),
    ];
    if channels == 1 {
        norms.push((NormDesc::weight_standardization(), Train));
        norms.push((NormDesc::weight_standardization(), Eval));
    }
    norms
}

/// What the channel part does.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Part {
    None,
    Batch,
    Estimate,
    Running,
}

/// The two parts of a norm, as PyTorch and the paper have them.
fn parts(norm: &NormDesc, mode: Mode) -> (Part, bool) {
    let train = mode == Mode::Train;
    let estimates = matches!(norm.stats, ChannelStats::Estimate { .. });
    let of_batch = match (estimates, train) {
        (true, true) => Part::Estimate,
        (true, false) => Part::Running,
        (false, true) => Part::Batch,
        (false, false) if norm.track_running_stats => Part::Running,
        (false, false) => Part::Batch,
    };
    match norm.kind {
        NormKind::BatchNorm | NormKind::EstBn => (of_batch, false),
        NormKind::BcNorm => (of_batch, true),
        NormKind::InstanceNorm if !train && norm.track_running_stats => (Part::Running, false),
        NormKind::InstanceNorm
        | NormKind::GroupNorm
        | NormKind::LayerNorm
        | NormKind::WeightStandardization => (Part::None, true),
        other => panic!("{other:?} is not known here"),
    }
}

/// What a caller may ask of a plan besides.
#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    fusion: Fusion,
    in_place: bool,
    /// No backward follows.
    inference: bool,
    rows: RowSource,
    shards: Option<NonZero<u32>>,
    write: Write,
}

impl Asked {
    /// Every fusion, and each of the others.
    fn all() -> Vec<Asked> {
        let mut all = Vec::new();
        for activation in [Activation::None, Activation::Relu, Activation::Silu] {
            for residual in [false, true] {
                let fusion = Fusion {
                    activation,
                    residual,
                };
                let plain = Asked {
                    fusion,
                    ..Asked::default()
                };
                all.extend([
                    plain,
                    Asked {
                        in_place: true,
                        ..plain
                    },
                    Asked {
                        inference: true,
                        ..plain
                    },
                    Asked {
                        rows: RowSource::Given,
                        ..plain
                    },
                    Asked {
                        shards: NonZero::new(3),
                        ..plain
                    },
                ]);
            }
        }
        all
    }
}

/// How a plan goes about a tensor whose elements are rows of their own.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Elements {
    width: u32,
    /// Words of a group, the lanes that share them, and how many each holds; 0 where too many.
    group_words: u32,
    lanes: u32,
    held: u32,
    /// Whether a group is one channel.
    single: bool,
}

impl Elements {
    /// Where a plan does: rows are short, or a group that no backward asks for is small; its elements
    /// lie together; nothing but x is asked for, and one binding holds whatever there is.
    fn of(
        norm: &NormDesc,
        tensor: &TensorDesc,
        mode: Mode,
        direction: Direction,
        asked: &Asked,
        tuning: &Tuning,
    ) -> Option<Self> {
        let (part, grouped) = parts(norm, mode);
        let len = tensor.row_len();
        let size = (norm.num_channels / norm.num_groups) as u64 * u64::from(len);
        let width = match tensor.dtype() {
            _ if size.is_multiple_of(4) => 4,
            DType::F32 => 1,
            _ => 2,
        };
        let updates_rows =
            mode == Mode::Train && norm.kind == NormKind::InstanceNorm && norm.track_running_stats;
        let together = tensor.layout() == Layout::ChannelsFirst || len == 1;
        let possible = grouped
            && !updates_rows
            && together
            && (asked.shards.is_none() || ![Part::Batch, Part::Estimate].contains(&part))
            && asked.rows == RowSource::Computed
            && tensor.elements() > 0
            && norm.num_channels <= 1 << 20
            && size.is_multiple_of(u64::from(width))
            && size <= u64::from(u32::MAX);
        if !possible || tensor.buffer_bytes() > tuning.max_binding_bytes {
            return None;
        }
        let group_words = (size / u64::from(width)) as u32;
        let mut lanes = 1;
        while lanes < tuning.reduce_lanes && u64::from(lanes) * 4 < u64::from(group_words) {
            lanes *= 2;
        }
        let share = group_words.div_ceil(lanes);
        // 16 elements of a lane.
        let held = match share <= tuning.held_words && share * width <= 16 {
            true => share,
            false => 0,
        };
        let mut longest = tuning.short_row;
        if width == 4 && len.is_multiple_of(4) {
            longest = longest.max(tuning.short_word_row);
        }
        if held > 0 {
            longest = longest.max(tuning.short_held_row);
        }
        let groups = u64::from(tensor.num_samples()) * norm.num_groups as u64;
        if lanes == 1 && held == 0 && groups < 8 {
            // Too few invocations.
            longest = longest.min(1);
        }
        let inference = direction == Direction::Forward && (asked.inference || asked.in_place);
        let plain = asked.fusion.activation == Activation::None;
        let short = len <= longest && (inference || plain);
        let small = size <= u64::from(tuning.fused_group.min(4096));
        let fused = inference && small && [Part::None, Part::Running].contains(&part);
        // Three loops over a lane's share.
        ((short || fused) && share <= 65_000 / 3).then_some(Self {
            width,
            group_words,
            lanes,
            held,
            single: norm.num_channels == norm.num_groups,
        })
    }

    /// Words of a group that an invocation takes together where elements are columns: as many elements as
    /// the tuning's words of 4 have, 16 words at most, and no more than all of a group need.
    fn column_words(&self, tuning: &Tuning) -> u32 {
        let most = match tuning.column_words {
            0 | 1 => 1,
            words => (words * 4 / self.width).min(16),
        };
        let invocations = self.group_words.div_ceil(most);
        let enough = |words: &u32| words * invocations >= self.group_words;
        (1..=most).find(enough).unwrap()
    }

    /// Samples that an invocation takes together.
    fn samples(&self, plan: &Plan, tuning: &Tuning) -> u32 {
        let groups = u64::from(plan.tensor().num_samples()) * plan.norm().num_groups as u64;
        let alone = (self.lanes, self.held, self.single) == (1, 0, false);
        (1..=tuning.samples_together.min(8 / self.width))
            .rev()
            .find(|&samples| alone && groups >= 16 * u64::from(samples))
            .unwrap_or(1)
    }

    /// Invocations of a workgroup that takes groups: fewer where there are few groups, a lane each.
    fn workgroup_size(&self, plan: &Plan, tuning: &Tuning) -> u32 {
        if self.lanes > 1 {
            return tuning.workgroup_size;
        }
        let samples = plan
            .tensor()
            .num_samples()
            .div_ceil(self.samples(plan, tuning));
        let groups = u64::from(samples) * plan.norm().num_groups as u64;
        let sixteen = (groups / 16).next_power_of_two().max(8);
        tuning.workgroup_size.min(u32::try_from(sixteen).unwrap())
    }

    fn of_plan(plan: &Plan, asked: &Asked, tuning: &Tuning) -> Option<Self> {
        let (norm, tensor) = (plan.norm(), plan.tensor());
        Self::of(norm, tensor, plan.mode(), plan.direction(), asked, tuning)
    }
}

/// Forward, and backward with both ways to write; each with what was asked for it.
fn plans(
    norm: &NormDesc,
    tensor: &TensorDesc,
    mode: Mode,
    asked: Asked,
    tuning: &Tuning,
) -> Result<Vec<(Plan, Asked)>, Error> {
    let forward = ForwardOptions {
        fusion: asked.fusion,
        in_place: asked.in_place,
        inference: asked.inference,
        rows: asked.rows,
        shards: asked.shards,
    };
    let forward = Plan::forward(norm, tensor, mode, forward, tuning)?;
    let mut plans = vec![(forward, asked)];
    for write in [Write::Replace, Write::Accumulate] {
        if asked.inference {
            continue;
        }
        let backward = BackwardOptions {
            x: write,
            parameters: write,
            fusion: asked.fusion,
            rows: asked.rows,
            shards: asked.shards,
        };
        let backward = Plan::backward(norm, tensor, mode, backward, tuning)?;
        plans.push((backward, Asked { write, ..asked }));
    }
    Ok(plans)
}

/// What no tuning makes possible: more loop iterations than 256 lanes may run, or more entries of a
/// table, or values behind a mean, than a u32 counts.
fn is_beyond(
    norm: &NormDesc,
    tensor: &TensorDesc,
    mode: Mode,
    asked: Asked,
    tuning: &Tuning,
) -> bool {
    let (part, grouped) = parts(norm, mode);
    let (n, c) = (
        u64::from(tensor.num_samples()),
        u64::from(tensor.num_channels()),
    );
    let len = u64::from(tensor.row_len());
    let size = c / norm.num_groups as u64;
    let most = u64::from(u32::MAX);
    let lanes = |entries: u64, loops: u64| {
        let a_lane = 65_000 - loops;
        (entries * loops).div_ceil(a_lane) > 256
    };
    // Without a group part samples are positions where channels come last, or where there is one.
    let last = tensor.layout() == Layout::ChannelsLast || len == 1 || c == 1;
    let merged = last && !grouped && asked.rows == RowSource::Computed && n * len <= 1 << 31;
    let n = if merged { 1 } else { n };
    let affine = match grouped {
        true if norm.weight || norm.bias => norm.affine_len() as u64,
        _ => 0,
    };
    let own = match grouped {
        true => norm.bn_weight || norm.bn_bias,
        false => norm.weight || norm.bias,
    };
    let channel_columns = match part {
        Part::None => 0,
        Part::Batch => c,
        _ if own => c,
        _ => 0,
    };
    let tracks =
        norm.kind == NormKind::InstanceNorm && norm.track_running_stats && mode == Mode::Train;
    let shards = asked.shards.map_or(0, |shards| u64::from(shards.get()));
    // No fold runs over the channels of a group whose elements are rows.
    let forward = Elements::of(norm, tensor, mode, Direction::Forward, &asked, tuning);
    let backward = Elements::of(norm, tensor, mode, Direction::Backward, &asked, tuning);
    let folds = forward.is_none() || (backward.is_none() && !asked.inference);
    n.max(1) * c > most
        || ([Part::Batch, Part::Estimate].contains(&part) && shards * c > most)
        || (!asked.inference && n * (channel_columns + affine) > most)
        || u64::from(tensor.num_samples()) * len > most
        || (grouped && ((folds && lanes(size, 4)) || size * len > most))
        || (tracks && lanes(n, 1))
}

/// The tunings that a caller made up may be refused where 256 lanes of 65,000 iterations are too few
/// for the fold that they ask for (of all samples at once, twice; of parts of 3 words), where that many
/// parts are too many for a u32, or workgroups of one item for two dimensions. The library's own may
/// not.
fn may_refuse(tuning: &str, tensor: &TensorDesc) -> bool {
    let positions = u64::from(tensor.num_samples()) * u64::from(tensor.row_len());
    match tuning {
        _ if is_last(tensor) => true,
        "CPU" => tensor.rows() > 65_535 * 65_535,
        "greedy" | "elements" => tensor.num_samples() > 256 * 64_998 / 2,
        "splitting" | "shared elements" => positions > 256 * 64_998 / 2 * 3,
        _ => false,
    }
}

/// Whether as many rows as a u32 counts, with the items behind the last one of the workgroups, are more.
fn is_last(tensor: &TensorDesc) -> bool {
    tensor.rows() > (1 << 32) - (1 << 20)
}

/// 1, primes and non-multiples on every axis; large batches, rows and channels.
const SHAPES: &[(&[usize], usize)] = &[
    (&[2, 1], 1),
    (&[3, 5], 5),
    (&[1, 7, 2], 1),
    (&[5, 6, 1, 3], 3),
    (&[2, 4, 5], 2),
    (&[3, 8, 7, 11], 4),
    (&[2, 6, 7, 9], 3),
    (&[2, 2, 10_007], 1),
    (&[4, 12, 16], 4),
    (&[1, 3, 13, 17, 3], 3),
    (&[1, 3, 1002], 1),
    (&[8, 64, 56, 56], 32),
    (&[2, 256, 100, 152], 32),
    (&[16, 512, 7, 7], 1),
    (&[1, 64, 224, 224], 32),
    (&[300, 3, 2], 1),
    (&[1031, 2, 9], 2),
    (&[140_000, 4], 2),
    (&[140_000, 4, 3], 4),
    (&[200_704, 32], 32),
    (&[1, 32, 200_704], 4),
    (&[1, 2, 70_001], 1),
    (&[2, 65_536, 3], 1),
    (&[1, 65_536, 2], 65_536),
    (&[3, 1 << 18, 2], 2),
    // Filters.
    (&[64, 1, 27], 1),
    (&[3, 1, 1, 5, 5], 1),
    (&[1001, 1, 1003], 1),
];

/// Groups of few elements: of 1 to 4 words of each width, one channel's or several's, and of more.
const SHORT_SHAPES: &[(&[usize], usize)] = &[
    (&[3, 8, 4], 8),
    (&[3, 8, 4], 4),
    (&[2, 12, 2, 2], 4),
    (&[5, 8, 4], 2),
    (&[3, 3, 2], 3),
    (&[3, 9, 2], 3),
    (&[3, 10, 2], 2),
    (&[3, 14, 2], 2),
    (&[3, 8], 2),
    (&[3, 16], 2),
    (&[3, 12], 1),
    (&[3, 16], 1),
    (&[3, 6], 3),
    (&[3, 18], 3),
    (&[3, 20], 2),
    (&[3, 28], 2),
    (&[3, 150], 3),
    (&[4, 64, 9], 1),
    (&[4, 64, 16], 1),
    (&[3, 9], 3),
    (&[3, 2, 6], 2),
    (&[3, 2, 8], 2),
    (&[3, 2, 10], 2),
    (&[3, 2, 12], 2),
    (&[3, 2, 20], 2),
    (&[3, 2, 38], 2),
    (&[3, 2, 50], 2),
    (&[3, 2, 96], 2),
    (&[3, 2, 128], 2),
    (&[3, 2, 400], 2),
    (&[4, 2, 20], 2),
    (&[4, 2, 22], 2),
    (&[4, 34, 2], 2),
    // Several samples an invocation.
    (&[40, 20], 1),
    (&[41, 34], 1),
    (&[42, 17, 2], 1),
    (&[43, 6, 4], 1),
];

/// As large as tensors get: 2^32 elements, 2^31 in a row.
const EXTREMES: &[(&[usize], usize)] = &[
    (&[1 << 30, 2], 1),
    (&[1 << 31, 2], 2),
    (&[1 << 31, 2], 1),
    (&[(1 << 31) - 1, 1], 1),
    (&[(1 << 32) - 1, 1], 1),
    (&[1, 1, 1 << 31], 1),
    (&[2, 1, 1 << 31], 1),
    (&[1, 2, 1 << 31], 2),
    (&[2, 1, (1 << 31) - 1], 1),
    (&[1, 1, (1 << 31) - 1], 1),
    (&[2, 1, (1 << 30) - 1], 1),
    (&[1, 3, 715_827_882], 1),
    (&[1, 3, 1_431_655_765], 1),
    (&[2, 2, (1 << 29) - 2], 2),
    (&[46_340, 46_340], 46_340),
    (&[46_337, 46_337], 46_337),
    (&[65_537, 65_535], 65_535),
    (&[65_535, 65_537], 1),
    (&[1 << 20, 2048], 32),
    (&[1 << 20, 512, 3], 1),
    (&[2048, 1 << 20], 1 << 10),
    (&[1, 1 << 31], 1 << 30),
    (&[1, 1 << 31], 1 << 15),
    (&[1, 1 << 20, 1 << 11], 1),
    (&[400_000_000, 1, 5], 1),
    (&[85_899_345, 5, 5], 5),
    (&[3, 21_474_836, 33], 10_737_418),
    (&[64, 256, 512, 512], 32),
    (&[3, 65, 1_000_003], 13),
];

/// Both layouts of all types.
fn storages() -> Vec<(DType, Layout)> {
    let layouts = [Layout::ChannelsFirst, Layout::ChannelsLast];
    let of = |dtype| layouts.map(|layout| (dtype, layout));
    [DType::F32, DType::F16, DType::BF16]
        .into_iter()
        .flat_map(of)
        .collect()
}

/// Whether one value is behind a statistic, as PyTorch refuses it.
fn has_one_value(norm: &NormDesc, tensor: &TensorDesc, mode: Mode) -> bool {
    let (part, _) = parts(norm, mode);
    let n = u64::from(tensor.num_samples());
    let len = u64::from(tensor.row_len());
    match norm.kind {
        NormKind::InstanceNorm | NormKind::WeightStandardization => part == Part::None && len == 1,
        NormKind::GroupNorm => n * (norm.num_channels / norm.num_groups) as u64 * len == 1,
        NormKind::LayerNorm => false,
        _ => part == Part::Batch && n * len == 1,
    }
}

/// Calls `check` on the plans of every norm, type and layout for each shape and tuning, and of what may
/// be asked besides: of all of it, or of each in turn.
fn for_every_plan(
    shapes: &[(&[usize], usize)],
    tunings: &[(&'static str, Tuning)],
    each: bool,
    mut check: impl FnMut(&str, &Plan, &Tuning, &Asked),
) {
    let (mut seen, mut refused) = (0, 0);
    let all = Asked::all();
    let mut turn = 0;
    for &(dims, groups) in shapes {
        for (dtype, layout) in storages() {
            let tensor = TensorDesc::new(dims).unwrap();
            let tensor = tensor.with_dtype(dtype).with_layout(layout);
            for &(tuning_name, tuning) in tunings {
                for (norm, mode) in norms(dims[1], groups) {
                    let one_value = has_one_value(&norm, &tensor, mode);
                    assert_eq!(norm.validate_for(&tensor, mode).is_err(), one_value);
                    turn += 1;
                    let range = match each {
                        true => 0..all.len(),
                        false => turn % all.len()..turn % all.len() + 1,
                    };
                    for &asked in &all[range] {
                        let in_place = asked.in_place && mode == Mode::Eval;
                        let asked = Asked { in_place, ..asked };
                        let what = format!(
                            "{dims:?} {} {} {} G={groups} {:?} {mode:?} {tuning_name} {asked:?}",
                            dtype.name(),
                            layout.name(),
                            norm.kind.name(),
                            norm.stats
                        );
                        let sharded = asked.shards.is_some() && parts(&norm, mode).0 == Part::Batch;
                        let beyond = is_beyond(&norm, &tensor, mode, asked, &tuning);
                        let plans = match plans(&norm, &tensor, mode, asked, &tuning) {
                            Err(Error::OneValuePerChannel { .. }) if one_value && !sharded => {
                                continue;
                            }
                            Err(Error::Limit { value, limit, .. })
                                if beyond || may_refuse(tuning_name, &tensor) =>
                            {
                                assert!(
                                    value > limit || is_last(&tensor),
                                    "{what}: {value} {limit}"
                                );
                                refused += 1;
                                continue;
                            }
                            Err(error) => panic!("{what}: {error}"),
                            Ok(_) if beyond => panic!("{what}: no tuning bounds this"),
                            Ok(plans) => plans,
                        };
                        assert!(!one_value || sharded, "{what}");
                        // Backward finds what forward saved.
                        let mut ways = plans.iter().map(|(plan, _)| is_of_elements(plan));
                        let way = ways.next();
                        assert!(
                            asked.in_place || ways.all(|other| Some(other) == way),
                            "{what}"
                        );
                        for (plan, asked) in &plans {
                            let what = format!("{what} {:?}", plan.direction());
                            check(&what, plan, &tuning, asked);
                            seen += 1;
                        }
                    }
                }
            }
        }
    }
    assert!(seen > 3 * refused, "{refused} refused, {seen} not");
}

/// The smaller shapes, for tests that look at much of each.
fn small_shapes() -> &'static [(&'static [usize], usize)] {
    &SHAPES[..11]
}

#[test]
fn no_invocation_loops_too_often() {
    let mut most = 0;
    let mut check = |what: &str, plan: &Plan, _: &Tuning, _: &Asked| {
        for step in plan.steps() {
            let iterations = work::iterations(step);
            let name = step.spec.kernel.name();
            assert!(
                iterations <= MAX_ITERATIONS,
                "{what}: {name} loops {iterations} times: {step:?}"
            );
            most = most.max(iterations);
        }
    };
    for_every_plan(SHAPES, &tunings(), false, &mut check);
    for_every_plan(EXTREMES, &tunings(), false, &mut check);
    // The test sees plans that come close.
    assert!(most > MAX_ITERATIONS / 2, "{most}");
}

/// `work::loops` against the WGSL.
#[test]
fn loops_are_counted() {
    fn count(module: &Module, block: &naga::Block, spec: &Spec) -> u64 {
        let mut loops = 0;
        for statement in block {
            loops += match statement {
                naga::Statement::Block(block) => count(module, block, spec),
                naga::Statement::If { accept, reject, .. } => {
                    count(module, accept, spec) + count(module, reject, spec)
                }
                naga::Statement::Switch { cases, .. } => cases
                    .iter()
                    .map(|case| count(module, &case.body, spec))
                    .sum(),
                naga::Statement::Loop {
                    body, continuing, ..
                } => {
                    let inside = count(module, body, spec) + count(module, continuing, spec);
                    assert_eq!(inside, 0, "a loop within a loop: multiply its iterations");
                    1
                }
                naga::Statement::Call { function, .. } => {
                    let function = &module.functions[*function];
                    let name = function.name.as_deref().unwrap_or_default();
                    // Loops within loops, over the lanes of a workgroup.
                    match spec.subgroup_size > 1 && name.starts_with("reduce_") {
                        true => 0,
                        false => count(module, &function.body, spec),
                    }
                }
                _ => 0,
            };
        }
        loops
    }
    for spec in specs() {
        let (module, _) = reflect(&spec);
        let found = count(&module, &module.entry_points[0].function.body, &spec);
        let (own, reductions) = work::loops(spec.kernel);
        let reductions = match spec.lanes > 1 && spec.subgroup_size == 1 {
            true => reductions,
            false => 0,
        };
        let more_words = match spec.kernel.kernel().family {
            // Each word's elements are written in a loop.
            Family::ColumnReduce => u64::from(spec.column_words) - 1,
            Family::ElementColumn if spec.kernel == KernelId::ElementTerms => {
                u64::from(spec.column_words) - 1
            }
            _ => 0,
        };
        assert_eq!(found, own + reductions + more_words, "{spec:?}");
    }
}

/// Whether a sample's elements must be rows over the samples: a norm without a group part, channels first,
/// rows that are short and fewer than samples.
fn takes_elements_as_rows(plan: &Plan, asked: &Asked, tuning: &Tuning) -> bool {
    let tensor = plan.tensor();
    let (_, grouped) = parts(plan.norm(), plan.mode());
    let (n, c, len) = (
        tensor.num_samples(),
        tensor.num_channels(),
        tensor.row_len(),
    );
    !grouped
        && asked.rows == RowSource::Computed
        && tensor.layout() == Layout::ChannelsFirst
        && tensor.elements() > 0
        && c > 1
        && (2..n).contains(&len)
        && len <= tuning.short_batch_row
        && c.checked_mul(len).is_some()
}

/// Such a plan reads and writes the tensor as that of (N, C * L) does, which the checks below look at; its
/// channels have L rows each, which lie together and are folded.
fn check_elements_as_rows(what: &str, plan: &Plan, asked: &Asked, tuning: &Tuning) {
    let (tensor, norm) = (plan.tensor(), plan.norm());
    let (channels, len) = (tensor.num_channels(), tensor.row_len());
    let elements = (channels * len) as usize;
    let wide = TensorDesc::new(&[tensor.num_samples() as usize, elements]).unwrap();
    let wide = wide.with_dtype(tensor.dtype());
    let mut wide_norm = *norm;
    wide_norm.num_channels = elements;
    let plain = Asked {
        write: Write::Replace,
        ..*asked
    };
    let wide_plans = plans(&wide_norm, &wide, plan.mode(), plain, tuning).unwrap();
    let like = wide_plans
        .iter()
        .find(|(like, with)| like.direction() == plan.direction() && with.write == asked.write);
    let (like, _) = like.unwrap();
    let sized = |plan: &Plan| -> Vec<Step> {
        let steps = plan.steps().iter();
        let steps = steps.filter(|step| step.spec.kernel.kernel().family.is_tensor_sized());
        steps.cloned().collect()
    };
    let (found, expected) = (sized(plan), sized(like));
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, mut expected) in found.into_iter().zip(expected) {
        expected.params.channel_len = len;
        // Of channels, and these are fewer.
        expected.params.channel_columns /= len;
        assert_eq!(found, expected, "{what}");
    }
    assert_eq!(plan.tensor_bytes(), like.tensor_bytes(), "{what}");
    for role in [
        Role::Rows,
        Role::Coefficients,
        Role::Products,
        Role::CoefficientsBackward,
    ] {
        let bytes = |plan: &Plan| plan.need(role).map(|need| need.bytes);
        assert_eq!(bytes(plan), bytes(like), "{what}: {role}");
    }
    let (part, _) = parts(norm, plan.mode());
    for step in plan.steps() {
        let (kernel, p) = (step.spec.kernel, &step.params);
        let what = format!("{what}: {}", kernel.name());
        check_dispatch_size(&what, step);
        assert_eq!(p.channel_len, len, "{what}");
        if !kernel.kernel().family.is_tensor_sized() {
            assert_eq!(p.num_channels, channels, "{what}");
        }
        match kernel {
            KernelId::RowFold if step.bindings[1] == Role::ChannelParts => {
                assert_eq!((p.items, p.parts), (channels, len), "{what}");
                assert_eq!(step.bindings[0], Role::Rows, "{what}");
            }
            KernelId::ChannelFold => {
                assert_eq!(p.items, channels, "{what}");
                let from_batch = [Part::Batch, Part::Estimate].contains(&part);
                let shards = asked.shards.map_or(1, NonZero::get);
                let entries = if from_batch { shards } else { 0 };
                assert_eq!(p.entries, entries, "{what}");
            }
            KernelId::RowCoefficients | KernelId::RowTermsBackward => {
                assert_eq!(p.items, channels * len, "{what}");
            }
            KernelId::RowCoefficientsBackward => assert_eq!(p.items, channels * len, "{what}"),
            KernelId::SampleFoldBackward => assert_eq!(p.entries, len, "{what}"),
            KernelId::ChannelFoldBackward if step.bindings[0] == Role::GradientTerms => {
                assert_eq!((p.items, p.entries), (channels, len), "{what}");
            }
            _ => {}
        }
    }
}

/// As many workgroups as the items of a step on tables need.
fn check_dispatch_size(what: &str, step: &Step) {
    let [x, y] = step.workgroups.map(u64::from);
    let invocations = step.spec.workgroup_size / step.spec.lanes;
    let per_workgroup = u64::from(invocations * step.spec.column_words);
    assert!(
        x * y * per_workgroup >= u64::from(step.params.items),
        "{what}"
    );
}

fn check_plan(what: &str, plan: &Plan, tuning: &Tuning, asked: &Asked, known: &HashSet<Spec>) {
    if takes_elements_as_rows(plan, asked, tuning) {
        check_elements_as_rows(what, plan, asked, tuning);
        return;
    }
    let elements = check_way(what, plan, asked, tuning);
    for step in plan.steps() {
        let what = format!("{what}: {}", step.spec.kernel.name());
        check_spec(&what, step, plan, tuning, asked, elements);
        let canonical = canonical(&step.spec);
        assert!(known.contains(&canonical), "{what}: no such {canonical:?}");
        check_bindings(&what, step, plan);
        check_dispatch(&what, step, plan, tuning);
        check_params(&what, step, plan, asked);
        check_split(&what, step);
    }
    check_windows(what, plan, tuning);
    check_needs(what, plan);
    check_dataflow(what, plan, asked, elements.is_some());
    check_exchange(what, plan, asked);
    check_transfers(what, plan, asked, elements.is_some());
}

/// Either elements are rows, and no table of rows is there, or no kernel of theirs runs. It is rows that
/// have kernels, too, where a table of the elements' would not fit a binding.
fn check_way(what: &str, plan: &Plan, asked: &Asked, tuning: &Tuning) -> Option<Elements> {
    let limit = tuning.max_binding_bytes;
    let largest = |plan: &Plan| {
        let tables = plan.needs().iter().filter(|need| {
            let read =
                plan.direction() == Direction::Backward && need.role.kind() == RoleKind::Saved;
            need.role.kind() != RoleKind::Caller && need.role != Role::Channels && !read
        });
        tables.map(|need| need.bytes).max().unwrap_or(0)
    };
    let elements = Elements::of_plan(plan, asked, tuning);
    let elements = elements.filter(|_| {
        let fits = is_of_elements(plan);
        if !fits {
            let unbound = Tuning {
                max_binding_bytes: u64::MAX,
                ..*tuning
            };
            let (norm, tensor) = (plan.norm(), plan.tensor());
            let plans = plans(norm, tensor, plan.mode(), *asked, &unbound).unwrap();
            let of_elements = plans.iter().all(|(plan, _)| is_of_elements(plan));
            let most = plans.iter().map(|(plan, _)| largest(plan)).max();
            assert!(of_elements && most > Some(limit), "{what}: {most:?}");
        }
        fits
    });
    if elements.is_some() {
        let most = largest(plan);
        assert!(most <= limit, "{what}: a table of {most} bytes");
    }
    let mut kernels = plan.steps().iter().map(|step| step.spec.kernel);
    let of_elements = kernels.any(|kernel| {
        let family = kernel.kernel().family;
        [Family::ElementReduce, Family::ElementColumn].contains(&family)
    });
    assert_eq!(of_elements, elements.is_some(), "{what}: {elements:?}");
    let of_rows = [
        Role::Rows,
        Role::Products,
        Role::Coefficients,
        Role::RowGradients,
        Role::CoefficientsBackward,
    ];
    let has_rows = of_rows.iter().any(|&role| plan.need(role).is_some());
    assert!(!of_elements || !has_rows, "{what}: a table of rows");
    elements
}

#[test]
fn steps_fit_their_kernels() {
    let known: HashSet<Spec> = canonical_specs().into_iter().collect();
    let mut check = |what: &str, plan: &Plan, tuning: &Tuning, asked: &Asked| {
        check_plan(what, plan, tuning, asked, &known);
    };
    for_every_plan(SHAPES, &tunings(), false, &mut check);
    for_every_plan(EXTREMES, &tunings(), false, &mut check);
}

/// All that may be asked of each norm, and tensors in many windows; every specialization that the tests
/// above look at is made by some plan.
#[test]
fn steps_fit_their_kernels_whatever_is_asked() {
    let known: HashSet<Spec> = canonical_specs().into_iter().collect();
    let (mut made, mut windows) = (HashSet::new(), 0);
    let mut check = |what: &str, plan: &Plan, tuning: &Tuning, asked: &Asked| {
        check_plan(what, plan, tuning, asked, &known);
        for step in plan.steps() {
            made.insert(canonical(&step.spec));
            windows += usize::from(step.window.is_some());
        }
    };
    for_every_plan(small_shapes(), &tunings(), true, &mut check);
    let mut of_elements = tunings();
    of_elements.retain(|(name, _)| ["GPU", "elements", "shared elements"].contains(name));
    for_every_plan(SHORT_SHAPES, &of_elements, true, &mut check);
    for_every_plan(
        &[(&[3, 6, 1001], 2), (&[9, 20, 17], 5)],
        &narrow_tunings(),
        true,
        &mut check,
    );
    assert!(windows > 1000, "{windows}");
    // Parameters come and go in too many ways for the norms above; tensors' words and bindings may not.
    // Of elements, words (and those that are held) and bindings each on their own.
    let mut seen = HashSet::new();
    for spec in &made {
        seen.extend(faces(spec));
    }
    let unmade: HashSet<Spec> = known
        .iter()
        .filter(|spec| spec.kernel.kernel().family.is_tensor_sized())
        .flat_map(faces)
        .filter(|face| !seen.contains(face))
        .collect();
    assert!(unmade.is_empty(), "no plan makes {unmade:#?}");
}

/// What the texts of a kernel are told apart by, in such parts as some plan should make.
fn faces(spec: &Spec) -> Vec<Spec> {
    if spec.kernel.kernel().family != Family::ElementReduce {
        return vec![*spec];
    }
    let words = Spec {
        activation: Activation::None,
        absent: 0,
        // More than 4 are held as 4 are.
        held: spec.held.min(4),
        ..*spec
    };
    let bindings = Spec {
        dtype: DType::F32,
        width: 4,
        aligned: true,
        held: 0,
        single: false,
        samples: 1,
        lanes: 1,
        fence: false,
        ..*spec
    };
    vec![words, bindings]
}

fn check_spec(
    what: &str,
    step: &Step,
    plan: &Plan,
    tuning: &Tuning,
    asked: &Asked,
    elements: Option<Elements>,
) {
    let (spec, p) = (&step.spec, &step.params);
    let kernel = spec.kernel.kernel();
    assert!(spec.lanes.is_power_of_two(), "{what}: {spec:?}");
    assert_eq!(spec.workgroup_size % spec.lanes, 0, "{what}: {spec:?}");
    assert!(
        spec.workgroup_size <= MAX_WORKGROUP_SIZE,
        "{what}: {spec:?}"
    );
    assert!(
        bcnorm::kernels::workgroup_memory(spec) <= MAX_WORKGROUP_MEMORY,
        "{what}: {spec:?}"
    );
    let near = match kernel.family.reduces_side_by_side() {
        true => tuning.subgroup_size.min(spec.lanes),
        false => 1,
    };
    assert_eq!(spec.subgroup_size, near, "{what}: {spec:?}");
    let tensor = plan.tensor();
    let is_tensor = kernel.bindings.iter().any(|b| b.element == Element::Word);
    assert_eq!(is_tensor, kernel.family.is_tensor_sized());
    assert_eq!(spec.fence, is_tensor && tuning.fence, "{what}: {spec:?}");
    let accumulates = kernel.bindings.iter().any(|b| b.name == "grad_x");
    let added = asked.write == Write::Accumulate && accumulates;
    assert_eq!(spec.accumulate, added, "{what}: {spec:?}");
    let activates = is_tensor
        && kernel
            .bindings
            .iter()
            .any(|b| ["y", "grad_y"].contains(&b.name));
    let activation = match activates {
        true => asked.fusion.activation,
        false => Activation::None,
    };
    assert_eq!(spec.activation, activation, "{what}: {spec:?}");
    if !is_tensor {
        let of_table = (DType::F32, 1, 1, false, true);
        let found = (spec.dtype, spec.width, spec.grain, spec.tail, spec.aligned);
        assert_eq!(found, of_table, "{what}");
        let held = match spec.kernel {
            KernelId::GroupFold | KernelId::GroupFoldBackward => {
                let rows = (p.num_channels / p.num_groups).div_ceil(spec.lanes);
                if rows <= 4 { rows } else { 0 }
            }
            _ => 0,
        };
        assert_eq!(
            (spec.held, spec.single, spec.samples),
            (held, false, 1),
            "{what}"
        );
        return;
    }
    assert_eq!(spec.dtype, tensor.dtype(), "{what}");
    if let Some(elements) = elements
        && kernel.family != Family::ColumnReduce
    {
        let aligned = tensor.row_len().is_multiple_of(elements.width);
        let expected = (elements.width, aligned);
        assert_eq!((spec.width, spec.aligned), expected, "{what}");
        let (lanes, held, single) = match kernel.family {
            Family::ElementReduce => (elements.lanes, elements.held, elements.single),
            _ => (1, 0, false),
        };
        assert_eq!((spec.lanes, spec.held), (lanes, held), "{what}");
        assert_eq!(spec.single, single, "{what}");
        let (words, samples, workgroup_size) = match kernel.family {
            Family::ElementReduce => {
                let samples = elements.samples(plan, tuning);
                (1, samples, elements.workgroup_size(plan, tuning))
            }
            _ => (elements.column_words(tuning), 1, tuning.workgroup_size),
        };
        assert_eq!(
            (spec.column_words, spec.samples),
            (words, samples),
            "{what}"
        );
        assert_eq!(spec.workgroup_size, workgroup_size, "{what}");
        assert!(spec.aligned || elements.width > 1, "{what}");
        return;
    }
    assert_eq!(
        (spec.held, spec.single, spec.samples),
        (0, false, 1),
        "{what}"
    );
    // (N, C) is both layouts at once, and so is a single channel.
    let last = tensor.layout() == Layout::ChannelsLast || tensor.row_len() == 1;
    let columns = matches!(kernel.family, Family::ColumnReduce | Family::ColumnMap);
    let by_columns = elements.is_some() || (last && tensor.num_channels() > 1);
    assert_eq!(columns, by_columns, "{what}");
    // What rows or positions may be whole words of.
    let len = if columns { p.num_channels } else { p.row_len };
    // Half a u32 can be read, not written.
    let alone = match spec.dtype {
        DType::F32 => 1,
        _ if kernel.family == Family::ColumnReduce && len % 2 == 1 => 1,
        _ => 2,
    };
    let (width, grain) = match columns {
        false if len >= 4 => (4, 4),
        true if len.is_multiple_of(4) => (4, 4),
        true if len.is_multiple_of(alone) && spec.dtype.alone() == alone && tuning.gather => {
            (4, alone)
        }
        _ => (alone, alone),
    };
    assert_eq!((spec.width, spec.grain), (width, grain), "{what}: {spec:?}");
    assert_eq!(spec.aligned, len.is_multiple_of(grain), "{what}: {spec:?}");
    let ends_within = spec.grain == 4 && !tensor.elements().is_multiple_of(4);
    assert!(ends_within || !spec.tail, "{what}: {spec:?}");
    // A word of a row may lie in two rows, no more.
    assert!(columns || len + 1 >= width, "{what}: {spec:?}");
    if columns {
        assert_eq!(p.columns, len.div_ceil(width), "{what}");
    }
}

/// Whether the plan takes elements as rows ([`check_way`] says that it should).
fn is_of_elements(plan: &Plan) -> bool {
    let last = plan.steps().last().map(|step| step.spec.kernel);
    [
        Some(KernelId::ElementAffine),
        Some(KernelId::ElementAffineBackward),
    ]
    .contains(&last)
}

/// A binding has the name of the buffer, but where another table or parameter stands in.
fn check_bindings(what: &str, step: &Step, plan: &Plan) {
    let (spec, kernel) = (&step.spec, step.spec.kernel);
    let (_, grouped) = parts(plan.norm(), plan.mode());
    let elements = is_of_elements(plan);
    let declared: Vec<&BindingDecl> = spec.bindings().map(|(_, binding)| binding).collect();
    assert_eq!(step.bindings.len(), declared.len(), "{what}");
    for (index, binding) in kernel.kernel().bindings.iter().enumerate() {
        let absent = spec.absent >> index & 1 == 1;
        assert!(!absent || binding.optional, "{what}: no {}", binding.name);
    }
    for (role, binding) in step.bindings.iter().zip(declared) {
        let same = role
            .name()
            .replace('.', "_")
            .replace("bn_running", "running")
            .replace("bn_num_batches", "num_batches");
        let stands_in = match (kernel, binding.name, role) {
            (_, "row_parts", Role::Rows) | (_, "product_parts", Role::Products) => {
                step.params.parts == 1
            }
            // The columns of a channel are folded; there may be one.
            (KernelId::ColumnMoments, "row_parts", Role::ChannelParts) => {
                work::sees_elements(step) && step.params.parts * step.params.channel_len == 1
            }
            (KernelId::RowFold, "rows", Role::ChannelParts) => elements,
            (KernelId::SampleFoldBackward, "gradient_terms", Role::ChannelTerms)
            | (KernelId::SampleFoldBackward, "gradient_terms", Role::AffineTerms)
            | (KernelId::ChannelFoldBackward, "gradient_parts", Role::ChannelTerms)
            | (KernelId::ChannelFoldBackward, "gradient_parts", Role::AffineTerms) => elements,
            (KernelId::SampleFold, "rows", Role::ChannelParts) => true,
            (KernelId::SampleFold, "channel_parts", Role::ChannelMoments) => {
                plan.exchange().is_some()
            }
            (KernelId::ChannelFold, "channel_parts", Role::Rows) => true,
            (KernelId::ChannelFold, "channel_parts", Role::ChannelShards) => {
                plan.exchange().is_some()
            }
            (KernelId::ChannelFoldBackward, "gradient_parts", Role::GradientTerms) => true,
            (KernelId::ChannelFoldBackward, "gradient_parts", Role::GradientShards)
            | (KernelId::ChannelFoldBackward, "channel_gradients", Role::GradientSums) => {
                plan.exchange().is_some()
            }
            // The only affine is the channel part's.
            (KernelId::ChannelFold, "bn_weight", Role::Weight)
            | (KernelId::ChannelFold, "bn_bias", Role::Bias)
            | (KernelId::ChannelFoldBackward, "grad_bn_weight", Role::GradWeight)
            | (KernelId::ChannelFoldBackward, "grad_bn_bias", Role::GradBias) => !grouped,
            // In place.
            (
                KernelId::RowAffine | KernelId::ColumnAffine | KernelId::ElementAffine,
                "y",
                Role::X,
            ) => spec.bindings().all(|(_, binding)| binding.name != "x"),
            _ => false,
        };
        assert!(
            same == binding.name || stands_in,
            "{what}: {role} bound to {}",
            binding.name
        );
    }
}

fn check_dispatch(what: &str, step: &Step, plan: &Plan, tuning: &Tuning) {
    let [x, y] = step.workgroups.map(u64::from);
    let invocations = step.spec.workgroup_size / step.spec.lanes;
    let per_workgroup = u64::from(invocations * step.spec.column_words);
    let items = u64::from(step.params.items);
    assert!(items > 0, "{what}");
    let sized = step.spec.kernel.kernel().family.is_tensor_sized();
    if !sized {
        assert_eq!(items, work::items(step), "{what}");
        assert_eq!(step.params.first_item, 0, "{what}");
    }
    if step.window.is_none() {
        assert_eq!(step.params.first_word, 0, "{what}");
        if sized {
            let bytes = plan.tensor().buffer_bytes();
            assert!(bytes <= tuning.max_binding_bytes, "{what}: {bytes}");
        }
    }
    let most = u64::from(tuning.max_workgroups.min(MAX_WORKGROUPS));
    assert!(
        x >= 1 && y >= 1 && x <= most && y <= most,
        "{what}: {x} x {y} workgroups"
    );
    let started = x * y * per_workgroup;
    assert!(started >= items, "{what}: {started} of {items} items");
    // At most a workgroup too many in each row of them.
    assert!(
        started < items + (y + 1) * per_workgroup,
        "{what}: {started} for {items} items"
    );
    // `item_index` computes in u32; an index that wraps would be a second owner of an item.
    assert!(started <= 1 << 32, "{what}: {started} items");
    assert!(work::item_range(step).end <= 1 << 32, "{what}");
}

fn check_params(what: &str, step: &Step, plan: &Plan, asked: &Asked) {
    let (p, tensor, norm) = (&step.params, plan.tensor(), plan.norm());
    let kernel = step.spec.kernel;
    let (part, grouped) = parts(norm, plan.mode());
    let train = plan.mode() == Mode::Train;
    // A norm without a group part may take samples for positions.
    let (n, len) = (tensor.num_samples(), tensor.row_len());
    let merged = p.num_samples == 1 && u64::from(p.row_len) == u64::from(n) * u64::from(len);
    let may_merge = !grouped && asked.rows == RowSource::Computed;
    let seen = work::sees_elements(step);
    let own_len = seen || step.spec.kernel.kernel().family == Family::ElementReduce;
    assert_eq!(p.channel_len, if own_len { len } else { 0 }, "{what}");
    if seen {
        // Samples as positions, their elements as channels.
        assert_eq!((p.num_samples, p.row_len), (1, n), "{what}: {p:?}");
        let elements = u64::from(p.num_channels);
        assert_eq!(
            elements,
            norm.num_channels as u64 * u64::from(len),
            "{what}"
        );
    } else {
        assert!(
            (p.num_samples, p.row_len) == (n, len) || (merged && may_merge),
            "{what}: {p:?}"
        );
        assert_eq!(p.num_channels as usize, norm.num_channels, "{what}");
    }
    let groups = if grouped { norm.num_groups } else { 0 };
    assert_eq!(p.num_groups as usize, groups, "{what}");
    let channel_eps = if grouped { CHANNEL_EPS } else { norm.eps };
    assert_eq!((p.eps, p.channel_eps), (norm.eps, channel_eps), "{what}");
    // `rounded` hides values behind it.
    assert_eq!(p.zero, 0, "{what}");
    let (momentum, cumulative) = match norm.stats {
        ChannelStats::Batch {
            momentum: Some(momentum),
        } => (momentum, false),
        ChannelStats::Batch { momentum: None } => (0.0, true),
        ChannelStats::Estimate { moving_speed } => (moving_speed, false),
        other => panic!("{other:?} is not known here"),
    };
    assert_eq!(p.momentum, momentum, "{what}");
    let tracked = part == Part::Batch && train && norm.track_running_stats;
    let per_channel = norm.kind != NormKind::BcNorm || norm.per_channel_affine;
    // Parameters are written by the fold of this device's terms alone.
    let of_device =
        kernel == KernelId::ChannelFoldBackward && step.bindings[0] != Role::GradientShards;
    let accumulates = of_device && asked.write == Write::Accumulate;
    let sums = of_device && asked.shards.is_some() && part == Part::Batch;
    let flags = [
        (
            params::TRAINING,
            [Part::Batch, Part::Estimate].contains(&part),
        ),
        (params::ESTIMATE, part == Part::Estimate),
        (params::CUMULATIVE, tracked && cumulative),
        (params::ACCUMULATE, accumulates),
        (params::NO_CHANNEL_PART, part == Part::None),
        (params::PER_CHANNEL, grouped && per_channel),
        (
            params::UNBIASED,
            norm.kind == NormKind::WeightStandardization,
        ),
        (params::SUMS, sums),
    ];
    let flags = flags.into_iter().filter(|&(_, on)| on);
    assert_eq!(p.flags, flags.map(|(flag, _)| flag).sum::<u32>(), "{what}");
    check_columns(what, step, plan);

    // What the folds over samples read: all of them, none where nothing of the batch enters, or what a
    // fold before left.
    if [
        KernelId::SampleFold,
        KernelId::SampleFoldBackward,
        KernelId::ChannelFold,
        KernelId::ChannelFoldBackward,
        KernelId::RunningFold,
    ]
    .contains(&kernel)
    {
        let empty = tensor.elements() == 0;
        let samples = if empty { 0 } else { p.num_samples };
        let shards = asked.shards.map_or(0, NonZero::get);
        let folded = |role: Role| {
            let fold = writer(plan, step, role).map(|fold| &fold.params);
            fold.map_or(0, |fold| fold.entries.div_ceil(fold.entries_per_segment))
        };
        let expected = match step.bindings[0] {
            Role::Rows | Role::GradientTerms => samples,
            // One for a channel is left.
            Role::ChannelParts if is_of_elements(plan) => 1,
            role @ (Role::ChannelTerms | Role::AffineTerms) => {
                let terms = &writer(plan, step, role).unwrap().params;
                // Of every group, or of every part of the samples in an element.
                match role == Role::AffineTerms && !(grouped && per_channel) {
                    true => n,
                    false => len * terms.parts,
                }
            }
            role @ (Role::ChannelParts | Role::GradientParts) if !empty => folded(role),
            Role::ChannelShards | Role::GradientShards => shards,
            _ => 0,
        };
        assert_eq!(p.entries, expected, "{what}");
        let of_batch = [Part::Batch, Part::Estimate].contains(&part);
        assert!(
            kernel != KernelId::ChannelFold || of_batch == (p.entries > 0),
            "{what}"
        );
    }
}

/// The step before `step` that wrote a table last.
fn writer<'a>(plan: &'a Plan, step: &Step, role: Role) -> Option<&'a Step> {
    let before = plan.steps().iter();
    let before = before.take_while(|other| !std::ptr::eq(*other, step));
    before.filter(|other| writes(other, role)).last()
}

fn writes(step: &Step, role: Role) -> bool {
    let mut bindings = step.bindings.iter().zip(step.spec.bindings());
    bindings.any(|(&bound, (_, declared))| bound == role && declared.access == Access::ReadWrite)
}

/// Columns of the tables that folds read.
fn check_columns(what: &str, step: &Step, plan: &Plan) {
    let (p, norm) = (&step.params, plan.norm());
    let (part, grouped) = parts(norm, plan.mode());
    let channels = p.num_channels;
    // The channel part has columns where a gradient flows through it or someone wants it.
    let own = match grouped {
        true => norm.bn_weight || norm.bn_bias,
        false => norm.weight || norm.bias,
    };
    let channel_columns = match part {
        Part::None => 0,
        Part::Batch => channels,
        Part::Estimate | Part::Running if own => channels,
        Part::Estimate | Part::Running => 0,
    };
    let affine = match grouped && (norm.weight || norm.bias) {
        true => norm.affine_len() as u32,
        false => 0,
    };
    let of_shards = step.bindings.first() == Some(&Role::GradientShards);
    // Of elements, the channel part's columns and the affine's are two tables, folded one by one.
    let table = step.bindings.first().copied();
    let table = match table {
        Some(Role::GradientParts) => {
            writer(plan, step, Role::GradientParts).and_then(|fold| fold.bindings.first().copied())
        }
        table => table,
    };
    let (channel_columns, affine) = match table {
        Some(Role::ChannelTerms) => (channel_columns, 0),
        Some(Role::AffineTerms) => (0, affine),
        _ => (channel_columns, affine),
    };
    let columns = match step.spec.kernel {
        KernelId::SampleFold | KernelId::ChannelFold | KernelId::RunningFold => Some(channels),
        KernelId::ChannelFoldBackward if of_shards => {
            assert_eq!(p.channel_columns, channels, "{what}");
            Some(channels)
        }
        KernelId::SampleFoldBackward
        | KernelId::GroupFoldBackward
        | KernelId::RowTermsBackward
        | KernelId::ChannelFoldBackward => {
            assert_eq!(p.channel_columns, channel_columns, "{what}");
            Some(channel_columns + affine)
        }
        _ => None,
    };
    if let Some(columns) = columns {
        assert_eq!(p.columns, columns, "{what}");
    }
    let has_terms = step.bindings.contains(&Role::GradientTerms);
    assert!(!has_terms || p.columns > 0, "{what}");
}

/// The parts of a row cover it, none is empty, and no index leaves u32 that is not meant to. In u64, as
/// span.wgsl, row_words.wgsl and column.wgsl compute.
fn check_split(what: &str, step: &Step) {
    let (p, spec) = (&step.params, &step.spec);
    let wide = u64::from;
    let (len, width, lanes) = (wide(p.row_len), wide(spec.width), wide(spec.lanes));
    let family = spec.kernel.kernel().family;
    if !family.is_tensor_sized() {
        return;
    }
    // Words, elements and items are counted modulo 2^32, and so exactly.
    assert!(work::elements(p) <= MAX_ELEMENTS, "{what}");
    let covered = wide(p.parts) * wide(p.words_per_part);
    // Groups have no parts.
    let before = covered.saturating_sub(wide(p.words_per_part));
    let rows = work::rows(p);
    // The rows' begins within a word repeat after `width` rows.
    let sample = (0..rows.min(5)).chain(rows.saturating_sub(5)..rows);
    for row in sample {
        let (begin, end) = (row * len, (row + 1) * len);
        match family {
            Family::RowReduce => {
                let last = begin / width + covered;
                assert!(last * width >= end, "{what}: row {row} is cut short");
                // Within a row, words and elements are counted in u32; `loose_mask` looks at words
                // CHUNK * LANES behind the span.
                let highest = (covered + 4 * lanes + 1) * width;
                assert!(highest <= wide(u32::MAX), "{what}: element {highest}");
            }
            Family::RowMap => {
                let last = begin.div_ceil(width) + covered;
                assert!(last >= end / width, "{what}: row {row} is cut short");
                let highest = covered + 4 * lanes + 1;
                assert!(highest <= wide(u32::MAX), "{what}: word {highest}");
                // A last word that reaches into the next row needs one, or 16 bits of padding, or is
                // written in part.
                let padded = spec.dtype != DType::F32 && spec.width == 2;
                assert!(
                    end.is_multiple_of(width) || row + 1 < rows || padded || width == 4,
                    "{what}: row {row}"
                );
            }
            _ => {}
        }
    }
    if family == Family::ElementReduce {
        // Groups are whole words, one behind the other; a chunk looks behind the last.
        let groups = wide(p.num_samples) * wide(p.num_groups);
        assert_eq!(wide(p.items), work::items(step), "{what}");
        let alone = (spec.lanes, spec.held, spec.single) == (1, 0, false);
        assert!(spec.samples == 1 || alone, "{what}: {spec:?}");
        let words = groups * wide(p.words_per_part);
        assert_eq!(words * width, work::elements(p), "{what}");
        let highest = wide(p.words_per_part) + 2 * 4 * lanes;
        assert!(
            highest * width <= wide(u32::MAX) && words <= wide(u32::MAX),
            "{what}: {p:?}"
        );
    }
    if matches!(family, Family::ElementReduce | Family::ElementColumn) {
        check_elements(what, step);
    }
    if let Family::ColumnReduce | Family::ColumnMap | Family::ElementColumn = family {
        assert!(before < len && len <= covered, "{what}: {p:?}");
        assert!(covered + 8 * lanes <= wide(u32::MAX), "{what}: {p:?}");
        if work::strides(step) {
            assert_eq!((spec.lanes, p.parts, p.first_item), (1, 1, 0), "{what}");
            // An item behind its last word.
            assert!(
                wide(p.num_words) + wide(p.items) <= wide(u32::MAX),
                "{what}"
            );
        } else {
            let channels = wide(p.num_channels);
            assert!(channels.is_multiple_of(wide(spec.grain)), "{what}");
            if family != Family::ElementColumn {
                assert_eq!(wide(p.columns), channels.div_ceil(width), "{what}");
            }
            // The items of an invocation are of one part.
            let together = wide(spec.column_words);
            for items in [p.columns, p.first_item, p.items] {
                assert!(
                    wide(items).is_multiple_of(together),
                    "{what}: {spec:?} {p:?}"
                );
            }
            let whole = channels.is_multiple_of(4) || family == Family::ElementColumn;
            assert!(together == 1 || (spec.lanes == 1 && whole), "{what}");
        }
    }
}

/// The items of a kernel on elements touch every word once; those of an invocation are of one group.
fn check_elements(what: &str, step: &Step) {
    let (p, spec) = (&step.params, &step.spec);
    let words = work::elements(p) / u64::from(spec.width);
    if spec.kernel.kernel().family == Family::ElementColumn {
        let of_group = p.columns / p.num_groups;
        assert_eq!(of_group * p.num_groups, p.columns, "{what}: {p:?}");
        assert!(of_group.is_multiple_of(spec.column_words), "{what}: {p:?}");
        // A word is of one group, and no invocation has none.
        let size = p.num_channels / p.num_groups;
        assert!(size.is_multiple_of(spec.width), "{what}: {p:?}");
        let size = size / spec.width;
        assert!(
            (size..size + spec.column_words).contains(&of_group),
            "{what}: {p:?}"
        );
    }
    // Of small tensors, each.
    if words > 4096 {
        return;
    }
    let mut seen = vec![0; words as usize];
    for item in work::item_range(step) {
        for word in work::words_of_elements(step, item) {
            seen[word as usize] += 1;
        }
    }
    assert!(seen.iter().all(|&times| times == 1), "{what}: {seen:?}");
}

/// The windows of a kernel hold all that their items touch, which is every word and every item once.
fn check_windows(what: &str, plan: &Plan, tuning: &Tuning) {
    let tensor = plan.tensor();
    let steps = plan.steps();
    let mut first = 0;
    while first < steps.len() {
        let kernel = steps[first].spec.kernel;
        // Of elements no window is ever made, and no end has a dispatch of its own.
        let of_elements = is_of_elements(plan);
        if of_elements {
            let step = &steps[first];
            assert!(step.window.is_none() && !step.spec.tail, "{what}");
            assert_eq!(step.params.num_words, 0, "{what}");
        }
        if of_elements || !kernel.kernel().family.is_tensor_sized() {
            first += 1;
            continue;
        }
        let windows = steps[first..].iter();
        let windows = windows.take_while(|step| step.spec.kernel == kernel);
        let windows = &steps[first..first + windows.count()];
        first += windows.len();
        let what = format!("{what}: {}", kernel.name());
        let strides = work::strides(&windows[0]);
        let spec = windows[0].spec;
        let grain_bytes = spec.dtype.bytes() * u64::from(spec.grain);
        let total = all_grains(&windows[0], tensor);
        // Grains that a binding of whole ones has.
        let whole = match spec.grain == spec.dtype.alone() || spec.grain == 1 {
            true => total,
            false => tensor.elements() / u64::from(spec.grain),
        };
        let maps = matches!(kernel.kernel().family, Family::RowMap);
        let (mut item, mut grain) = (0, 0);
        for step in windows {
            let tail = step.spec.tail;
            let like_first = Spec {
                tail: spec.tail,
                lanes: if tail { spec.lanes } else { step.spec.lanes },
                // Of a window that ends within an invocation.
                column_words: step.spec.column_words,
                ..step.spec
            };
            assert_eq!(like_first, spec, "{what}");
            assert_eq!(step.bindings, windows[0].bindings, "{what}");
            assert!(step.window.is_some() || windows.len() <= 2, "{what}");
            let p = &step.params;
            let window = step.window.unwrap_or(Window {
                offset: 0,
                bytes: tensor.buffer_bytes(),
            });
            assert!(window.offset.is_multiple_of(256), "{what}: {window:?}");
            assert!(window.bytes.is_multiple_of(4), "{what}: {window:?}");
            assert!(
                window.bytes <= tuning.max_binding_bytes,
                "{what}: {window:?}"
            );
            let end = window.offset + window.bytes;
            assert!(end <= tensor.buffer_bytes(), "{what}: {window:?}");
            assert_eq!(
                u64::from(p.first_word) * grain_bytes,
                window.offset,
                "{what}"
            );
            let bytes = u64::from(p.num_words) * grain_bytes;
            // The last grain may reach beyond the tensor.
            let bound = bytes
                .next_multiple_of(4)
                .min(tensor.buffer_bytes().next_multiple_of(grain_bytes.max(4)) - window.offset);
            assert!(
                bound.next_multiple_of(grain_bytes.max(4))
                    == window.bytes.next_multiple_of(grain_bytes.max(4))
                    || p.num_words == u32::MAX,
                "{what}: {p:?} {window:?}"
            );
            let grains = work::grains(step);
            assert!(grains.end <= if tail { total } else { whole }, "{what}");
            assert!(
                grains.start * grain_bytes >= window.offset
                    && (grains.end * grain_bytes).min(tensor.buffer_bytes()) <= end,
                "{what}: {grains:?} of {window:?}"
            );
            if strides || maps {
                assert_eq!(grains.start, grain, "{what}");
                grain = grains.end;
            }
            if !strides {
                assert_eq!(work::item_range(step).start, item, "{what}");
                item = work::item_range(step).end;
            }
        }
        let last = &windows[windows.len() - 1];
        assert_eq!(work::grains(last).end, total, "{what}");
        assert_eq!(last.spec.tail, whole < total, "{what}");
        if !strides {
            assert_eq!(item, work::items(&windows[0]), "{what}");
        }
    }
}

/// Grains of the tensor: the last may reach beyond it.
fn all_grains(step: &Step, tensor: &TensorDesc) -> u64 {
    tensor.elements().div_ceil(u64::from(step.spec.grain))
}

/// Needs are exactly what the steps touch.
fn check_needs(what: &str, plan: &Plan) {
    let mut roles = BTreeSet::new();
    for need in plan.needs() {
        assert!(roles.insert(need.role), "{what}: {} twice", need.role);
        let (mut bytes, mut written) = (0, false);
        for step in plan.steps() {
            for (&role, (_, declared)) in step.bindings.iter().zip(step.spec.bindings()) {
                if role == need.role {
                    let touched = match declared.element {
                        Element::Word => plan.tensor().buffer_bytes(),
                        element => work::entries(step, declared) * element.bytes(&step.spec),
                    };
                    bytes = bytes.max(touched);
                    written |= declared.access == Access::ReadWrite;
                }
            }
        }
        assert_eq!(need.bytes, bytes, "{what}: {}", need.role);
        assert!(bytes > 0 && bytes % 4 == 0, "{what}: {}", need.role);
        assert_eq!(
            need.access == Access::ReadWrite,
            written,
            "{what}: {}",
            need.role
        );
    }
    for step in plan.steps() {
        for (role, (_, declared)) in step.bindings.iter().zip(step.spec.bindings()) {
            assert!(
                roles.contains(role),
                "{what}: {role} is not among the needs"
            );
            if declared.element != Element::Word {
                let entries = work::entries(step, declared);
                assert!(
                    entries <= 1 << 32,
                    "{what}: {declared:?}: {entries} entries"
                );
            }
        }
    }
}

/// A table is read after it was written, by this plan, by forward if saved, or by the caller if given;
/// and written by one kernel, to its end before another reads it.
fn check_dataflow(what: &str, plan: &Plan, asked: &Asked, elements: bool) {
    let norm = plan.norm();
    let forward = plan.direction() == Direction::Forward;
    let (part, grouped) = parts(norm, plan.mode());
    let empty = plan.tensor().elements() == 0;
    let given = |role: &Role| match role {
        Role::Rows if asked.rows == RowSource::Given => true,
        Role::ChannelShards | Role::GradientShards => asked.shards.is_some(),
        role => role.kind() == RoleKind::Caller || (!forward && role.kind() == RoleKind::Saved),
    };
    let mut written: Vec<(Role, KernelId)> = Vec::new();
    for step in plan.steps() {
        let kernel = step.spec.kernel;
        let name = kernel.name();
        let bindings = || step.bindings.iter().zip(step.spec.bindings());
        for (role, (_, declared)) in bindings() {
            if declared.access == Access::Read && !given(role) && step.params.entries > 0 {
                assert!(
                    written.iter().any(|(known, _)| known == role),
                    "{what}: {name} reads {role}, which nobody wrote"
                );
            }
        }
        for (role, (_, declared)) in bindings() {
            if declared.access == Access::ReadWrite {
                let before = written.iter().find(|(known, _)| known == role);
                match before {
                    None => written.push((*role, kernel)),
                    // Of elements, two tables of terms are folded one after the other.
                    Some(&(_, KernelId::SampleFoldBackward))
                        if elements && kernel == KernelId::SampleFoldBackward =>
                    {
                        let before = writer(plan, step, *role).unwrap();
                        let tables = [before.bindings[0], step.bindings[0]];
                        assert_eq!(tables, [Role::ChannelTerms, Role::AffineTerms], "{what}");
                        let steps = plan.steps().iter();
                        let between = steps
                            .skip_while(|other| !std::ptr::eq(*other, before))
                            .take_while(|other| !std::ptr::eq(*other, step));
                        let mut readers = between.skip(1);
                        assert!(readers.any(|other| other.bindings[0] == *role), "{what}");
                    }
                    // It only reads what was counted for it.
                    Some(&(_, KernelId::BatchCount)) => {
                        let cumulative = step.params.flags & params::CUMULATIVE != 0;
                        assert!(cumulative && kernel == KernelId::ChannelFold, "{what}");
                    }
                    // Windows of one tensor, or its end; only the first of them may be the first.
                    Some(&(_, before)) => {
                        assert!(
                            before == kernel && (step.window.is_some() || step.spec.tail),
                            "{what}: {role} is written twice"
                        );
                    }
                }
                let saved = role.kind() == RoleKind::Saved && !forward;
                let caller = role.kind() == RoleKind::Saved && given(role);
                assert!(!saved && !caller, "{what}: {name} writes {role}");
            }
        }
    }
    let is_written = |role: Role| written.iter().any(|&(known, _)| known == role);
    let batch = [Part::Batch, Part::Estimate].contains(&part);
    let exchanged = asked.shards.is_some() && batch;
    let tracks = match norm.kind {
        NormKind::InstanceNorm => norm.track_running_stats && (part == Part::Running || !empty),
        _ => match part {
            Part::None => false,
            Part::Batch => norm.track_running_stats && plan.mode() == Mode::Train,
            Part::Estimate | Part::Running => true,
        },
    };
    let runs = !empty || exchanged;
    let counts = part == Part::Batch && plan.mode() == Mode::Train && norm.track_running_stats;
    let fused = asked.fusion.activation != Activation::None;
    let bc = norm.kind == NormKind::BcNorm;
    let flows = part == Part::Batch;
    let alone = asked.inference || asked.in_place;
    let wanted: Vec<(Role, bool)> = match forward {
        true => vec![
            (Role::Y, !empty && !asked.in_place),
            (Role::X, !empty && asked.in_place),
            (
                Role::Rows,
                !empty && asked.rows == RowSource::Computed && !elements,
            ),
            (Role::Channels, runs),
            (Role::Groups, !empty && grouped && !(elements && alone)),
            (Role::Coefficients, !empty && !elements),
            (Role::NumBatchesTracked, runs && counts),
            (Role::RunningMean, runs && tracks),
            (Role::RunningVar, runs && tracks),
            (Role::ChannelMoments, exchanged),
        ],
        false => vec![
            (Role::GradX, !empty),
            (Role::GradResidual, !empty && fused && asked.fusion.residual),
            (Role::GradBnWeight, bc && norm.bn_weight),
            (Role::GradBnBias, bc && norm.bn_bias),
            (Role::GradWeight, norm.weight),
            (Role::GradBias, norm.bias),
            (Role::GradientSums, exchanged && flows),
            (Role::ChannelGradients, !empty && flows),
        ],
    };
    for &(role, expected) in &wanted {
        assert_eq!(is_written(role), expected, "{what}: {role}");
    }
    // And nothing of the caller's besides.
    for (role, _) in written {
        let listed = wanted.iter().any(|&(known, _)| known == role);
        assert!(role.kind() == RoleKind::Scratch || listed, "{what}: {role}");
    }
}

/// A plan stops for other devices where they share statistics: what it leaves for them is written
/// before, what they send is read behind.
fn check_exchange(what: &str, plan: &Plan, asked: &Asked) {
    let (part, _) = parts(plan.norm(), plan.mode());
    let forward = plan.direction() == Direction::Forward;
    let shared = part == Part::Batch || (forward && part == Part::Estimate);
    let exchanged = asked.shards.is_some() && shared;
    assert_eq!(plan.exchange().is_some(), exchanged, "{what}");
    let Some(at) = plan.exchange() else {
        return;
    };
    let (left, got) = match forward {
        true => (Role::ChannelMoments, Role::ChannelShards),
        false => (Role::GradientSums, Role::GradientShards),
    };
    let shards = u64::from(asked.shards.unwrap().get());
    let one = plan
        .need(left)
        .unwrap_or_else(|| panic!("{what}: no {left}"));
    if let Some(all) = plan.need(got) {
        assert_eq!(all.bytes, shards * one.bytes, "{what}");
    } else {
        // Nobody has a dx.
        assert!(!forward && plan.tensor().elements() == 0, "{what}");
    }
    for (index, step) in plan.steps().iter().enumerate() {
        assert!(index < at || !step.bindings.contains(&left), "{what}");
        assert!(index >= at || !step.bindings.contains(&got), "{what}");
    }
}

/// Two kernels on tensors each way: 3 transfers forward (2 where the moments are known), 5 backward (4
/// where dx does not depend on x), one more where dx is accumulated; the residual is read once more
/// forward, and three times more backward with an activation, its gradient included.
///
/// Where elements are rows, forward is one kernel without batch statistics, 2 transfers; and backward
/// reads x and dy once more, 7 in all, where gradients are per channel.
fn check_transfers(what: &str, plan: &Plan, asked: &Asked, elements: bool) {
    if plan.tensor().elements() == 0 {
        assert_eq!(plan.tensor_bytes(), 0, "{what}");
        return;
    }
    let (norm, (part, grouped)) = (plan.norm(), parts(plan.norm(), plan.mode()));
    let mut counts: Vec<(KernelId, u64)> = Vec::new();
    let mut windowed = false;
    for step in plan.steps() {
        let count = step.bindings.iter().filter(|role| role.is_tensor()).count() as u64;
        windowed |= step.window.is_some();
        if count > 0
            && counts
                .last()
                .is_none_or(|&(last, _)| last != step.spec.kernel)
        {
            counts.push((step.spec.kernel, count));
        }
    }
    let residual = u64::from(asked.fusion.residual);
    let fused = asked.fusion.activation != Activation::None;
    let of_batch = [Part::Batch, Part::Estimate].contains(&part);
    // In place, one binding is read and written.
    let (expected, reread) = match plan.direction() {
        Direction::Forward => {
            let reads = of_batch || (grouped && !elements);
            let reads = reads && asked.rows == RowSource::Computed;
            let in_place = u64::from(asked.in_place);
            let moments = reads.then_some(1);
            let map = 2 - in_place + residual;
            (
                moments.into_iter().chain([map]).collect::<Vec<_>>(),
                in_place,
            )
        }
        Direction::Backward if elements => {
            let per_channel = norm.kind != NormKind::BcNorm || norm.per_channel_affine;
            let channel_part =
                part == Part::Batch || (part != Part::None && (norm.bn_weight || norm.bn_bias));
            let terms = channel_part || (per_channel && (norm.weight || norm.bias));
            let accumulated = u64::from(asked.write == Write::Accumulate);
            let terms = terms.then_some(2);
            (
                [2].into_iter().chain(terms).chain([3]).collect(),
                accumulated,
            )
        }
        Direction::Backward => {
            let residual = residual * u64::from(fused);
            let accumulated = u64::from(asked.write == Write::Accumulate);
            // dx is dy times a constant where nothing depends on x.
            let reads = grouped || fused || part == Part::Batch;
            let map = 2 + u64::from(reads) + 2 * residual;
            (vec![2 + residual, map], accumulated)
        }
    };
    let found: Vec<u64> = counts.iter().map(|&(_, count)| count).collect();
    assert_eq!(found, expected, "{what}");
    let transfers = expected.iter().sum::<u64>() + reread;
    let least = transfers * plan.tensor().bytes();
    if windowed {
        // Windows overlap at their edges.
        assert!(plan.tensor_bytes() >= least, "{what}");
    } else {
        assert_eq!(plan.tensor_bytes(), least, "{what}");
    }
}

/// What no tuning makes possible is refused, and says what is too much.
#[test]
fn what_cannot_be_bounded_is_refused() {
    use Mode::{Eval, Train};
    let bc = NormDesc::bc_norm;
    let instance = NormDesc::instance_norm(2).with_track_running_stats(true);
    for (_, tuning) in tunings() {
        for (dims, norm, mode, value) in [
            (&[1, 1 << 23, 2][..], bc(1 << 23, 1), Eval, 1 << 23),
            (&[1, 1 << 23], bc(1 << 23, 1), Eval, 1 << 23),
            (&[3, 21_474_836, 33], bc(21_474_836, 4), Eval, 5_368_709),
            (&[1 << 31, 1], bc(1, 1), Eval, 1 << 32),
            (&[1 << 30, 2], bc(2, 2), Eval, 1 << 32),
            (&[1, 1 << 31], bc(1 << 31, 1 << 31), Eval, 1 << 32),
            (
                &[1, 1 << 23, 1],
                NormDesc::layer_norm(1 << 23),
                Train,
                1 << 23,
            ),
            (&[1 << 25, 2, 2], instance, Train, 1 << 25),
            (&[1 << 31, 1, 2], NormDesc::batch_norm(1), Train, 1 << 32),
            (&[2, 2, 1 << 30], NormDesc::layer_norm(2), Train, 1 << 31),
        ] {
            let tensor = TensorDesc::new(dims).unwrap();
            for layout in [Layout::ChannelsFirst, Layout::ChannelsLast] {
                let tensor = tensor.clone().with_layout(layout);
                let result = plans(&norm, &tensor, mode, Asked::default(), &tuning);
                if !is_beyond(&norm, &tensor, mode, Asked::default(), &tuning) {
                    // 2^31 values are behind one mean, or elements are rows.
                    let elements = || is_of_elements(&result.unwrap()[0].0);
                    assert!(value == 1 << 31 || elements(), "{dims:?}");
                    continue;
                }
                let error = result.unwrap_err();
                let Error::Limit {
                    value: found,
                    limit,
                    ..
                } = error
                else {
                    panic!("{dims:?}: {error}");
                };
                assert!(found == value && found > limit, "{dims:?}: {error}");
            }
        }
    }
}

#[test]
fn an_empty_batch_writes_only_gradients() {
    let known: HashSet<Spec> = canonical_specs().into_iter().collect();
    for dims in [&[0, 4, 3][..], &[2, 4, 0], &[0, 4, 0], &[0, 1, 7]] {
        for (norm, mode) in norms(dims[1], dims[1].div_ceil(2)) {
            for (dtype, layout) in storages() {
                let tensor = TensorDesc::new(dims).unwrap();
                let tensor = tensor.with_dtype(dtype).with_layout(layout);
                for (name, tuning) in tunings() {
                    for asked in Asked::all() {
                        let in_place = asked.in_place && mode == Mode::Eval;
                        let asked = Asked { in_place, ..asked };
                        let what = format!("{dims:?} {norm:?} {mode:?} {name} {asked:?}");
                        check_empty(&what, &norm, &tensor, mode, asked, &tuning, &known);
                    }
                }
            }
        }
    }
}

fn check_empty(
    what: &str,
    norm: &NormDesc,
    tensor: &TensorDesc,
    mode: Mode,
    asked: Asked,
    tuning: &Tuning,
    known: &HashSet<Spec>,
) {
    let plans = plans(norm, tensor, mode, asked, tuning).unwrap();
    let (part, _) = parts(norm, mode);
    let forward = &plans[0].0;
    if forward.exchange().is_none() {
        assert!(
            forward.steps().is_empty() && forward.needs().is_empty(),
            "{what}"
        );
    }
    let bc = norm.kind == NormKind::BcNorm;
    let parameters = norm.weight || norm.bias || (bc && (norm.bn_weight || norm.bn_bias));
    // Sums of nothing are a contribution to those of other devices.
    let writes = parameters || part == Part::Batch;
    for (plan, asked) in &plans {
        check_plan(what, plan, tuning, asked, known);
        if plan.direction() == Direction::Backward {
            assert_eq!(plan.steps().len(), usize::from(writes), "{what}");
        }
        for step in plan.steps() {
            if plan.direction() == Direction::Backward {
                assert_eq!(step.spec.kernel, KernelId::ChannelFoldBackward, "{what}");
                assert_eq!(step.params.entries, 0, "{what}");
                let tree = u64::from(step.spec.lanes.ilog2());
                assert_eq!(work::iterations(step), tree, "{what}");
            }
        }
    }
}
