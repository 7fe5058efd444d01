//! `bcnorm section`: lines of JSON that other commands wrote, as a section of `benches/RESULTS.md`.

use crate::request::is_grouped;
use crate::text::printable;
use anyhow::{Context as _, Result, ensure};
use bcnorm::NormKind;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;

/// Arguments of `bcnorm section`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
It reads the JSON lines of bench and verify (--json), of benches/torch_bcnorm.py and of the kit's measure.sh, \
and the object of info --json on a line of its own. What was measured under a label (bench --label \
\"TITLE: COLUMN\") stands side by side in a table of its own, the first column's times being 1.

Examples:
  bcnorm bench --no-cpu --steps --json > results.jsonl
  bcnorm section results.jsonl > section.md")]
pub struct Args {
    /// Files of JSON lines
    #[arg(value_name = "FILES", required = true)]
    files: Vec<PathBuf>,
}

/// Runs `bcnorm section`.
pub fn run(args: Args) -> Result<()> {
    let mut results = Results::default();
    for file in &args.files {
        let text = std::fs::read_to_string(file);
        let text = text.with_context(|| file.display().to_string())?;
        for (number, line) in (1..).zip(text.lines()) {
            let read = results.add(line);
            read.with_context(|| format!("{}, line {number}", file.display()))?;
        }
    }
    let text = results.text();
    ensure!(!text.is_empty(), "nothing was measured in these files");
    write!(std::io::stdout(), "{}", printable(&text))?;
    Ok(())
}

/// What a line of `bench --json` says.
#[derive(Deserialize)]
struct Measured {
    adapter: String,
    backend: String,
    label: Option<String>,
    shape: Vec<usize>,
    groups: usize,
    dtype: String,
    layout: String,
    norm: String,
    direction: String,
    clock: String,
    ms: f64,
    bytes: f64,
    tensor_bytes: f64,
    copy_ms: f64,
    copy_bytes: f64,
    read_ms: f64,
    composition_ms: Option<f64>,
    #[serde(default)]
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    name: String,
    ms: f64,
}

/// What a line of `torch_bcnorm.py --json` says.
#[derive(Deserialize)]
struct Torch {
    adapter: String,
    backend: String,
    torch: String,
    shape: Vec<usize>,
    dtype: String,
    layout: String,
    direction: String,
    ms: f64,
}

/// What a line of `verify --json` says.
#[derive(Deserialize)]
struct Verified {
    adapter: String,
    backend: String,
    file: String,
    layout: String,
    pass: bool,
}

/// What a line of measure.sh says of one of its parts.
#[derive(Deserialize)]
struct Part {
    part: String,
    result: String,
    seconds: u64,
    #[serde(default)]
    note: String,
}

/// What measure.sh says of itself, and where it ran.
#[derive(Deserialize)]
struct Kit {
    version: String,
    date: String,
    system: String,
    command: String,
}

/// Everything that the files hold.
#[derive(Default)]
struct Results {
    measured: Vec<Measured>,
    torch: Vec<Torch>,
    verified: Vec<Verified>,
    parts: Vec<Part>,
    kit: Option<Kit>,
    /// Drivers by adapter and backend.
    drivers: BTreeMap<(String, String), String>,
}

impl Results {
    fn add(&mut self, line: &str) -> Result<()> {
        if line.trim().is_empty() {
            return Ok(());
        }
        let mut value: Value = serde_json::from_str(line)?;
        let has = |field| value.get(field).is_some();
        if has("torch") {
            self.torch.push(serde_json::from_value(value)?);
        } else if has("direction") {
            let one: Measured = serde_json::from_value(value)?;
            // What was measured again counts.
            self.measured.retain(|other| !other.is_again(&one));
            self.measured.push(one);
        } else if has("pass") {
            self.verified.push(serde_json::from_value(value)?);
        } else if has("part") {
            self.parts.push(serde_json::from_value(value)?);
        } else if has("kit") {
            self.kit = Some(serde_json::from_value(value["kit"].take())?);
        } else if let Some(adapters) = value["adapters"].as_array() {
            for adapter in adapters {
                let field = |name: &str| adapter[name].as_str().unwrap_or_default().to_owned();
                self.drivers
                    .insert((field("name"), field("backend")), field("driver"));
            }
        }
        // Other objects are other programs' notes.
        Ok(())
    }

