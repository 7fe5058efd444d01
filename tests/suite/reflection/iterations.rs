//! Loops: no invocation has too many iterations, and the count is what the kernels run.

use super::asked::{Asked, EXTREMES, SHAPES, for_every_plan, tunings};
use super::specs::{reflect, specs};
use crate::common::work;
use bcnorm::kernels::{Family, Spec};
use bcnorm::{Plan, Tuning};
use naga::Module;

/// llvmpipe ends an invocation behind this many loop iterations, without any error.
const MAX_ITERATIONS: u64 = 65_535;

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
                    let family = spec.kernel.kernel().family;
                    let columns = [Family::ColumnReduce, Family::ColumnMap].contains(&family);
                    assert!(
                        inside == 0 || columns,
                        "a loop within a loop: multiply its iterations"
                    );
                    1 + inside
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
        let (own, reductions) = work::loops(&spec);
        let reductions = match spec.lanes > 1 && spec.subgroup_size == 1 {
            true => reductions,
            false => 0,
        };
        assert_eq!(found, own + reductions, "{spec:?}");
    }
}
