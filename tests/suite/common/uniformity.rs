//! Barrier uniformity, which naga leaves unchecked: Tint and FXC reject a barrier in control flow
//! that may differ between the invocations of a workgroup, and Metal miscompiles it.
//!
//! The analysis walks naga's IR from an entry point through its calls. A value is *uniform* if it
//! derives from constants, uniform buffers, `workgroup_id` and `num_workgroups` alone; storage (read
//! only or not), workgroup memory, every other built-in and `workgroupUniformLoad` (risky on Metal)
//! are not. A local variable is uniform if all that is ever stored to it is, in uniform control flow.
//! Control flow is uniform until a condition that is not: inside that `if` or `switch`; in the rest
//! of a loop and its next iterations after a `break` there; in the rest of the function after a
//! `return` there. A `break if` counts as a `break`.

// Each test crate that includes this uses its own part of it.
#![allow(dead_code)]

use naga::{
    AddressSpace, Arena, Binding, Block, BuiltIn, Expression, Function, Handle, LocalVariable,
    Module, Span, Statement, TypeInner,
};
use std::collections::{BTreeSet, HashMap, HashSet};

/// What the analysis of one module found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Barriers (and `workgroupUniformLoad`s and subgroup operations) seen, each once per place in
    /// the text: a report over none proves nothing.
    pub barriers: BTreeSet<String>,
    /// Those of them that some invocations of a workgroup may not reach together.
    pub violations: BTreeSet<String>,
}

/// Analyses every entry point of a WGSL text.
///
/// # Panics
/// If the text does not parse.
pub fn analyse(source: &str) -> Report {
    let module = naga::front::wgsl::parse_str(source)
        .unwrap_or_else(|error| panic!("{}", error.emit_to_string(source)));
    let mut report = Report::default();
    for entry in &module.entry_points {
        let uniform = |argument: &naga::FunctionArgument| {
            matches!(
                argument.binding,
                Some(Binding::BuiltIn(
                    BuiltIn::WorkGroupId | BuiltIn::NumWorkGroups
                ))
            )
        };
        let differs = entry
            .function
            .arguments
            .iter()
            .map(|argument| !uniform(argument))
            .collect();
        let mut analysis = Analysis::new(&module, source, &entry.function, differs);
        analysis.run(false, &mut report);
    }
    report
}

/// Ways in which some invocations of a workgroup, but not all, may have left the path.
#[derive(Clone, Copy, Debug, Default)]
struct Left {
    by_return: bool,
    by_break: bool,
    by_continue: bool,
}

impl Left {
    fn any(self) -> bool {
        self.by_return || self.by_break || self.by_continue
    }

    fn add(&mut self, other: Left) {
        self.by_return |= other.by_return;
        self.by_break |= other.by_break;
        self.by_continue |= other.by_continue;
    }
}

/// One function, called with arguments of which `arguments` differ between invocations.
struct Analysis<'a> {
    module: &'a Module,
    source: &'a str,
    function: &'a Function,
    arguments: Vec<bool>,
    /// Locals and call results that may differ. They only grow: the walk is repeated until they do
    /// not, so that what a loop's end stores is known at its beginning.
    locals: HashSet<Handle<LocalVariable>>,
    calls: HashSet<Handle<Expression>>,
    known: HashMap<Handle<Expression>, bool>,
    result_differs: bool,
}

impl<'a> Analysis<'a> {
    fn new(
        module: &'a Module,
        source: &'a str,
        function: &'a Function,
        arguments: Vec<bool>,
    ) -> Self {
        Self {
            module,
            source,
            function,
            arguments,
            locals: HashSet::new(),
            calls: HashSet::new(),
            known: HashMap::new(),
            result_differs: false,
        }
    }

    /// Walks the function, entered in control flow that `differs` or does not, and says whether its
    /// result differs.
    fn run(&mut self, differs: bool, report: &mut Report) -> bool {
        let function = self.function;
        loop {
            let before = self.marked();
            self.known.clear();
            self.block(&function.body, differs, report);
            if self.marked() == before {
                return self.result_differs;
            }
        }
    }

