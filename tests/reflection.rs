//! The two sides of everything that is written twice: kernels' declarations against what naga reads
//! from their WGSL, structs against their layout, files against lists, plans against the loops and
//! indices of the kernels that run them. And what naga does not check: barriers in uniform control
//! flow, loads in the arms of `select`. Needs no GPU.
#![allow(missing_docs)]

#[path = "common/uniformity.rs"]
mod uniformity;
#[path = "common/work.rs"]
mod work;

use bcnorm::desc::CHANNEL_EPS;
use bcnorm::kernels::{Access, Element, KernelId, Spec, wgsl};
use bcnorm::params::{self, Params};
use bcnorm::plan::{Direction, Step};
use bcnorm::role::RoleKind;
use bcnorm::tables::{Affine, AffineBackward, Channel, GradientPair, Group, Moments, Products};
use bcnorm::{BackwardOptions, BcNormDesc, ChannelStats, Error, Mode, Plan, Role, TensorDesc};
use bcnorm::{Tuning, Write};
use naga::valid::{Capabilities, GlobalUse, ModuleInfo, ValidationFlags, Validator};
use naga::{
    AddressSpace, Expression, Literal, Module, Scalar, StorageAccess, TypeInner, VectorSize,
};
use std::collections::BTreeSet;
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

/// Every specialization that plans are made of, and more.
fn specs() -> Vec<Spec> {
    let mut specs = Vec::new();
    for &kernel in KernelId::ALL {
        for lanes in [1, 8, 64, 256] {
            let mut sizes = vec![lanes, lanes.max(64), 256];
            if lanes <= 8 {
                sizes.push(24);
            }
            sizes.dedup();
            for workgroup_size in sizes {
                for (width, aligned) in [(1, true), (4, true), (4, false)] {
                    for accumulate in [false, true] {
                        specs.push(Spec {
                            kernel,
                            workgroup_size,
                            lanes,
                            width,
                            aligned,
                            accumulate,
                            fence: accumulate,
                        });
                    }
                }
            }
        }
    }
    specs
}

/// Parses and validates with no capability beyond what WebGPU's core has.
fn reflect(spec: &Spec) -> (Module, ModuleInfo) {
    let text = wgsl(spec);
    let module = naga::front::wgsl::parse_str(&text)
        .unwrap_or_else(|error| panic!("{spec:?}: {}", error.emit_to_string(&text)));
    let info = Validator::new(ValidationFlags::all(), Capabilities::empty())
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
        let mut bound = vec![None; kernel.bindings.len()];
        let mut workgroup_memory = 0;
        for (handle, global) in module.global_variables.iter() {
            let name = global.name.as_deref().unwrap_or_default();
            let what = format!("{} {name}, {spec:?}", kernel.name);
            let Some(binding) = &global.binding else {
                // Pipelines turn the zeroing of workgroup memory off: nothing private may stay.
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
            let index = binding.binding as usize - 1;
            let declared = kernel
                .bindings
                .get(index)
                .unwrap_or_else(|| panic!("{what}: undeclared"));
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
            check_element(&module, global.ty, declared.element, &spec, &what);
            assert!(bound[index].replace(()).is_none(), "{what}: bound twice");
        }
        for (bound, declared) in bound.iter().zip(kernel.bindings) {
            assert!(
                bound.is_some(),
                "{} lacks {}, {spec:?}",
                kernel.name,
                declared.name
            );
        }

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
        let asked = if spec.lanes > 1 {
            24 * spec.workgroup_size
        } else {
            0
        };
        assert!(
            workgroup_memory <= asked,
            "{spec:?}: {workgroup_memory} > {asked}"
        );
    }
}