    /// One section for each adapter.
    fn text(&self) -> String {
        let measured = self.measured.iter().map(|one| (&one.adapter, &one.backend));
        let verified = self.verified.iter().map(|one| (&one.adapter, &one.backend));
        let mut adapters = unique(measured.chain(verified));
        if adapters.is_empty() {
            // What did not run, and why, is worth as much.
            return self.parts_table().map_or_else(String::new, |parts| {
                format!("{}{parts}", self.origin("No adapter"))
            });
        }
        // The processor is measured beside an adapter.
        if adapters.len() > 1 {
            adapters.retain(|(_, backend)| *backend != "Cpu");
        }
        let first = adapters[0];
        let section = |adapter| self.section(adapter, adapter == first);
        let mut text: String = adapters.into_iter().map(section).collect();
        text += &self.parts_table().unwrap_or_default();
        text
    }

    /// The heading, and where and when.
    fn origin(&self, title: &str) -> String {
        let mut text = format!("## {title}\n\n");
        if let Some(kit) = &self.kit {
            let Kit {
                date,
                version,
                system,
                command,
            } = kit;
            writeln!(text, "{date}; {version}; {system}; `{command}`.").ok();
        } else {
            writeln!(text, "bcnorm {}.", env!("CARGO_PKG_VERSION")).ok();
        }
        text
    }

    fn section(&self, adapter: (&String, &String), is_first: bool) -> String {
        let (name, backend) = adapter;
        let driver = self.drivers.get(&(name.clone(), backend.clone()));
        let driver = driver.filter(|driver| !driver.is_empty());
        let driver = driver.map_or(String::new(), |driver| format!(", driver {driver}"));
        let mut text = self.origin(&format!("{name} ({backend}{driver})"));

        let verified = self.verified.iter();
        let verified = verified.filter(|one| (&one.adapter, &one.backend) == adapter);
        let verified: Vec<&Verified> = verified.collect();
        if !verified.is_empty() {
            let failed = verified.iter().filter(|one| !one.pass);
            let failed: Vec<String> = failed
                .map(|one| format!("{} ({})", one.file, one.layout))
                .collect();
            let (passed, total) = (verified.len() - failed.len(), verified.len());
            write!(
                text,
                "`bcnorm verify`: {passed} of {total} runs pass, each a golden file in one layout"
            )
            .ok();
            match failed.as_slice() {
                [] => text += ".",
                failed => {
                    let more = failed.len().saturating_sub(10);
                    let names = failed[..failed.len() - more].join(", ");
                    write!(text, "; WRONG: {names}").ok();
                    if more > 0 {
                        write!(text, " and {more} more").ok();
                    }
                    text += ".";
                }
            }
            text += "\n";
        }
        let measured = self.measured.iter();
        let measured = measured.filter(|one| (&one.adapter, &one.backend) == adapter);
        let measured: Vec<&Measured> = measured.collect();
        if measured.is_empty() {
            return text + "\n";
        }
        let wall = measured.iter().any(|one| one.clock != "timestamps");
        let clock = if wall {
            "the wall clock"
        } else {
            "the device's timestamps"
        };
        write!(
            text,
            "Every time is by {clock}, of work that was checked against f64 first.\n\n\
             Microseconds; in brackets the share of the bandwidth of the fastest copy kernel in the same run, and how \
             many times as\nlong the same work takes op by op. `copy` and `read` are of the same tensor. BCNorm and \
             group norm are in 32 groups where\nno other number is given.\n\n"
        )
        .ok();

        let unlabelled = || measured.iter().copied().filter(|one| one.label.is_none());
        for kind in unique(unlabelled().map(Measured::kind)) {
            let of_kind: Vec<&Measured> = unlabelled().filter(|one| one.kind() == kind).collect();
            text += &times(&of_kind);
        }
        text += &kernels(&unlabelled().filter(|one| one.is_main()).collect::<Vec<_>>());
        let labelled: Vec<&Measured> = measured
            .iter()
            .copied()
            .filter(|one| one.label.is_some())
            .collect();
        for title in unique(labelled.iter().map(|one| one.title_and_column().0)) {
            let of_title = labelled.iter().copied();
            let of_title = of_title.filter(|one| one.title_and_column().0 == title);
            text += &side_by_side(title, &of_title.collect::<Vec<_>>());
        }
        // Its name for the adapter is another's: where none has it, the first gets it.
        let torch = self
            .torch
            .iter()
            .filter(|one| match self.named_by_torch(one) {
                true => one.adapter == *name,
                false => is_first,
            });
        let ours: Vec<&Measured> = unlabelled().collect();
        text += &beside_torch(&torch.collect::<Vec<_>>(), &ours);
        text
    }