    fn marked(&self) -> usize {
        let arguments = self.arguments.iter().filter(|&&differs| differs).count();
        self.locals.len() + self.calls.len() + arguments
    }

    fn block(&mut self, block: &Block, differs: bool, report: &mut Report) -> Left {
        let mut left = Left::default();
        for (statement, span) in block.span_iter() {
            let here = differs || left.any();
            match statement {
                Statement::Block(block) => left.add(self.block(block, here, report)),
                Statement::If {
                    condition,
                    accept,
                    reject,
                } => {
                    let inside = here || self.differs(*condition);
                    left.add(self.block(accept, inside, report));
                    left.add(self.block(reject, inside, report));
                }
                Statement::Switch { selector, cases } => {
                    let inside = here || self.differs(*selector);
                    for case in cases {
                        let from_case = self.block(&case.body, inside, report);
                        // Its breaks end here.
                        left.add(Left {
                            by_break: false,
                            ..from_case
                        });
                    }
                }
                Statement::Loop {
                    body,
                    continuing,
                    break_if,
                } => {
                    left.by_return |= self.repeat(body, continuing, *break_if, here, report);
                }
                Statement::Break => left.by_break |= here,
                Statement::Continue => left.by_continue |= here,
                Statement::Kill => left.by_return |= here,
                Statement::Return { value } => {
                    left.by_return |= here;
                    self.result_differs |= here || value.is_some_and(|value| self.differs(value));
                }
                Statement::Store { pointer, value }
                    if here || self.differs(*value) || self.indices_differ(*pointer) =>
                {
                    self.taint(*pointer);
                }
                Statement::Call {
                    function,
                    arguments,
                    result,
                } => {
                    let differ = arguments
                        .iter()
                        .map(|&argument| self.differs(argument))
                        .collect();
                    let callee = &self.module.functions[*function];
                    let callee_arguments = &callee.arguments;
                    let mut callee = Analysis::new(self.module, self.source, callee, differ);
                    let result_differs = callee.run(here, report);
                    // What it may have stored through a pointer is not followed.
                    for (&argument, declared) in arguments.iter().zip(callee_arguments) {
                        if let TypeInner::Pointer { .. } = self.module.types[declared.ty].inner {
                            self.taint(argument);
                        }
                    }
                    if let (Some(result), true) = (result, result_differs) {
                        self.calls.insert(*result);
                        self.known.clear();
                    }
                }
                Statement::ControlBarrier(_)
                | Statement::WorkGroupUniformLoad { .. }
                | Statement::SubgroupBallot { .. }
                | Statement::SubgroupGather { .. }
                | Statement::SubgroupCollectiveOperation { .. } => {
                    let place = self.place(span);
                    if here {
                        report.violations.insert(place.clone());
                    }
                    report.barriers.insert(place);
                }
                _ => {}
            }
        }
        left
    }

    /// A loop: whether some invocations may have returned out of it.
    fn repeat(
        &mut self,
        body: &Block,
        continuing: &Block,
        break_if: Option<Handle<Expression>>,
        here: bool,
        report: &mut Report,
    ) -> bool {
        let mut inside = here;
        loop {
            let from_body = self.block(body, inside, report);
            // Whoever continued meets the others again in the continuing block.
            let gone = from_body.by_break || from_body.by_return;
            let from_end = self.block(continuing, inside || gone, report);
            let breaks = break_if.is_some_and(|condition| self.differs(condition));
            let gone = gone || from_end.by_break || from_end.by_return || breaks;
            // The next iteration is without those who left.
            if inside || !gone {
                return from_body.by_return || from_end.by_return;
            }
            inside = true;
        }
    }

    fn place(&self, span: &Span) -> String {
        let name = self.function.name.as_deref().unwrap_or("entry point");
        let line = span.location(self.source).line_number;
        let text = self
            .source
            .lines()
            .nth(line as usize - 1)
            .unwrap_or_default();
        format!("{name}, line {line}: {}", text.trim())
    }

