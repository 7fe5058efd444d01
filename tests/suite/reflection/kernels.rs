//! Kernels' declarations against what naga reads from their WGSL; barriers in uniform control flow.

use super::specs::{MAX_STORAGE_BUFFERS, MAX_WORKGROUP_MEMORY, reflect, spec, specs};
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
        let mut workgroup_memory = 0;
        for (handle, global) in module.global_variables.iter() {
            let name = global.name.as_deref().unwrap_or_default();
            let what = format!("{} {name}, {spec:?}", kernel.name);
            let Some(binding) = &global.binding else {
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
            // (Without parameters a row's terms are none.)
            let idle = spec.kernel == KernelId::RowTermsBackward
                && spec.absent != 0
                && ["rows", "channels"].contains(&name);
            assert!(
                idle || uses[handle].contains(wanted),
                "{what}: {:?}",
                uses[handle]
            );
            check_array(&module, global.ty, declared.element, &spec, &what);
            assert!(bound.insert(name), "{what}: bound twice");
        }
        let names = |bindings: &mut dyn Iterator<Item = &'static BindingDecl>| {
            bindings
                .map(|binding| binding.name)
                .collect::<BTreeSet<_>>()
        };
        let expected = names(&mut there.iter().map(|&(_, binding)| binding));
        assert_eq!(bound, expected, "{spec:?}");
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

/// The header's constants say what the specialization says.
fn check_constants(module: &Module, spec: &Spec) {
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
            "COLUMN_WORDS" => Literal::U32(spec.column_words),
            "ACTIVATION" => Literal::U32(activation),
            "ALIGNED" => Literal::Bool(spec.aligned),
            "ACCUMULATE" => Literal::Bool(spec.accumulate),
            _ => continue,
        };
        assert_eq!(*value, Expression::Literal(expected), "{name}, {spec:?}");
    }
}

/// A binding is an array of run-time size of the element that the kernel declares.
fn check_array(
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

#[test]
fn every_kernel_but_the_counter_reads_its_uniform() {
    for &kernel in KernelId::ALL {
        let (module, info) = reflect(&spec(kernel));
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
        let (_, reductions) = work::loops(&spec);
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
