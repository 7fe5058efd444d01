//! What a benchmark prints.

use super::Suite;
use crate::request::Request;
use crate::table::{Table, scientific, size, title, workgroups};
use bcnorm::plan;
use serde::Serialize;

/// One direction of one shape on one adapter.
#[derive(Debug, Serialize)]
pub struct Measurement {
    /// The suite that the shape is of; null of a shape given by itself.
    pub suite: Option<Suite>,
    /// What the user calls these measurements.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    pub adapter: String,
    pub backend: String,
    /// (N, C, *spatial).
    pub shape: Vec<usize>,
    pub groups: usize,
    pub dtype: &'static str,
    /// Order of the dimensions in memory.
    pub layout: &'static str,
    pub norm: &'static str,
    /// forward, backward or eval.
    pub direction: &'static str,
    /// What timed it on the device: `timestamps`, or `wall` from submission to completion.
    pub clock: &'static str,
    /// Median.
    pub ms: f64,
    /// Tensor-sized data moved.
    pub bytes: u64,
    pub gb_per_s: f64,
    pub tensor_bytes: u64,
    /// Median of the fastest copy kernel.
    pub copy_ms: f64,
    pub copy_bytes: u64,
    /// Which copy kernel was the fastest.
    pub copy_workgroup_size: u32,
    pub ratio_to_copy: f64,
    /// Median of the fastest read-only kernel.
    pub read_ms: f64,
    /// Median of the same work op by op; null where it was not timed.
    pub composition_ms: Option<f64>,
    /// Tensor-sized data that the ops move.
    pub composition_bytes: Option<u64>,
    /// Median of the library's CPU executor on all threads; null where it was not timed.
    pub cpu_ms: Option<f64>,
    /// The same on one thread.
    pub cpu_1_ms: Option<f64>,
    /// Worst error of this direction's outputs against the reference.
    pub error: f64,
    /// Every step alone, where asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
}

/// One step of a plan, timed alone.
#[derive(Debug, Serialize)]
pub struct Step {
    name: &'static str,
    ms: f64,
    workgroups: [u32; 2],
    workgroup_size: u32,
    lanes: u32,
    parts: u32,
    words_per_part: u32,
    width: u32,
}

impl Step {
    pub fn new(step: &plan::Step, ms: f64) -> Self {
        // Tables have none.
        let [parts, words_per_part] = step.params.parts().unwrap_or([0, 0]);
        Self {
            name: step.spec.kernel.name(),
            ms,
            workgroups: step.workgroups,
            workgroup_size: step.spec.workgroup_size,
            lanes: step.spec.lanes,
            parts,
            words_per_part,
            width: step.spec.width,
        }
    }
}

pub fn table(adapter: &str, request: &Request, measured: &[Measurement]) -> String {
    let (tensor, groups) = (&request.tensor, request.norm.num_groups);
    let heading = format!(
        "{}, {groups} groups, {} {}, {}, on {adapter}",
        request.shape(),
        tensor.dtype().name(),
        tensor.layout().name(),
        size(tensor.bytes())
    );
    let mut table = Table::new(
        "direction | ms | copies | GB/s | moved | op by op | CPU ms | 1 thread | error"
            .split(" | "),
    );
    let or_none = |ms: Option<f64>| ms.map_or("-".into(), milliseconds);
    for one in measured {
        let composition = one.composition_ms.map_or("-".into(), |ms| {
            format!("{} ({:.1} x)", milliseconds(ms), ms / one.ms)
        });
        table.row([
            one.direction.to_owned(),
            milliseconds(one.ms),
            format!("{:.2}", one.ratio_to_copy),
            format!("{:.1}", one.gb_per_s),
            size(one.bytes),
            composition,
            or_none(one.cpu_ms),
            or_none(one.cpu_1_ms),
            scientific(one.error),
        ]);
    }
    if let Some(first) = measured.first() {
        let copy = format!("copy (workgroups of {})", first.copy_workgroup_size);
        let read = ("read".to_owned(), first.read_ms, first.tensor_bytes);
        for (what, ms, bytes) in [(copy, first.copy_ms, first.copy_bytes), read] {
            let mut row = vec![
                what,
                milliseconds(ms),
                format!("{:.2}", ms / first.copy_ms),
                format!("{:.1}", bytes as f64 / ms / 1e6),
                size(bytes),
            ];
            row.resize(9, "-".into());
            table.row(row);
        }
    }
    let steps = measured.iter().filter(|one| !one.steps.is_empty());
    let steps: String = steps.map(|one| format!("\n{}", steps_of(one))).collect();
    format!("{}\n{table}{steps}\n", title(heading))
}

fn steps_of(measured: &Measurement) -> Table {
    let headings = "ms | copies | share | workgroups | of | lanes | parts | words a part";
    let mut table = Table::new(
        [measured.direction]
            .into_iter()
            .chain(headings.split(" | ")),
    );
    let sum: f64 = measured.steps.iter().map(|step| step.ms).sum();
    for step in &measured.steps {
        table.row([
            step.name.to_owned(),
            milliseconds(step.ms),
            format!("{:.2}", step.ms / measured.copy_ms),
            format!("{:.0} %", 100.0 * step.ms / sum),
            workgroups(step.workgroups),
            step.workgroup_size.to_string(),
            step.lanes.to_string(),
            step.parts.to_string(),
            step.words_per_part.to_string(),
        ]);
    }
    table.row(["sum of the steps", &milliseconds(sum)]);
    table
}

/// Three digits that count.
fn milliseconds(ms: f64) -> String {
    let digits = match ms {
        100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        _ => 4,
    };
    format!("{ms:.digits$}")
}