    /// Marks the local variable or the argument behind a pointer, if there is one.
    fn taint(&mut self, pointer: Handle<Expression>) {
        match self.function.expressions[pointer] {
            Expression::LocalVariable(local) => {
                self.locals.insert(local);
            }
            Expression::FunctionArgument(index) => self.arguments[index as usize] = true,
            Expression::Access { base, .. } | Expression::AccessIndex { base, .. } => {
                return self.taint(base);
            }
            _ => return,
        }
        self.known.clear();
    }

    /// Whether an index on the way to a variable differs.
    fn indices_differ(&mut self, pointer: Handle<Expression>) -> bool {
        match self.function.expressions[pointer] {
            Expression::Access { base, index } => self.differs(index) || self.indices_differ(base),
            Expression::AccessIndex { base, .. } => self.indices_differ(base),
            _ => false,
        }
    }

    /// Whether a value may differ between the invocations of a workgroup.
    fn differs(&mut self, expression: Handle<Expression>) -> bool {
        if let Some(&known) = self.known.get(&expression) {
            return known;
        }
        let expressions: &'a Arena<Expression> = &self.function.expressions;
        let differs = match &expressions[expression] {
            Expression::Literal(_)
            | Expression::Constant(_)
            | Expression::Override(_)
            | Expression::ZeroValue(_)
            | Expression::ArrayLength(_) => false,
            Expression::FunctionArgument(index) => self.arguments[*index as usize],
            Expression::GlobalVariable(global) => {
                self.module.global_variables[*global].space != AddressSpace::Uniform
            }
            Expression::LocalVariable(local) => self.locals.contains(local),
            Expression::CallResult(_) => self.calls.contains(&expression),
            Expression::Load { pointer } => self.differs(*pointer),
            Expression::Access { base, index } => self.any_differs(&[*base, *index]),
            Expression::AccessIndex { base, .. } => self.differs(*base),
            Expression::Splat { value, .. } => self.differs(*value),
            Expression::Swizzle { vector, .. } => self.differs(*vector),
            Expression::Compose { components, .. } => self.any_differs(components),
            Expression::Unary { expr, .. } | Expression::As { expr, .. } => self.differs(*expr),
            Expression::Binary { left, right, .. } => self.any_differs(&[*left, *right]),
            Expression::Select {
                condition,
                accept,
                reject,
            } => self.any_differs(&[*condition, *accept, *reject]),
            Expression::Relational { argument, .. } => self.differs(*argument),
            Expression::Math {
                arg,
                arg1,
                arg2,
                arg3,
                ..
            } => {
                let arguments = [Some(*arg), *arg1, *arg2, *arg3];
                let arguments: Vec<_> = arguments.into_iter().flatten().collect();
                self.any_differs(&arguments)
            }
            // Atomics, images, subgroups, workgroupUniformLoad: no safe source.
            _ => true,
        };
        self.known.insert(expression, differs);
        differs
    }

