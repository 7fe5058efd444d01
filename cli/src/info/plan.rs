//! `bcnorm info --plan`: a plan step by step, and which fields of the tuning decided it.

use crate::request::{Direction, Request};
use crate::table::{Table, size, title, workgroups};
use anyhow::Result;
use bcnorm::plan::Step;
use bcnorm::{Plan, Tuning};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// A plan, explained.
#[derive(Debug, Serialize)]
pub struct Explained {
    /// For which adapter, or for the CPU executor.
    on: String,
    /// Tensors read or written, all steps together.
    transfers: f64,
    /// Bytes of that.
    tensor_bytes: u64,
    steps: Vec<ExplainedStep>,
}

#[derive(Debug, Serialize)]
struct ExplainedStep {
    kernel: &'static str,
    workgroups: [u32; 2],
    workgroup_size: u32,
    /// Invocations that share a work item.
    lanes: u32,
    /// Work items.
    items: u32,
    /// Parts of a row (of the positions, channels last); absent where no tensor is touched.
    #[serde(skip_serializing_if = "Option::is_none")]
    parts: Option<u32>,
    /// Words of a part (channels last: positions).
    #[serde(skip_serializing_if = "Option::is_none")]
    words_per_part: Option<u32>,
    /// Elements of a word.
    #[serde(skip_serializing_if = "Option::is_none")]
    width: Option<u32>,
    tensor_bytes: u64,
    /// Bytes of the parameters and tables bound.
    table_bytes: u64,
    /// Fields of the tuning that would change this step if halved or doubled (switches: flipped).
    decided_by: BTreeMap<&'static str, u64>,
}

impl Explained {
    /// Plans, and plans again with every field of the tuning changed.
    pub fn new(on: &str, request: &Request, direction: Direction, tuning: &Tuning) -> Result<Self> {
        let plan = request.plan(direction, tuning)?;
        let others = others(request, direction, tuning);
        let steps = plan.steps().iter().enumerate();
        let steps = steps.map(|(index, step)| ExplainedStep::new(&plan, index, step, &others));
        Ok(Self {
            on: on.to_owned(),
            transfers: plan.tensor_bytes() as f64 / request.tensor.bytes() as f64,
            tensor_bytes: plan.tensor_bytes(),
            steps: steps.collect(),
        })
    }
}

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (steps, transfers) = (self.steps.len(), short(self.transfers));
        let tensors = bytes(self.tensor_bytes);
        writeln!(
            f,
            "{}: {steps} steps, {transfers} transfers, {tensors} of tensors",
            title(&self.on)
        )?;
        let headings = "step | workgroups | of | lanes | items | parts | words a part | elements a word \
                        | tensors | tables";
        let mut table = Table::new(headings.split(" | "));
        let number = |value: Option<u32>| value.map_or("-".to_owned(), |value| value.to_string());
        for step in &self.steps {
            table.row([
                step.kernel.to_owned(),
                workgroups(step.workgroups),
                step.workgroup_size.to_string(),
                step.lanes.to_string(),
                step.items.to_string(),
                number(step.parts),
                number(step.words_per_part),
                number(step.width),
                bytes(step.tensor_bytes),
                bytes(step.table_bytes),
            ]);
        }
        writeln!(
            f,
            "{table}  Decided by these fields of the tuning: halved, doubled or flipped they change the step"
        )?;
        for step in &self.steps {
            let fields = step
                .decided_by
                .iter()
                .map(|(name, value)| format!("{name}={value}"));
            let fields = match step.decided_by.is_empty() {
                true => "none: its shape alone".to_owned(),
                false => fields.collect::<Vec<String>>().join(", "),
            };
            writeln!(f, "    {}: {fields}", step.kernel)?;
        }
        Ok(())
    }
}