/// A binding is a run-time array of the element that the kernel declares.
fn check_element(
    module: &Module,
    ty: naga::Handle<naga::Type>,
    element: Element,
    spec: &Spec,
    what: &str,
) {
    let TypeInner::Array { base, size, stride } = module.types[ty].inner else {
        panic!("{what}: {:?} is no array", module.types[ty]);
    };
    assert_eq!(size, naga::ArraySize::Dynamic, "{what}");
    assert_eq!(u64::from(stride), element.bytes(spec.width), "{what}");
    let base = &module.types[base];
    match element {
        Element::Word if spec.width == 4 => assert_eq!(
            base.inner,
            TypeInner::Vector {
                size: VectorSize::Quad,
                scalar: Scalar::F32
            },
            "{what}"
        ),
        Element::Word | Element::F32 => {
            assert_eq!(base.inner, TypeInner::Scalar(Scalar::F32), "{what}")
        }
        Element::U32 => assert_eq!(base.inner, TypeInner::Scalar(Scalar::U32), "{what}"),
        Element::Struct { name, size } => {
            assert_eq!(base.name.as_deref(), Some(name), "{what}");
            let TypeInner::Struct { span, .. } = base.inner else {
                panic!("{what}: {base:?} is no struct");
            };
            assert_eq!(span, size, "{what}");
        }
        other => panic!("{what}: {other:?} is not known here"),
    }
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
        width: 4,
        aligned: false,
        accumulate: false,
        fence: true,
    }
}

#[test]
fn texts_ask_for_no_feature() {
    for spec in specs() {
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

/// (name, offset, scalar) of every field but `_pad`, and the struct's size. Does not compile where a
/// field is missing.
macro_rules! layout {
    ($name:ident { $($field:ident),* $(,)? } $(, $pad:ident)?) => {{
        let value = $name::default();
        let $name { $($field: _,)* $($pad: _,)? } = value;
        let fields = vec![$((stringify!($field), std::mem::offset_of!($name, $field), scalar(&value.$field))),*];
        (stringify!($name), fields, size_of::<$name>())
    }};
}

type Layout = (&'static str, Vec<(&'static str, usize, Scalar)>, usize);

fn layouts() -> Vec<Layout> {
    vec![
        layout!(Params {
            num_samples,
            num_channels,
            num_groups,
            row_len,
            items,
            parts,
            words_per_part,
            num_words,
            entries,
            entries_per_segment,
            columns,
            flags,
            eps,
            channel_eps,
            momentum,
            zero
        }),
        layout!(Moments {
            count,
            pivot,
            offset,
            m2
        }),
        layout!(
            Channel {
                mean_pivot,
                mean_offset,
                rstd,
                scale,
                scale_low,
                bias
            },
            _pad
        ),
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
    let fields = fields.filter(|(name, _, _)| !name.starts_with("pad"));
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
    let in_files = parts.iter().map(|text| text.matches("\nstruct ").count());
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
    assert_eq!(constant("TRAINING"), params::TRAINING);
    assert_eq!(constant("ESTIMATE"), params::ESTIMATE);
    assert_eq!(constant("CUMULATIVE"), params::CUMULATIVE);
    assert_eq!(constant("ACCUMULATE_PARAMETERS"), params::ACCUMULATE);
    let flags = [
        params::TRAINING,
        params::ESTIMATE,
        params::CUMULATIVE,
        params::ACCUMULATE,
    ];
    let all = flags.iter().fold(0, |all, flag| all | flag);
    assert_eq!(all.count_ones(), 4, "the flags share bits");
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
        assert!(wgsl(&spec(*kernel, 8)).ends_with(text.as_str()), "{name}");
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
        assert!(
            texts.iter().any(|whole| whole.contains(&text)),
            "no kernel has the part {name}"
        );
    }
}

#[test]
fn every_kernel_has_a_mirror() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/stages");
    let files = files(&folder, "rs");
    for &kernel in KernelId::ALL {
        let opening = format!("\npub fn {}(", kernel.name());
        let found: usize = files
            .iter()
            .map(|(_, text)| text.matches(&opening).count())
            .sum();
        assert_eq!(found, 1, "mirrors of {}", kernel.name());
    }
}

// ---------------------------------------------------------------------------------------------
// Plans