    /// Whether an adapter has the name that PyTorch gives.
    fn named_by_torch(&self, torch: &Torch) -> bool {
        self.measured.iter().any(|one| one.adapter == torch.adapter)
    }

    fn parts_table(&self) -> Option<String> {
        (!self.parts.is_empty()).then(|| {
            let rows = self.parts.iter().map(|part| {
                let Part {
                    part,
                    result,
                    seconds,
                    note,
                } = part;
                // A bar would end the cell.
                let note = note.replace('|', "\\|");
                format!("| {part} | {result} | {seconds} | {note} |\n")
            });
            let rows: String = rows.collect();
            format!("### What was run\n\n| part | result | seconds | |\n| --- | --- | --- | --- |\n{rows}\n")
        })
    }
}

impl Measured {
    /// Whether both are of the same work under the same name.
    fn is_again(&self, other: &Self) -> bool {
        let key = |one: &Self| {
            let names = [
                &one.adapter,
                &one.backend,
                &one.norm,
                &one.dtype,
                &one.layout,
                &one.direction,
            ];
            (
                names.map(String::clone),
                one.label.clone(),
                one.shape.clone(),
                one.groups,
            )
        };
        key(self) == key(other)
    }

    /// What shares a table.
    fn kind(&self) -> (&str, &str, &str) {
        (&self.norm, &self.dtype, &self.layout)
    }

    /// Whether it is of what everything else is compared with.
    fn is_main(&self) -> bool {
        self.kind() == ("bc_norm", "f32", "nchw")
    }

    fn title_and_column(&self) -> (&str, &str) {
        let label = self.label.as_deref().unwrap_or_default();
        label.split_once(": ").unwrap_or(("Under a name", label))
    }

    fn case(&self) -> (&[usize], usize, (&str, &str, &str)) {
        (&self.shape, self.groups, self.kind())
    }

    /// Shape, groups where they are not the usual 32, and size.
    fn name(&self) -> String {
        let mut kinds = NormKind::ALL.iter();
        let grouped = kinds.any(|&kind| kind.name() == self.norm && is_grouped(kind));
        let groups = match grouped && self.groups != 32 {
            true => format!(" in {}", self.groups),
            false => String::new(),
        };
        let size = match self.tensor_bytes / 1e6 {
            megabytes @ 9.95.. => format!("{megabytes:.0} MB"),
            megabytes @ 0.095.. => format!("{megabytes:.1} MB"),
            megabytes => format!("{:.1} kB", 1e3 * megabytes),
        };
        format!("{}{groups}, {size}", tuple(&self.shape))
    }

    /// Time, share of the copy's bandwidth, and what op by op takes.
    fn cell(&self) -> String {
        let share = (self.bytes / self.ms) / (self.copy_bytes / self.copy_ms);
        let composed = self.composition_ms;
        let composed = composed.map_or(String::new(), |ms| format!("; {:.1} x", ms / self.ms));
        format!("{} ({:.0} %{composed})", micro(self.ms), 100.0 * share)
    }
}

const DIRECTIONS: [&str; 3] = ["forward", "backward", "eval"];

