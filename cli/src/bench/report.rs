//! What a benchmark prints.

use super::shape::Shape;
use crate::table::{Table, scientific, title};
use anyhow::Result;
use bcnorm::plan;
use serde::Serialize;
use std::io::Write;

/// One direction of one shape on one adapter.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Measurement {
    /// The suite that the shape is of; null of a shape given by itself.
    pub suite: Option<&'static str>,
    /// The part of the suite.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub part: Option<&'static str>,
    /// Whether it is a second look at one of the worst.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
    /// Name of the adapter.
    pub adapter: String,
    /// Its backend.
    pub backend: String,
    /// (N, C, *spatial).
    pub shape: Vec<usize>,
    /// G.
    pub groups: usize,
    /// Element type.
    pub dtype: &'static str,
    /// Order of the dimensions in memory.
    pub layout: &'static str,
    /// Which normalization.
    pub norm: &'static str,
    /// forward, backward or eval.
    pub direction: &'static str,
    /// What timed it on the device: `timestamps`, or `wall` from submission to completion.
    pub clock: &'static str,
    /// Median.
    pub ms: f64,
    /// Tensor-sized data moved.
    pub bytes: u64,
    /// The same per second.
    pub gb_per_s: f64,
    /// Bytes of one tensor.
    pub tensor_bytes: u64,
    /// Median of the fastest copy kernel.
    pub copy_ms: f64,
    /// What the copy moves.
    pub copy_bytes: u64,
    /// Which copy kernel was the fastest.
    pub copy_workgroup_size: u32,
    /// `ms / copy_ms`.
    pub ratio_to_copy: f64,
    /// Median of the fastest read-only kernel; null where it was not timed.
    pub read_ms: Option<f64>,
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
#[derive(Debug, Clone, Serialize)]
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
    /// A step and its time.
    pub fn new(step: &plan::Step, ms: f64) -> Self {
        Self {
            name: step.spec.kernel.name(),
            ms,
            workgroups: step.workgroups,
            workgroup_size: step.spec.workgroup_size,
            lanes: step.spec.lanes,
            parts: step.params.parts,
            words_per_part: step.params.words_per_part,
            width: step.spec.width,
        }
    }
}

/// One JSON object a line.
pub fn write_json(measured: &[Measurement], out: &mut impl Write) -> Result<()> {
    for measurement in measured {
        writeln!(out, "{}", serde_json::to_string(measurement)?)?;
    }
    Ok(())
}

/// A table for people.
pub fn write_table(
    adapter: &str,
    shape: &Shape,
    measured: &[Measurement],
    out: &mut impl Write,
) -> Result<()> {
    writeln!(
        out,
        "{}",
        title(&format!(
            "{shape}, {} groups, {} {}, {}, on {adapter}",
            shape.norm.num_groups,
            shape.dtype.name(),
            shape.layout.name(),
            size(shape.bytes())
        ))
    )?;
    let mut table = Table::new([
        "direction",
        "ms",
        "copies",
        "GB/s",
        "moved",
        "op by op",
        "CPU ms",
        "1 thread",
        "error",
    ]);
    for measurement in measured {
        let composition = measurement.composition_ms.map_or("-".into(), |ms| {
            format!("{} ({:.1} x)", milliseconds(ms), ms / measurement.ms)
        });
        table.row([
            measurement.direction.to_owned(),
            milliseconds(measurement.ms),
            format!("{:.2}", measurement.ratio_to_copy),
            format!("{:.1}", measurement.gb_per_s),
            size(measurement.bytes),
            composition,
            milliseconds_or_none(measurement.cpu_ms),
            milliseconds_or_none(measurement.cpu_1_ms),
            scientific(measurement.error),
        ]);
    }
    if let Some(first) = measured.first() {
        let mut against = |what: String, ms: f64, bytes: u64| {
            let mut row = vec![
                what,
                milliseconds(ms),
                format!("{:.2}", ms / first.copy_ms),
                format!("{:.1}", bytes as f64 / ms / 1e6),
                size(bytes),
            ];
            row.resize(9, "-".into());
            table.row(row);
        };
        let copy = format!("copy (workgroups of {})", first.copy_workgroup_size);
        against(copy, first.copy_ms, first.copy_bytes);
        if let Some(read_ms) = first.read_ms {
            against("read".into(), read_ms, first.tensor_bytes);
        }
    }
    table.write(out)?;
    write_steps(measured, out)?;
    writeln!(out)?;
    Ok(())
}

fn write_steps(measured: &[Measurement], out: &mut impl Write) -> Result<()> {
    for measurement in measured.iter().filter(|m| !m.steps.is_empty()) {
        let mut table = Table::new([
            measurement.direction,
            "ms",
            "copies",
            "share",
            "workgroups",
            "of",
            "lanes",
            "parts",
            "words a part",
        ]);
        let sum: f64 = measurement.steps.iter().map(|step| step.ms).sum();
        for step in &measurement.steps {
            let [x, y] = step.workgroups;
            table.row([
                step.name.to_owned(),
                milliseconds(step.ms),
                format!("{:.2}", step.ms / measurement.copy_ms),
                format!("{:.0} %", 100.0 * step.ms / sum),
                if y == 1 {
                    x.to_string()
                } else {
                    format!("{x} x {y}")
                },
                step.workgroup_size.to_string(),
                step.lanes.to_string(),
                step.parts.to_string(),
                step.words_per_part.to_string(),
            ]);
        }
        table.row(["sum of the steps", &milliseconds(sum)]);
        writeln!(out)?;
        table.write(out)?;
    }
    Ok(())
}

/// A number of bytes for people.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..0x0010_0000 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)),
    }
}

fn milliseconds_or_none(ms: Option<f64>) -> String {
    ms.map_or("-".into(), milliseconds)
}

/// Three digits that count.
fn milliseconds(ms: f64) -> String {
    let digits = match ms {
        _ if ms >= 100.0 => 0,
        _ if ms >= 10.0 => 1,
        _ if ms >= 1.0 => 2,
        _ => 4,
    };
    format!("{ms:.digits$}")
}
