//! Loads in the arms of `select`.

use super::specs::{reflect, specs};
use naga::{AddressSpace, Expression, Module};

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