/// The table of a norm, type and layout.
fn times(measured: &[&Measured]) -> String {
    let (norm, dtype, layout) = measured[0].kind();
    let layout = if layout == "nhwc" { "last" } else { "first" };
    let in_table = |direction: &&str| measured.iter().any(|one| one.direction == *direction);
    let directions: Vec<&str> = DIRECTIONS.into_iter().filter(in_table).collect();
    let mut headings = vec!["shape"];
    headings.extend(&directions);
    headings.extend(["copy", "read"]);
    let mut rows = Vec::new();
    let mut measured = measured.to_vec();
    // The largest first, as in the file that it is for.
    measured.sort_by(|one, other| other.tensor_bytes.total_cmp(&one.tensor_bytes));
    for case in unique(measured.iter().map(|one| one.case())) {
        let of_case: Vec<_> = measured.iter().filter(|one| one.case() == case).collect();
        let cell = |direction: &&str| {
            let one = of_case.iter().find(|one| one.direction == *direction);
            one.map_or("-".to_owned(), |one| one.cell())
        };
        let first = of_case[0];
        let mut row = vec![first.name()];
        row.extend(directions.iter().map(cell));
        row.extend([micro(first.copy_ms), micro(first.read_ms)]);
        rows.push(row);
    }
    let title = format!("{norm}, {dtype}, channels {layout}");
    table(&title, &headings, &rows)
}

/// Which kernel takes what, of the first shapes.
fn kernels(measured: &[&Measured]) -> String {
    const SHAPES: usize = 6;
    let with_steps = measured.iter().copied().filter(|one| !one.steps.is_empty());
    let with_steps: Vec<&Measured> = with_steps.collect();
    let mut rows = Vec::new();
    let cases = unique(with_steps.iter().map(|one| one.case()));
    for case in cases.into_iter().take(SHAPES) {
        for direction in ["forward", "backward"] {
            let mut of_case = with_steps.iter().filter(|one| one.case() == case);
            if let Some(one) = of_case.find(|one| one.direction == direction) {
                let steps = one.steps.iter();
                let steps = steps.map(|step| format!("{} {}", step.name, micro(step.ms)));
                let steps: Vec<String> = steps.collect();
                rows.push(vec![
                    tuple(&one.shape),
                    direction.to_owned(),
                    steps.join(", "),
                ]);
            }
        }
    }
    match rows.is_empty() {
        true => String::new(),
        false => table(
            "Kernels, each timed alone",
            &["shape", "direction", "kernels"],
            &rows,
        ),
    }
}

/// What was measured under names that share a title. Behind all columns but the first: their times by those of the
/// first, the geometric mean of the directions.
fn side_by_side(title: &str, measured: &[&Measured]) -> String {
    let columns = unique(measured.iter().map(|one| one.title_and_column().1));
    let mut rows = Vec::new();
    for case in unique(measured.iter().map(|one| one.case())) {
        let find = |column: &str, direction: &str| {
            measured.iter().find(|one| {
                one.case() == case
                    && one.direction == direction
                    && one.title_and_column().1 == column
            })
        };
        let (shape, _, (norm, dtype, layout)) = case;
        let mut name = format!("{norm} {}", tuple(shape));
        if dtype != "f32" {
            name += &format!(", {dtype}");
        }
        name += if layout == "nhwc" {
            ", channels last"
        } else {
            ""
        };
        let mut row = vec![name];
        for &column in &columns {
            let found: Vec<_> = DIRECTIONS.iter().filter_map(|d| find(column, d)).collect();
            let times: Vec<String> = found.iter().map(|one| micro(one.ms)).collect();
            let ratios = found
                .iter()
                .filter_map(|one| Some(one.ms / find(columns[0], &one.direction)?.ms));
            let logs: Vec<f64> = ratios.map(f64::ln).collect();
            row.push(
                match (times.is_empty(), column == columns[0] || logs.is_empty()) {
                    (true, _) => "-".to_owned(),
                    (_, true) => times.join(", "),
                    _ => {
                        let ratio = (logs.iter().sum::<f64>() / logs.len() as f64).exp();
                        format!("{} ({ratio:.2} of the time)", times.join(", "))
                    }
                },
            );
        }
        rows.push(row);
    }
    let mut headings = vec!["norm, shape; forward, backward, eval"];
    headings.extend(columns);
    table(title, &headings, &rows)
}

