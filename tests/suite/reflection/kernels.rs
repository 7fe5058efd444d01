//! Kernels' declarations against what naga reads from their WGSL; barriers in uniform control flow.

use super::specs::{MAX_STORAGE_BUFFERS, MAX_WORKGROUP_MEMORY, looked_at, reflect, spec, specs};
use crate::common::{uniformity, work};
use bcnorm::kernels::{Access, BindingDecl, Element, KernelId, Spec, wgsl};
use bcnorm::{Activation, DType};
use naga::valid::GlobalUse;
use naga::{
    AddressSpace, Expression, Literal, Module, Scalar, StorageAccess, TypeInner, VectorSize,
};
use std::collections::BTreeSet;

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