/// The tunings that the library brings, and some that ask for the utmost.
fn tunings() -> Vec<(&'static str, Tuning)> {
    let greedy = Tuning {
        max_words_per_lane: 195_000,
        min_invocations: 1,
        entries_per_lane: u32::MAX,
        samples_per_segment: u32::MAX,
        ..Tuning::SOFTWARE
    };
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
        ..Tuning::GPU
    };
    // Workgroups that are no power of two, and too few lanes for large folds.
    let odd = Tuning {
        workgroup_size: 24,
        reduce_lanes: 8,
        map_lanes: 4,
        fold_workgroup_size: 12,
        fold_lanes: 4,
        entries_per_lane: 100_000,
        samples_per_segment: 200_000,
        ..Tuning::GPU
    };
    // Whatever a lane's share, it must be at least a word and an entry.
    let zeros = Tuning {
        words_per_lane: 0,
        min_invocations: 0,
        entries_per_lane: 0,
        samples_per_segment: 0,
        ..Tuning::GPU
    };
    vec![
        ("GPU", Tuning::GPU),
        ("SOFTWARE", Tuning::SOFTWARE),
        ("CPU", Tuning::CPU),
        ("greedy", greedy),
        ("splitting", splitting),
        ("odd", odd),
        ("zeros", zeros),
    ]
}

fn norms(channels: usize, groups: usize) -> Vec<(BcNormDesc, Mode)> {
    let norm = BcNormDesc::new(channels, groups);
    let cumulative = norm.with_stats(ChannelStats::Batch { momentum: None });
    let estimate = norm.with_stats(ChannelStats::Estimate { moving_speed: 0.25 });
    vec![
        (norm, Mode::Train),
        (cumulative, Mode::Train),
        (estimate, Mode::Train),
        (norm, Mode::Eval),
        (estimate.with_eps(0.5), Mode::Eval),
    ]
}

/// Forward, and backward with both ways to write.
fn plans(
    norm: &BcNormDesc,
    tensor: &TensorDesc,
    mode: Mode,
    tuning: &Tuning,
) -> Result<Vec<Plan>, Error> {
    let replace = BackwardOptions::default();
    let accumulate = BackwardOptions {
        x: Write::Accumulate,
        parameters: Write::Accumulate,
    };
    Ok(vec![
        Plan::forward(norm, tensor, mode, tuning)?,
        Plan::backward(norm, tensor, mode, replace, tuning)?,
        Plan::backward(norm, tensor, mode, accumulate, tuning)?,
    ])
}

/// The tunings that a caller made up may be refused where 256 lanes of 65,000 iterations are too few
/// for the fold that they ask for: of all samples at once (the channel fold reads its table twice),
/// or of parts of 3 words. The library's own may not.
fn may_refuse(tuning: &str, tensor: &TensorDesc) -> bool {
    match tuning {
        "greedy" => tensor.num_samples() > 256 * 65_000 / 2,
        "splitting" => tensor.row_len() > 256 * 65_000 * 3,
        _ => false,
    }
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
];

/// As large as tensors get: 2^31 elements.
const EXTREMES: &[(&[usize], usize)] = &[
    (&[1 << 30, 2], 1),
    (&[(1 << 31) - 1, 1], 1),
    (&[1, 1, 1 << 31], 1),
    (&[1, 1, (1 << 31) - 1], 1),
    (&[2, 1, (1 << 30) - 1], 1),
    (&[1, 3, 715_827_882], 1),
    (&[2, 2, (1 << 29) - 2], 2),
    (&[46_340, 46_340], 46_340),
    (&[46_337, 46_337], 46_337),
    (&[1 << 20, 2048], 32),
    (&[1 << 20, 512, 3], 1),
    (&[2048, 1 << 20], 1 << 10),
    (&[1, 1 << 31], 1 << 30),
    (&[1, 1 << 31], 1 << 15),
    (&[1, 1 << 20, 1 << 11], 1),
    (&[400_000_000, 1, 5], 1),
    (&[85_899_345, 5, 5], 5),
    (&[3, 21_474_836, 33], 10_737_418),
];