/// PyTorch's times and ours, of the same tensors.
fn beside_torch(torch: &[&Torch], ours: &[&Measured]) -> String {
    let Some(first) = torch.first() else {
        return String::new();
    };
    let mut rows = Vec::new();
    for (shape, dtype, layout) in unique(
        torch
            .iter()
            .map(|one| (&one.shape, &one.dtype, &one.layout)),
    ) {
        let theirs = |backend: &str, direction: &str| {
            let mut all = torch.iter();
            let same = |one: &&&Torch| {
                (&one.shape, &one.dtype, &one.layout) == (shape, dtype, layout)
                    && one.backend == backend
                    && one.direction == direction
            };
            Some(all.find(same)?.ms)
        };
        let our = |direction: &str| {
            let same = |one: &&&Measured| {
                one.kind() == ("bc_norm", dtype, layout)
                    && one.shape == *shape
                    && one.direction == direction
            };
            Some(ours.iter().find(same)?.ms)
        };
        let both = our("forward").zip(our("backward"));
        let mut row = vec![match dtype.as_str() {
            "f32" => tuple(shape),
            other => format!("{}, {other}", tuple(shape)),
        }];
        let mut ratios = Vec::new();
        for backend in ["torch-eager", "torch-compile"] {
            let times = theirs(backend, "forward").zip(theirs(backend, "forward_backward"));
            row.push(times.map_or("-".to_owned(), |(forward, all)| {
                format!("{} / {}", micro(forward), micro(all))
            }));
            let ratio = times.zip(both);
            ratios.push(
                ratio.map_or("-".to_owned(), |((_, theirs), (forward, backward))| {
                    format!("{:.1}", theirs / (forward + backward))
                }),
            );
        }
        row.push(both.map_or("-".to_owned(), |(forward, backward)| {
            format!("{} / {}", micro(forward), micro(forward + backward))
        }));
        row.push(ratios.join(", "));
        rows.push(row);
    }
    let title = format!(
        "PyTorch {} on {}, by the wall clock: training forward / forward and backward",
        first.torch, first.adapter
    );
    let headings = [
        "shape",
        "eager",
        "torch.compile",
        "bcnorm",
        "times faster, the two together",
    ];
    table(&title, &headings, &rows)
}

fn table(title: &str, headings: &[&str], rows: &[Vec<String>]) -> String {
    let mut text = format!("### {title}\n\n| {} |\n|", headings.join(" | "));
    text += &" --- |".repeat(headings.len());
    text += "\n";
    for row in rows {
        text += &format!("| {} |\n", row.join(" | "));
    }
    text + "\n"
}

fn tuple(shape: &[usize]) -> String {
    let sizes: Vec<String> = shape.iter().map(usize::to_string).collect();
    format!("({})", sizes.join(", "))
}

/// Milliseconds as microseconds: three digits or more that count.
fn micro(ms: f64) -> String {
    let us = 1e3 * ms;
    let digits = match us {
        1000.0.. => 0,
        10.0.. => 1,
        _ => 2,
    };
    format!("{us:.digits$}")
}