    fn any_differs(&mut self, expressions: &[Handle<Expression>]) -> bool {
        expressions
            .iter()
            .any(|&expression| self.differs(expression))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The report on an entry point with this body, and functions before it.
    fn report(functions: &str, body: &str) -> Report {
        analyse(&format!(
            "@group(0) @binding(0) var<uniform> params: vec4<u32>;
             @group(0) @binding(1) var<storage, read> input: array<u32>;
             @group(0) @binding(2) var<storage, read_write> output: array<u32>;
             var<workgroup> memory: array<u32, 64>;
             const LANES: u32 = 64u;
             {functions}
             @compute @workgroup_size(64)
             fn main(
                 @builtin(workgroup_id) workgroup: vec3<u32>,
                 @builtin(num_workgroups) num_workgroups: vec3<u32>,
                 @builtin(local_invocation_index) lane: u32,
                 @builtin(local_invocation_id) local: vec3<u32>,
                 @builtin(global_invocation_id) invocation: vec3<u32>,
             ) {{
                 {body}
             }}"
        ))
    }

    #[test]
    fn barriers_in_uniform_control_flow_pass() {
        let sync = "fn sync() { workgroupBarrier(); }";
        let bound = "fn bound(n: u32) -> u32 { if (n > 4u) { return 4u; } return n; }";
        let good = [
            ("", "workgroupBarrier();"),
            ("", "storageBarrier();"),
            ("", "if (params.x > 3u) { workgroupBarrier(); }"),
            (
                "",
                "if (workgroup.x * num_workgroups.y == 3u) { workgroupBarrier(); } else { workgroupBarrier(); }",
            ),
            ("", "if (params.x > 3u) { return; } workgroupBarrier();"),
            (
                "",
                "for (var i = LANES / 2u; i > 0u; i = i / 2u) { workgroupBarrier(); if (lane < i) { memory[lane] = memory[lane + i]; } }",
            ),
            (
                "",
                "for (var i = 0u; i < params.y; i = i + 1u) { if (i == params.z) { break; } workgroupBarrier(); }",
            ),
            // Invocations meet again behind an if, a loop, a switch, and in a continuing block.
            (
                "",
                "if (lane < 32u) { memory[lane] = 1u; } workgroupBarrier();",
            ),
            (
                "",
                "for (var i = lane; i < input[0]; i = i + 64u) { memory[lane] = i; } workgroupBarrier();",
            ),
            (
                "",
                "switch (lane) { case 3u: { break; } default: { memory[0] = 1u; } } workgroupBarrier();",
            ),
            (
                "",
                "var i = 0u; loop { if (lane == 3u) { continue; } memory[lane] = i; continuing { workgroupBarrier(); i = i + 1u; break if i > params.x; } }",
            ),
            (
                "",
                "loop { if (lane < 32u) { break; } } workgroupBarrier();",
            ),
            // A return behind the last barrier.
            (
                "",
                "workgroupBarrier(); if (lane != 0u) { return; } output[0] = memory[0];",
            ),
            (sync, "sync(); if (params.x == 0u) { sync(); }"),
            (
                bound,
                "for (var i = 0u; i < bound(params.x); i = i + 1u) { workgroupBarrier(); }",
            ),
            (
                "",
                "let n = select(params.x, max(params.y, 3u), workgroup.x > 2u); for (var i = 0u; i < n; i = i + 1u) { workgroupBarrier(); }",
            ),
            (
                "",
                "for (var i = 0u; i < arrayLength(&input); i = i + 1u) { workgroupBarrier(); }",
            ),
        ];
        for (functions, body) in good {
            let report = report(functions, body);
            assert!(!report.barriers.is_empty(), "no barrier seen in: {body}");
            assert!(
                report.violations.is_empty(),
                "{body}: {:?}",
                report.violations
            );
        }
    }

    #[test]
    fn barriers_elsewhere_are_found() {
        let sync = "fn sync() { workgroupBarrier(); }";
        let deep = "fn sync() { workgroupBarrier(); } fn outer() { sync(); }";
        let bad = [
            ("", "if (lane < 32u) { workgroupBarrier(); }"),
            ("", "if (lane < 32u) { storageBarrier(); }"),
            ("", "if (lane < 32u) { } else { workgroupBarrier(); }"),
            ("", "if (local.x == 0u) { workgroupBarrier(); }"),
            ("", "if (invocation.x < params.x) { workgroupBarrier(); }"),
            (
                "",
                "if (params.x > 2u && lane < 32u) { workgroupBarrier(); }",
            ),
            (
                "",
                "switch (lane) { case 3u: { workgroupBarrier(); } default: { } }",
            ),
            // Storage, even read-only, and workgroup memory.
            ("", "if (input[0] == 1u) { workgroupBarrier(); }"),
            ("", "if (output[0] == 1u) { workgroupBarrier(); }"),
            ("", "if (memory[0] == 1u) { workgroupBarrier(); }"),
            (
                "",
                "if (workgroupUniformLoad(&memory[0]) == 1u) { workgroupBarrier(); }",
            ),
            (
                "",
                "if (lane < 32u) { output[0] = workgroupUniformLoad(&memory[0]); }",
            ),
            // After an early return.
            ("", "if (lane < 32u) { return; } workgroupBarrier();"),
            (
                "",
                "if (invocation.x >= params.x) { return; } if (params.y > 2u) { workgroupBarrier(); }",
            ),
            (
                "",
                "for (var i = 0u; i < 4u; i = i + 1u) { if (lane == i) { return; } } workgroupBarrier();",
            ),
            (
                "",
                "switch (lane) { case 3u: { return; } default: { } } workgroupBarrier();",
            ),
            // Loops whose bound, step or end differs.
            (
                "",
                "for (var i = 0u; i < input[0]; i = i + 1u) { workgroupBarrier(); }",
            ),
            (
                "",
                "for (var i = lane; i < params.x; i = i + 64u) { workgroupBarrier(); }",
            ),
            (
                "",
                "for (var i = 0u; i < params.x; i = i + input[1]) { workgroupBarrier(); }",
            ),
            (
                "",
                "var i = 0u; loop { workgroupBarrier(); i = i + 1u; continuing { break if i > lane; } }",
            ),
            (
                "",
                "for (var i = 0u; i < params.x; i = i + 1u) { workgroupBarrier(); if (memory[i] == 0u) { break; } }",
            ),
            (
                "",
                "for (var i = 0u; i < params.x; i = i + 1u) { if (lane == i) { continue; } workgroupBarrier(); }",
            ),
            ("", "while (memory[0] > 0u) { workgroupBarrier(); }"),
            // Through variables, indices, stores under a condition and stores at the end of a loop.
            (
                "",
                "let early = lane == 3u; var flag = 1u; if (early) { flag = 0u; } if (flag == 1u) { workgroupBarrier(); }",
            ),
            (
                "",
                "var v = vec2<u32>(0u, 1u); v.x = lane; if (v.y == 1u) { workgroupBarrier(); }",
            ),
            (
                "",
                "var v = vec2<u32>(0u, 1u); v[lane] = 3u; if (v.y == 1u) { workgroupBarrier(); }",
            ),
            ("", "if (params[lane] == 1u) { workgroupBarrier(); }"),
            (
                "",
                "var go = true; for (var i = 0u; i < 9u; i = i + 1u) { if (go) { workgroupBarrier(); } go = lane > i; }",
            ),
            (
                "",
                "let n = select(params.x, lane, params.y > 2u); if (n > 1u) { workgroupBarrier(); }",
            ),
            // In functions.
            (sync, "if (lane < 32u) { sync(); }"),
            (deep, "if (lane < 32u) { outer(); }"),
            (deep, "if (lane < 32u) { return; } outer();"),
            (
                "fn sync(go: bool) { if (go) { workgroupBarrier(); } }",
                "sync(true); sync(lane > 2u);",
            ),
            (
                "fn sync(n: u32) { if (n > 3u) { return; } workgroupBarrier(); }",
                "sync(lane);",
            ),
            (
                "fn mine(v: u32) -> u32 { return v; }",
                "if (mine(lane) > 3u) { workgroupBarrier(); }",
            ),
            (
                "fn mine(v: u32) -> u32 { if (v > 3u) { return 1u; } return 2u; }",
                "if (mine(lane) > 1u) { workgroupBarrier(); }",
            ),
            (
                "fn mine() -> u32 { return memory[3]; }",
                "if (mine() > 3u) { workgroupBarrier(); }",
            ),
            (
                "fn put(p: ptr<function, u32>) { *p = memory[3]; if (*p > 1u) { workgroupBarrier(); } }",
                "var n = 3u; put(&n);",
            ),
            (
                "fn put(p: ptr<function, u32>) { *p = memory[3]; }",
                "var n = 3u; put(&n); if (n > 3u) { workgroupBarrier(); }",
            ),
        ];
        for (functions, body) in bad {
            let report = report(functions, body);
            assert!(
                !report.violations.is_empty(),
                "not found: {functions} {body}"
            );
        }
    }

    #[test]
    fn a_violation_names_its_place() {
        let report = report(
            "",
            "memory[lane] = 0u;\nif (lane < 32u) {\nworkgroupBarrier();\n}",
        );
        let violation = report.violations.first().unwrap();
        assert!(violation.starts_with("main, line "), "{violation}");
        assert!(violation.ends_with(": workgroupBarrier();"), "{violation}");
        assert_eq!(report.violations, report.barriers);
    }
}
