//! What a run says: a table for people, a JSON object for programs.

use super::filters::{GROUPS, channel_names};
use super::norm::Stats;
use super::numbers::short;
use super::output::{FILES, MADE_BY};
use super::photos::Photo;
use super::timing::Time;
use crate::case::{Problem, Run};
use crate::device::Engine;
use crate::table::{Table, scientific, title, verdict};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// Largest error that passes: the bar of the library's own tests for y. Golden vectors are held to a lower one;
/// here a mean of hundreds of standard deviations is possible.
const BAR: f64 = 5e-6;

pub struct Report<'a> {
    pub engine: &'a Engine,
    pub photos: &'a [Photo],
    pub notes: &'a [String],
    pub stats: Stats,
    pub case: &'a Problem,
    pub outputs: &'a Run,
    pub errors: BTreeMap<&'static str, f64>,
    pub repeatable: bool,
    pub times: Vec<Time>,
}

const DIRECTIONS: [&str; 2] = ["forward", "backward"];

impl Report<'_> {
    /// The outputs that are off by more than the bar.
    pub fn failures(&self) -> Vec<&'static str> {
        let failed = self.errors.iter().filter(|&(_, &error)| !passes(error));
        failed.map(|(&name, _)| name).collect()
    }

    /// All of it for people. `folder` is where the files are.
    pub fn text(&self, folder: &Path) -> String {
        let (case, engine) = (self.case, self.engine);
        let names: Vec<&str> = self.photos.iter().map(|photo| &*photo.name).collect();
        let mut head = vec![("photographs", names.join(", "))];
        head.extend(self.notes.iter().map(|note| ("", note.clone())));
        head.push(("device", engine.describe()));
        if engine.is_software_adapter() {
            let text = "no GPU was used: this adapter is software on the processor";
            head.push(("", text.to_owned()));
        }
        let mebibytes = case.x.len() as f64 * 4.0 / f64::from(1 << 20);
        head.push(("tensor", format!("{:?} f32, {mebibytes:.1} MiB", case.dims)));
        let (groups, stats, eps) = (case.norm.num_groups, self.stats.describe(), case.norm.eps);
        head.push(("norm", format!("groups: {groups}, {stats}, eps {eps:e}")));
        let head = head
            .iter()
            .map(|(what, text)| format!("  {what:<13}{text}\n"));

        let mut errors = Table::new(["output", "error", "bar", ""]);
        // From y on: backwards.
        for (&name, &error) in self.errors.iter().rev() {
            let pass = verdict(passes(error));
            errors.row([name.to_owned(), scientific(error), scientific(BAR), pass]);
        }
        let bits = if self.repeatable { "the same" } else { "other" };

        let mut times = Table::new(["", "ms", "MB moved", "GB/s"]);
        for (name, time) in DIRECTIONS.iter().zip(&self.times) {
            times.row([
                (*name).to_owned(),
                format!("{:.2}", time.ms),
                format!("{:.1}", time.bytes as f64 / 1e6),
                format!("{:.1}", time.gb_per_s),
            ]);
        }

        let headings = "channel | mean before | after | variance before | after";
        let mut running = Table::new(headings.split(" | "));
        let names = channel_names();
        // The first of each group of the bank.
        for c in (0..names.len()).step_by(names.len() / GROUPS.len()) {
            let numbers = self.running().map(|values| short(values[c].into()));
            running.row([names[c].to_owned()].into_iter().chain(numbers));
        }

        let parts = [
            (
                "Batch-Channel Normalization of feature maps, in training",
                head.collect(),
            ),
            (
                "Errors against the f64 oracle, over each tensor's scale",
                format!("{errors}  A second run gave y with {bits} bits.\n"),
            ),
            ("Times (medians)", times.to_string()),
            ("Running statistics of some channels", running.to_string()),
        ];
        let parts = parts.map(|(heading, part)| format!("{}\n{part}\n", title(heading)));
        let written = title(format!("Written to {}", folder.display()));
        format!("{}{written}\n  {}\n", parts.concat(), FILES.join("  "))
    }

    /// The running mean before and after, and the running variance.
    fn running(&self) -> [&[f32]; 4] {
        [
            &self.case.running_mean,
            &self.outputs["bn.running_mean_after"],
            &self.case.running_var,
            &self.outputs["bn.running_var_after"],
        ]
    }

    /// All of it for programs. Numbers that are not finite become null.
    pub fn json(&self) -> Value {
        let (adapter, backend) = match self.engine {
            Engine::Gpu(gpu, _) => {
                let info = gpu.adapter.get_info();
                (info.name, info.backend.to_string())
            }
            Engine::Cpu(_) => ("cpu".into(), "cpu".into()),
        };
        let photo = |photo: &Photo| json!({"name": photo.name, "width": photo.width, "height": photo.height});
        let [mean_before, mean_after, var_before, var_after] = self.running();
        json!({
            "made_by": MADE_BY,
            "version": env!("CARGO_PKG_VERSION"),
            "adapter": adapter,
            "backend": backend,
            "software": self.engine.is_software_adapter(),
            "photographs": self.photos.iter().map(photo).collect::<Vec<Value>>(),
            "notes": self.notes,
            "shape": self.case.dims,
            "groups": self.case.norm.num_groups,
            "stats": match self.stats {
                Stats::Batch => "batch",
                Stats::Estimate => "estimate",
            },
            // Its shortest decimals, not those of the f32 in f64.
            "eps": self.case.norm.eps.to_string().parse::<f64>().ok(),
            "channels": channel_names(),
            "errors": self.errors,
            "bar": BAR,
            "pass": self.failures().is_empty(),
            "repeatable": self.repeatable,
            "times": DIRECTIONS.into_iter().zip(&self.times).collect::<BTreeMap<_, _>>(),
            "running_mean": {"before": mean_before, "after": mean_after},
            "running_var": {"before": var_before, "after": var_after},
            "files": FILES,
        })
    }
}

/// NaN passes nothing.
fn passes(error: f64) -> bool {
    error <= BAR
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_number_does_not_pass() {
        assert!(passes(0.0) && passes(BAR));
        assert!(!passes(f64::NAN) && !passes(f64::INFINITY) && !passes(BAR * 1.01));
    }
}
