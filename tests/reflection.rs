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
use bcnorm::plan::{Direction, Step};
use bcnorm::role::RoleKind;
use bcnorm::tables::{
    Affine, AffineBackward, Channel, GradientPair, Group, Moments, Products, RowGradient,
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

/// (dtype, width, aligned) of a family's words; tables have none.
fn words(family: Family) -> Vec<(DType, u32, bool)> {
    use DType::{BF16, F16, F32};
    let both = |words: &[(u32, bool)]| -> Vec<(DType, u32, bool)> {
        let of = |dtype| words.iter().map(move |&(width, aligned)| (dtype, width, aligned));
        of(F16).chain(of(BF16)).collect()
    };
    let (single, halves) = match family {
        Family::RowReduce | Family::RowMap => (
            vec![(F32, 4, true), (F32, 4, false), (F32, 1, true)],
            both(&[(4, true), (4, false), (2, true), (2, false)]),
        ),
        Family::ColumnReduce => (
            vec![(F32, 4, true), (F32, 1, true)],
            both(&[(4, true), (2, true), (1, true)]),
        ),
        Family::ColumnMap => (
            vec![(F32, 4, true), (F32, 1, true)],
            both(&[(4, true), (2, true), (2, false)]),
        ),
        Family::Fold | Family::Table => (vec![(F32, 1, true)], Vec::new()),
    };
    single.into_iter().chain(halves).collect()
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
                KernelId::ChannelFoldBackward => {
                    there("channel_gradients") || !there("channels")
                }
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

/// Every specialization that plans are made of, but for the size of workgroups and the number of
/// lanes, which are 1 or 8, with or without a fence: see [`canonical`].
fn canonical_specs() -> Vec<Spec> {
    let mut specs = Vec::new();
    for &kernel in KernelId::ALL {
        let declared = kernel.kernel();
        let accumulates = declared.bindings.iter().any(|b| b.name == "grad_x");
        for (dtype, width, aligned) in words(declared.family) {
            for (activation, absent) in fusions(kernel) {
                for lanes in [1, 8] {
                    let strides = declared.family == Family::ColumnMap && !aligned;
                    if lanes > 1 && (strides || declared.family == Family::Table) {
                        continue;
                    }
                    for accumulate in [false, true] {
                        if accumulate && !accumulates {
                            continue;
                        }
                        specs.push(Spec {
                            kernel,
                            workgroup_size: 64,
                            lanes,
                            dtype,
                            width,
                            aligned,
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
    specs
}

/// The canonical specialization that stands for another.
fn canonical(spec: &Spec) -> Spec {
    let lanes = if spec.lanes == 1 { 1 } else { 8 };
    Spec {
        workgroup_size: 64,
        lanes,
        fence: lanes > 1,
        ..*spec
    }
}

/// All of these, and workgroups of every kind.
fn specs() -> Vec<Spec> {
    let mut specs = canonical_specs();
    for &kernel in KernelId::ALL {
        let family = kernel.kernel().family;
        // The widest words need most memory.
        let (dtype, width, aligned) = words(family)[0];
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
            let limit = if family == Family::ColumnReduce { 128 } else { 256 };
            for workgroup_size in sizes {
                if workgroup_size > limit || workgroup_size < lanes {
                    continue;
                }
                for &(activation, absent) in fewest.into_iter().chain(most) {
                    for fence in [false, true] {
                        specs.push(Spec {
                            kernel,
                            workgroup_size,
                            lanes,
                            dtype,
                            width,
                            aligned,
                            accumulate: fence && kernel.kernel().bindings.iter().any(|b| b.name == "grad_x"),
                            fence,
                            activation,
                            absent,
                        });
                    }
                }
            }
        }
    }
    let mut seen = HashSet::new();
    specs.retain(|spec| seen.insert(*spec));
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
            bindings.map(|binding| binding.name).collect::<BTreeSet<_>>()
        };
        let expected = names(&mut there.iter().map(|&(_, binding)| binding));
        assert_eq!(bound, expected, "{spec:?}");
        let absent = kernel.bindings.iter().filter(|b| !expected.contains(b.name));
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
        let asked = asked_memory(&spec);
        assert!(
            workgroup_memory <= asked,
            "{spec:?}: {workgroup_memory} > {asked}"
        );
    }
}

/// What `Pipelines::prepare` asks of the device, in bytes of workgroup memory.
fn asked_memory(spec: &Spec) -> u32 {
    match spec.kernel.kernel().family {
        _ if spec.lanes == 1 => 0,
        Family::ColumnReduce => 80 * spec.workgroup_size,
        _ => 24 * spec.workgroup_size,
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
            "WIDTH" => Literal::U32(spec.width),
            "ACTIVATION" => Literal::U32(activation),
            "ALIGNED" => Literal::Bool(spec.aligned),
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
        Element::Word => match (spec.dtype, spec.width) {
            (DType::F32, 4) => vector(VectorSize::Quad, Scalar::F32),
            (DType::F32, 1) => scalar(Scalar::F32),
            (DType::F16 | DType::BF16, 4) => vector(VectorSize::Bi, Scalar::U32),
            (DType::F16 | DType::BF16, 1 | 2) => scalar(Scalar::U32),
            other => panic!("{what}: {other:?} is not known here"),
        },
        Element::F32 => scalar(Scalar::F32),
        Element::U32 => scalar(Scalar::U32),
        Element::Struct { name, size } => {
            assert_eq!(base.name.as_deref(), Some(name), "{what}");
            let TypeInner::Struct { span, .. } = base.inner else {
                panic!("{what}: {base:?} is no struct");
            };
            assert_eq!(span, size, "{what}");
            return;
        }
        other => panic!("{what}: {other:?} is not known here"),
    };
    assert_eq!(base.inner, expected, "{what}");
}

// ---------------------------------------------------------------------------------------------
// What is reached

/// The names of the variables that code reads or writes which is not behind a condition that is
/// known to be false.
fn reached(module: &Module) -> BTreeSet<String> {
    fn root(function: &naga::Function, mut pointer: naga::Handle<Expression>) -> Option<naga::Handle<naga::GlobalVariable>> {
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
    fn walk(module: &Module, function: &naga::Function, block: &naga::Block, found: &mut BTreeSet<String>) {
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
                naga::Statement::If { condition, accept, reject } => {
                    let known = match function.expressions[*condition] {
                        Expression::Literal(Literal::Bool(known)) => Some(known),
                        _ => None,
                    };
                    if known != Some(false) {
                        walk(module, function, accept, found);
                    }
                    if known != Some(true) {
                        walk(module, function, reject, found);
                    }
                }
                naga::Statement::Switch { cases, .. } => {
                    cases.iter().for_each(|case| walk(module, function, &case.body, found));
                }
                naga::Statement::Loop { body, continuing, .. } => {
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
    for spec in canonical_specs() {
        let reached = reached(&reflect(&spec).0);
        let declared = spec.kernel.kernel().bindings;
        for (index, binding) in declared.iter().enumerate() {
            let there = spec.absent >> index & 1 == 0;
            // A fold over no entries reads none, and only tracked statistics are in force.
            let by_uniform = spec.kernel == KernelId::ChannelFold
                && ["channel_parts", "running_mean", "running_var"].contains(&binding.name);
            if !there && !by_uniform {
                assert!(!reached.contains(binding.name), "{}, {spec:?}", binding.name);
                absent += 1;
            }
            if there {
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
        dtype: DType::F32,
        width: 4,
        aligned: false,
        accumulate: false,
        fence: true,
        activation: Activation::None,
        absent: 0,
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
            zero
        }, _pad),
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
        let openings = ["(", "<"].map(|next| format!("\npub fn {}{next}", kernel.name()));
        let of_file = |text: &String| openings.iter().map(|o| text.matches(o).count()).sum::<usize>();
        let found: usize = files.iter().map(|(_, text)| of_file(text)).sum();
        assert_eq!(found, 1, "mirrors of {}", kernel.name());
    }
}

// ---------------------------------------------------------------------------------------------
// Plans