fn for_every_plan(shapes: &[(&[usize], usize)], mut check: impl FnMut(&str, &Plan, &Tuning)) {
    let mut seen = 0;
    for &(dims, groups) in shapes {
        let tensor = TensorDesc::new(dims).unwrap();
        for (tuning_name, tuning) in tunings() {
            for (norm, mode) in norms(dims[1], groups) {
                let values = u64::from(tensor.num_samples()) * u64::from(tensor.row_len());
                if norm.validate_for(&tensor, mode).is_err() {
                    assert_eq!(values, 1, "{dims:?}");
                    continue;
                }
                let what = format!(
                    "{dims:?} G={groups} {:?} {mode:?} {tuning_name}",
                    norm.stats
                );
                let plans = match plans(&norm, &tensor, mode, &tuning) {
                    Ok(plans) => plans,
                    Err(Error::Limit { .. }) if may_refuse(tuning_name, &tensor) => continue,
                    Err(error) => panic!("{what}: {error}"),
                };
                for plan in &plans {
                    check(&format!("{what} {:?}", plan.direction()), plan, &tuning);
                    seen += 1;
                }
            }
        }
    }
    assert!(seen > shapes.len() * 3 * 3, "most plans were refused");
}

#[test]
fn no_invocation_loops_too_often() {
    let mut most = 0;
    let mut check = |what: &str, plan: &Plan, _: &Tuning| {
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
    for_every_plan(SHAPES, &mut check);
    for_every_plan(EXTREMES, &mut check);
    // The test sees plans that come close.
    assert!(most > MAX_ITERATIONS / 2, "{most}");
}

/// `work::loops` against the WGSL.
#[test]
fn loops_are_counted() {
    fn count(module: &Module, block: &naga::Block) -> u64 {
        let mut loops = 0;
        for statement in block {
            loops += match statement {
                naga::Statement::Block(block) => count(module, block),
                naga::Statement::If { accept, reject, .. } => {
                    count(module, accept) + count(module, reject)
                }
                naga::Statement::Switch { cases, .. } => {
                    cases.iter().map(|case| count(module, &case.body)).sum()
                }
                naga::Statement::Loop {
                    body, continuing, ..
                } => {
                    let inside = count(module, body) + count(module, continuing);
                    assert_eq!(inside, 0, "a loop within a loop: multiply its iterations");
                    1
                }
                naga::Statement::Call { function, .. } => {
                    count(module, &module.functions[*function].body)
                }
                _ => 0,
            };
        }
        loops
    }
    for spec in specs() {
        let (module, _) = reflect(&spec);
        let found = count(&module, &module.entry_points[0].function.body);
        let (own, reductions) = work::loops(spec.kernel);
        let reductions = if spec.lanes > 1 { reductions } else { 0 };
        assert_eq!(found, own + reductions, "{spec:?}");
    }
}

#[test]
fn steps_fit_their_kernels() {
    let mut check = |what: &str, plan: &Plan, tuning: &Tuning| {
        for step in plan.steps() {
            let what = format!("{what}: {}", step.spec.kernel.name());
            check_spec(&what, step, plan, tuning);
            check_dispatch(&what, step, tuning);
            check_params(&what, step, plan);
            check_split(&what, step);
        }
        check_needs(what, plan);
        check_dataflow(what, plan);
        check_transfers(what, plan);
    };
    for_every_plan(SHAPES, &mut check);
    for_every_plan(EXTREMES, &mut check);
}

fn check_spec(what: &str, step: &Step, plan: &Plan, tuning: &Tuning) {
    let spec = &step.spec;
    let kernel = spec.kernel.kernel();
    assert_eq!(step.bindings.len(), kernel.bindings.len(), "{what}");
    assert!(spec.lanes.is_power_of_two(), "{what}: {spec:?}");
    assert_eq!(spec.workgroup_size % spec.lanes, 0, "{what}: {spec:?}");
    assert!(
        spec.workgroup_size <= MAX_WORKGROUP_SIZE,
        "{what}: {spec:?}"
    );
    let tensor = kernel
        .bindings
        .iter()
        .any(|binding| binding.element == Element::Word);
    assert_eq!(spec.fence, tensor && tuning.fence, "{what}: {spec:?}");
    if tensor {
        assert!([1, 4].contains(&spec.width), "{what}: {spec:?}");
        let row_len = plan.tensor().row_len();
        assert_eq!(
            spec.aligned,
            row_len.is_multiple_of(spec.width),
            "{what}: {spec:?}"
        );
        let words = u64::from(step.params.num_words);
        assert_eq!(
            words * u64::from(spec.width),
            plan.tensor().elements(),
            "{what}"
        );
        // A word may lie in two rows, no more.
        assert!(row_len >= spec.width, "{what}: {spec:?}");
    }
    assert!(
        !spec.accumulate || spec.kernel == KernelId::RowAffineBackward,
        "{what}: {spec:?}"
    );
    // A binding has the name of the buffer, but where a table stands in for one that is folded.
    for (role, binding) in step.bindings.iter().zip(kernel.bindings) {
        let same = role
            .name()
            .replace('.', "_")
            .replace("bn_running", "running");
        let same = same.replace("bn_num_batches", "num_batches");
        let stand_in = matches!(
            (binding.name, role),
            ("row_parts", Role::Rows)
                | ("channel_parts", Role::Rows)
                | ("product_parts", Role::Products)
                | ("gradient_parts", Role::GradientTerms)
        );
        assert!(
            same == binding.name || stand_in,
            "{what}: {role} bound to {}",
            binding.name
        );
    }
}

fn check_dispatch(what: &str, step: &Step, tuning: &Tuning) {
    let [x, y] = step.workgroups.map(u64::from);
    let per_workgroup = u64::from(step.spec.workgroup_size / step.spec.lanes);
    let items = work::items(step);
    assert_eq!(u64::from(step.params.items), items, "{what}");
    assert!(items > 0, "{what}");
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
}

fn check_params(what: &str, step: &Step, plan: &Plan) {
    let (p, tensor, norm) = (&step.params, plan.tensor(), plan.norm());
    assert_eq!(p.num_samples, tensor.num_samples(), "{what}");
    assert_eq!(p.num_channels as usize, norm.num_channels, "{what}");
    assert_eq!(p.num_groups as usize, norm.num_groups, "{what}");
    assert_eq!(p.row_len, tensor.row_len(), "{what}");
    assert_eq!((p.eps, p.channel_eps), (norm.eps, CHANNEL_EPS), "{what}");
    // `rounded` hides values behind it.
    assert_eq!(p.zero, 0, "{what}");
    let training = p.flags & params::TRAINING != 0;
    assert_eq!(training, plan.mode() == Mode::Train, "{what}");
    match norm.stats {
        ChannelStats::Batch {
            momentum: Some(momentum),
        } => {
            assert_eq!(p.momentum, momentum, "{what}");
            assert_eq!(
                p.flags & (params::ESTIMATE | params::CUMULATIVE),
                0,
                "{what}"
            );
        }
        ChannelStats::Batch { momentum: None } => {
            assert_eq!(
                p.flags & (params::ESTIMATE | params::CUMULATIVE),
                params::CUMULATIVE,
                "{what}"
            );
        }
        ChannelStats::Estimate { moving_speed } => {
            assert_eq!(p.momentum, moving_speed, "{what}");
            assert_eq!(
                p.flags & (params::ESTIMATE | params::CUMULATIVE),
                params::ESTIMATE,
                "{what}"
            );
        }
        other => panic!("{other:?} is not known here"),
    }
    let (channels, both) = (p.num_channels, p.num_channels + p.num_groups);
    let columns = match step.spec.kernel {
        KernelId::SampleFold | KernelId::ChannelFold => Some(channels),
        KernelId::SampleFoldBackward
        | KernelId::GroupFoldBackward
        | KernelId::ChannelFoldBackward
        | KernelId::RowCoefficientsBackward => Some(both),
        _ => None,
    };
    if let Some(columns) = columns {
        assert_eq!(p.columns, columns, "{what}");
    }
    // What the folds over samples read: all of them, none in eval, or what a fold before left.
    let kernel = step.spec.kernel;
    if [KernelId::SampleFold, KernelId::SampleFoldBackward].contains(&kernel) {
        assert_eq!(p.entries, p.num_samples, "{what}");
        assert!(p.entries_per_segment >= 1, "{what}");
    }
    if [KernelId::ChannelFold, KernelId::ChannelFoldBackward].contains(&kernel) {
        let before = plan.steps().iter().find(|step| {
            [KernelId::SampleFold, KernelId::SampleFoldBackward].contains(&step.spec.kernel)
        });
        let all = match before {
            Some(fold) => p.num_samples.div_ceil(fold.params.entries_per_segment),
            None => p.num_samples,
        };
        let eval = kernel == KernelId::ChannelFold && plan.mode() == Mode::Eval;
        assert_eq!(p.entries, if eval { 0 } else { all }, "{what}");
    }
}

/// The parts of a row cover it, and no index leaves u32. In u64, as span.wgsl and row_affine.wgsl
/// compute.
fn check_split(what: &str, step: &Step) {
    let (p, spec) = (&step.params, &step.spec);
    let wide = u64::from;
    let (len, width, lanes) = (wide(p.row_len), wide(spec.width), wide(spec.lanes));
    let covered = wide(p.parts) * wide(p.words_per_part);
    let rows = wide(p.num_samples) * wide(p.num_channels);
    // The rows' begins within a word repeat after `width` rows.
    let sample = (0..rows.min(5)).chain(rows.saturating_sub(5)..rows);
    for row in sample {
        let (begin, end) = (row * len, (row + 1) * len);
        match spec.kernel {
            KernelId::RowMoments | KernelId::RowProducts => {
                let last = begin / width + covered;
                assert!(last * width >= end, "{what}: row {row} is cut short");
                // `loose_word` reaches CHUNK * LANES words behind the span.
                let highest = (last + 4 * lanes + 1) * width;
                assert!(highest <= wide(u32::MAX), "{what}: word {highest}");
            }
            KernelId::RowAffine | KernelId::RowAffineBackward => {
                let last = begin.div_ceil(width) + covered;
                assert!(last >= end / width, "{what}: row {row} is cut short");
                assert!(last + 4 * lanes <= wide(u32::MAX), "{what}: word {last}");
                // A last word that reaches into the next row needs one.
                assert!(end % width == 0 || row + 1 < rows, "{what}: row {row}");
            }
            _ => {}
        }
    }
    for entries in work::entries(step) {
        assert!(entries <= 1 << 32, "{what}: {entries} entries");
    }
}

/// Needs are exactly what the steps touch.
fn check_needs(what: &str, plan: &Plan) {
    let mut roles = BTreeSet::new();
    for need in plan.needs() {
        assert!(roles.insert(need.role), "{what}: {} twice", need.role);
        let (mut bytes, mut written) = (0, false);
        for step in plan.steps() {
            let bindings = step.bindings.iter().zip(step.spec.kernel.kernel().bindings);
            for ((&role, declared), entries) in bindings.zip(work::entries(step)) {
                if role == need.role {
                    bytes = bytes.max(entries * declared.element.bytes(step.spec.width));
                    written |= declared.access == Access::ReadWrite;
                }
            }
        }
        assert_eq!(need.bytes, bytes, "{what}: {}", need.role);
        assert_eq!(
            need.access == Access::ReadWrite,
            written,
            "{what}: {}",
            need.role
        );
    }
    for role in plan.steps().iter().flat_map(|step| &step.bindings) {
        assert!(
            roles.contains(role),
            "{what}: {role} is not among the needs"
        );
    }
}

/// A table is read after it was written, by this plan or, if saved, by forward; and written once.
fn check_dataflow(what: &str, plan: &Plan) {
    let mut written = BTreeSet::new();
    for step in plan.steps() {
        let name = step.spec.kernel.name();
        let bindings = || step.bindings.iter().zip(step.spec.kernel.kernel().bindings);
        for (role, declared) in bindings() {
            let saved = plan.direction() == Direction::Backward && role.kind() == RoleKind::Saved;
            if declared.access == Access::Read && role.kind() != RoleKind::Caller && !saved {
                assert!(
                    written.contains(role),
                    "{what}: {name} reads {role}, which nobody wrote"
                );
            }
        }
        for (role, declared) in bindings() {
            if declared.access == Access::ReadWrite {
                let first = written.insert(*role);
                assert!(first, "{what}: {role} is written twice");
                let saved =
                    plan.direction() == Direction::Backward && role.kind() == RoleKind::Saved;
                assert!(!saved, "{what}: backward writes {role}");
            }
        }
    }
    let outputs: &[Role] = match plan.direction() {
        Direction::Forward => &[Role::Y, Role::Rows, Role::Channels, Role::Groups],
        Direction::Backward => &[
            Role::GradX,
            Role::GradBnWeight,
            Role::GradBnBias,
            Role::GradWeight,
            Role::GradBias,
        ],
    };
    for role in outputs {
        assert!(written.contains(role), "{what}: nobody writes {role}");
    }
    let batch = matches!(plan.norm().stats, ChannelStats::Batch { .. });
    let counts = plan.direction() == Direction::Forward && plan.mode() == Mode::Train && batch;
    assert_eq!(written.contains(&Role::NumBatchesTracked), counts, "{what}");
}

/// Two steps on tensors each way: 3 transfers forward, 5 backward, and a sixth where dx is
/// accumulated.
fn check_transfers(what: &str, plan: &Plan) {
    let tensors = |step: &Step| {
        let is_tensor =
            |role: &&Role| matches!(role, Role::X | Role::Y | Role::GradY | Role::GradX);
        step.bindings.iter().filter(is_tensor).count() as u64
    };
    let counts: Vec<u64> = plan
        .steps()
        .iter()
        .map(tensors)
        .filter(|&count| count > 0)
        .collect();
    let expected = match plan.direction() {
        Direction::Forward => [1, 2],
        Direction::Backward => [2, 3],
    };
    assert_eq!(counts, expected, "{what}");
    let accumulates = plan.steps().iter().any(|step| step.spec.accumulate);
    let transfers = expected.iter().sum::<u64>() + u64::from(accumulates);
    assert_eq!(
        plan.tensor_bytes(),
        transfers * plan.tensor().bytes(),
        "{what}"
    );
}

/// What no tuning makes possible is refused: more loop iterations than 256 lanes may run, or more
/// entries of a table than a u32 counts.
#[test]
fn what_cannot_be_bounded_is_refused() {
    for (_, tuning) in tunings() {
        for (dims, groups, value) in [
            (&[1, 1 << 23, 2][..], 1, 1 << 23),
            (&[1, 1 << 23], 1, 1 << 23),
            (&[3, 21_474_836, 33], 4, 5_368_709),
            (&[1 << 31, 1], 1, 1 << 32),
            (&[1 << 30, 2], 2, 1 << 32),
            (&[1, 1 << 31], 1 << 31, 1 << 32),
        ] {
            let tensor = TensorDesc::new(dims).unwrap();
            // Eval folds no samples forward, and takes one value per channel.
            let norm = BcNormDesc::new(dims[1], groups);
            let error = plans(&norm, &tensor, Mode::Eval, &tuning).unwrap_err();
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

#[test]
fn an_empty_batch_writes_only_gradients() {
    for dims in [&[0, 4, 3][..], &[2, 4, 0], &[0, 4, 0]] {
        let tensor = TensorDesc::new(dims).unwrap();
        for (norm, mode) in norms(4, 2) {
            for (_, tuning) in tunings() {
                let plans = plans(&norm, &tensor, mode, &tuning).unwrap();
                assert!(plans[0].steps().is_empty() && plans[0].needs().is_empty());
                for plan in &plans[1..] {
                    assert_eq!(plan.steps().len(), 1);
                    let step = &plan.steps()[0];
                    assert_eq!(step.spec.kernel, KernelId::ChannelFoldBackward);
                    assert_eq!(step.params.entries, 0);
                    check_needs("empty", plan);
                    check_dispatch("empty", step, &tuning);
                    assert_eq!(work::iterations(step), u64::from(step.spec.lanes.ilog2()));
                    assert_eq!(plan.tensor_bytes(), 0);
                }
            }
        }
    }
}