/// Each once, in order of appearance.
fn unique<T: PartialEq>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut unique = Vec::new();
    for item in items {
        if !unique.contains(&item) {
            unique.push(item);
        }
    }
    unique
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn line(fields: &Value) -> String {
        let mut line = json!({
            "suite": null, "adapter": "A GPU", "backend": "Vulkan", "shape": [32, 256, 56, 56], "groups": 32,
            "dtype": "f32", "layout": "nchw", "norm": "bc_norm", "direction": "forward", "clock": "timestamps",
            "ms": 0.0937, "bytes": 308_281_344u64, "tensor_bytes": 102_760_448u64, "copy_ms": 0.0505,
            "copy_bytes": 205_520_896u64, "read_ms": 0.03, "composition_ms": 0.2811, "error": 1e-7,
        });
        let fields = fields.as_object().unwrap().clone();
        line.as_object_mut().unwrap().extend(fields);
        line.to_string()
    }

    fn section(lines: &[String]) -> String {
        let mut results = Results::default();
        for line in lines {
            results.add(line).unwrap();
        }
        results.text()
    }

    #[test]
    fn a_table_is_as_in_the_results() {
        let adapters = json!({"version": "0.1.0", "adapters": [
            {"name": "A GPU", "backend": "Vulkan", "driver": "D 1.2"}, {"name": "B", "backend": "Gl", "driver": "x"}]});
        let kit = json!({"kit": {"version": "bcnorm 0.1.0 (abc)", "date": "2026-11-28", "system": "S", "command": "m"}});
        let good = json!({"file": "a", "adapter": "A GPU", "backend": "Vulkan", "layout": "nchw", "pass": true});
        let mut bad = good.clone();
        bad["pass"] = false.into();
        let part = json!({"part": "tune", "result": "skipped", "seconds": 0, "note": "no | time"});
        let text = section(&[
            kit.to_string(),
            adapters.to_string(),
            good.to_string(),
            bad.to_string(),
            line(&json!({"ms": 9.0})),
            line(&json!({})),
            line(
                &json!({"direction": "backward", "ms": 0.2, "steps": [{"name": "row_products", "ms": 0.05}]}),
            ),
            line(&json!({"dtype": "f16", "composition_ms": null, "groups": 16})),
            part.to_string(),
            String::new(),
            json!({"else": 1}).to_string(),
        ]);
        for wanted in [
            "## A GPU (Vulkan, driver D 1.2)\n\n2026-11-28; bcnorm 0.1.0 (abc); S; `m`.\n",
            "1 of 2 runs pass, each a golden file in one layout; WRONG: a (nchw).",
            "by the device's timestamps",
            "| shape | forward | backward | copy | read |\n| --- | --- | --- | --- | --- |\n\
             | (32, 256, 56, 56), 103 MB | 93.7 (81 %; 3.0 x) | 200.0 (38 %; 1.4 x) | 50.5 | 30.0 |\n",
            "### bc_norm, f16, channels first\n",
            "| (32, 256, 56, 56) in 16, 103 MB | 93.7 (81 %) | 50.5 | 30.0 |",
            "| (32, 256, 56, 56) | backward | row_products 50.0 |",
            "| tune | skipped | 0 | no \\| time |",
        ] {
            assert!(text.contains(wanted), "{wanted}\nis not in\n{text}");
        }
        assert!(!text.contains("9000"), "the first measurement is replaced");
    }

    #[test]
    fn names_stand_side_by_side() {
        let labelled = |label: &str, ms: f64| line(&json!({"label": label, "ms": ms}));
        let text = section(&[
            labelled("Subgroups: with", 0.1),
            labelled("Subgroups: without", 0.11),
            labelled("Tuning: default", 0.1),
        ]);
        let row = "| bc_norm (32, 256, 56, 56) | 100.0 | 110.0 (1.10 of the time) |";
        assert!(
            text.contains("### Subgroups\n") && text.contains(row),
            "{text}"
        );
        assert!(
            text.contains("### Tuning\n") && !text.contains("### bc_norm"),
            "{text}"
        );
    }

    #[test]
    fn pytorch_stands_beside_ours() {
        let torch = |backend: &str, direction: &str, ms: f64| {
            json!({"adapter": "A GPU", "backend": backend, "torch": "2.11", "shape": [32, 256, 56, 56],
                "dtype": "f32", "layout": "nchw", "direction": direction, "ms": ms})
            .to_string()
        };
        let text = section(&[
            line(&json!({})),
            line(&json!({"direction": "backward", "ms": 0.1063})),
            torch("torch-eager", "forward", 0.4),
            torch("torch-eager", "forward_backward", 1.0),
        ]);
        let row = "| (32, 256, 56, 56) | 400.0 / 1000 | - | 93.7 / 200.0 | 5.0, - |";
        assert!(text.contains(row), "{text}");
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        let mut results = Results::default();
        results.add("{\"direction\": \"forw").unwrap_err();
        results.add("{\"direction\": \"forward\"}").unwrap_err();
        results.add("{\"part\": 7}").unwrap_err();
        assert!(results.text().is_empty());
        // Parts alone, too, are worth a section.
        let part = json!({"part": "info", "result": "failed", "seconds": 1});
        results.add(&part.to_string()).unwrap();
        assert!(results.text().contains("| info | failed | 1 |  |"));
    }
}