impl ExplainedStep {
    fn new(plan: &Plan, index: usize, step: &Step, others: &[Other]) -> Self {
        let tensor = step.spec.kernel.kernel().family.is_tensor_sized();
        let parts = step.params.parts();
        let tables = step.bindings.iter().filter(|role| !role.is_tensor());
        let decided_by = others
            .iter()
            .filter(|(.., other)| differs(plan, index, other));
        Self {
            kernel: step.spec.kernel.name(),
            workgroups: step.workgroups,
            workgroup_size: step.spec.workgroup_size,
            lanes: step.spec.lanes,
            items: step.params.dispatch().items,
            parts: parts.map(|[parts, _]| parts),
            words_per_part: parts.map(|[_, words]| words),
            width: tensor.then_some(step.spec.width),
            tensor_bytes: plan.step_bytes(step),
            table_bytes: tables
                .filter_map(|role| plan.need(*role))
                .map(|need| need.bytes)
                .sum(),
            decided_by: decided_by.map(|&(name, value, _)| (name, value)).collect(),
        }
    }
}

/// A field of the tuning, its value, and the plan with that changed.
type Other = (&'static str, u64, Plan);

/// Plans with one field halved, doubled or flipped each, as far as the planner takes them.
fn others(request: &Request, direction: Direction, tuning: &Tuning) -> Vec<Other> {
    let changed = |(name, value): (&'static str, u64)| {
        let flipped = (value <= 1).then(|| 1 - value);
        let changed = [Some(value / 2), value.checked_mul(2), flipped]
            .into_iter()
            .flatten();
        changed
            .filter(move |&changed| changed != value)
            .filter_map(move |changed| {
                let mut tuning = *tuning;
                tuning.set(&format!("{name}={changed}")).ok()?;
                Some((name, value, request.plan(direction, &tuning).ok()?))
            })
    };
    tuning.settings().into_iter().flat_map(changed).collect()
}

/// Whether a step of a plan is another one in another plan: its kernel's step of the same number, if there
/// are as many.
fn differs(plan: &Plan, index: usize, other: &Plan) -> bool {
    let step = &plan.steps()[index];
    let same_kernel = |candidate: &&Step| candidate.spec.kernel == step.spec.kernel;
    let count = plan.steps().iter().filter(same_kernel).count();
    let number = plan.steps()[..index].iter().filter(same_kernel).count();
    let theirs: Vec<&Step> = other.steps().iter().filter(same_kernel).collect();
    theirs.len() != count || theirs[number] != step
}

fn short(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn bytes(bytes: u64) -> String {
    match bytes {
        0 => "-".to_owned(),
        _ => size(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bcnorm::NormKind;

    fn explained(dims: &[usize], direction: Direction, tuning: &Tuning) -> Explained {
        let request = Request::new(NormKind::BcNorm, dims, None).unwrap();
        Explained::new("here", &request, direction, tuning).unwrap()
    }

    /// The bytes of the steps are those of the plan.
    #[test]
    fn bytes_add_up() {
        let max_binding_bytes = 1 << 14;
        let windows = Tuning::SOFTWARE.with(|t| t.limits.max_binding_bytes = max_binding_bytes);
        for tuning in [Tuning::GPU, Tuning::SOFTWARE, windows] {
            for direction in Direction::ALL {
                for dims in [&[8, 64, 56, 56][..], &[3, 6, 701]] {
                    let explained = explained(dims, direction, &tuning);
                    let sum: u64 = explained.steps.iter().map(|s| s.tensor_bytes).sum();
                    assert_eq!(sum, explained.tensor_bytes);
                    assert!(explained.transfers >= 2.0);
                }
            }
        }
    }

    #[test]
    fn what_decides_is_named() {
        let plan = explained(&[8, 64, 56, 56], Direction::Forward, &Tuning::SOFTWARE);
        let step = |name| plan.steps.iter().find(|step| step.kernel == name).unwrap();
        let affine = step("row_affine");
        assert!(
            affine.decided_by.contains_key("map.workgroup_size"),
            "{affine:?}"
        );
        assert!(!affine.decided_by.contains_key("fold.workgroup_size"));
        let fold = step("channel_fold");
        assert!(fold.decided_by.contains_key("fold.workgroup_size"));
        assert!(!fold.decided_by.contains_key("columns.tile"));
        let text = plan.to_string();
        assert!(text.contains("transfers") && text.contains("    channel_fold: "));
    }

    #[test]
    fn sizes_are_short() {
        assert_eq!([bytes(0), bytes(12), bytes(1536)], ["-", "12 B", "1.5 KiB"]);
        assert_eq!(bytes(3 << 19), "1.5 MiB");
        assert_eq!([short(3.0), short(2.5)], ["3", "2.5"]);
    }
}
