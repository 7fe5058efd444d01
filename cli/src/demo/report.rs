//! What a run says: a table for people, a JSON object for programs.

use super::check::BAR;
use super::engine::Engine;
use super::filters::{GROUPS, channel_names};
use super::norm::Stats;
use super::output::{FILES, MADE_BY};
use super::photos::Photo;
use super::timing::{Time, Times};
use crate::case::{Problem, Run};
use crate::table::{Table, scientific, title, verdict};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

/// Everything that a run found out.
pub struct Report<'a> {
    /// What ran it.
    pub engine: &'a Engine,
    /// The batch.
    pub photos: &'a [Photo],
    /// What was done to photographs.
    pub notes: &'a [String],
    /// The statistics that normalized.
    pub stats: Stats,
    /// What went in.
    pub case: &'a Problem,
    /// What came out.
    pub outputs: &'a Run,
    /// By how much it is off.
    pub errors: BTreeMap<&'static str, f64>,
    /// Whether a second run gave the same bits.
    pub repeatable: bool,
    /// How long it took.
    pub times: Times,
}

/// Outputs in the order of the table; what is not named here follows.
const ORDER: [&str; 9] = [
    "y",
    "grad_x",
    "grad_bn.weight",
    "grad_bn.bias",
    "grad_weight",
    "grad_bias",
    "bn.running_mean_after",
    "bn.running_var_after",
    "bn.num_batches_tracked_after",
];

/// Channels whose running statistics are printed: the first of each group of the bank.
const EXAMPLES: usize = GROUPS.len();

impl Report<'_> {
    /// The outputs that are off by more than the bar.
    pub fn failures(&self) -> Vec<&'static str> {
        let failed = self.errors.iter().filter(|&(_, &error)| !passes(error));
        failed.map(|(&name, _)| name).collect()
    }

    fn ordered(&self) -> impl Iterator<Item = (&'static str, f64)> {
        let mut errors: Vec<_> = self
            .errors
            .iter()
            .map(|(&name, &error)| (name, error))
            .collect();
        let place = |name| ORDER.iter().position(|&other| other == name);
        errors.sort_by_key(|&(name, _)| place(name).unwrap_or(ORDER.len()));
        errors.into_iter()
    }

    /// Writes it for people. `folder` is where the files are.
    pub fn write(&self, folder: &Path, out: &mut impl Write) -> io::Result<()> {
        self.write_head(out)?;
        self.write_errors(out)?;
        self.write_times(out)?;
        self.write_running_statistics(out)?;
        writeln!(
            out,
            "{}",
            title(&format!("Written to {}", folder.display()))
        )?;
        writeln!(out, "  {}", FILES.join("  "))
    }

    fn write_head(&self, out: &mut impl Write) -> io::Result<()> {
        let case = self.case;
        writeln!(
            out,
            "{}",
            title("Batch-Channel Normalization of feature maps, in training")
        )?;
        let names: Vec<&str> = self
            .photos
            .iter()
            .map(|photo| photo.name.as_str())
            .collect();
        writeln!(out, "  photographs  {}", list(&names))?;
        for note in self.notes {
            writeln!(out, "               {note}")?;
        }
        writeln!(out, "  device       {}", self.engine.describe())?;
        if self.engine.is_software_adapter() {
            writeln!(
                out,
                "               no GPU was used: this adapter is software on the processor"
            )?;
        }
        let mebibytes = case.x.len() as f64 * 4.0 / f64::from(1 << 20);
        writeln!(
            out,
            "  tensor       {:?} f32, {mebibytes:.1} MiB",
            case.dims
        )?;
        let groups = match case.norm.num_groups {
            1 => "1 group".to_owned(),
            groups => format!("{groups} groups"),
        };
        writeln!(
            out,
            "  norm         {groups}, {}, eps {:e}",
            self.stats.describe(),
            case.norm.eps
        )?;
        writeln!(out)
    }

    fn write_errors(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(
            out,
            "{}",
            title("Errors against the f64 oracle, over each tensor's scale")
        )?;
        let mut table = Table::new(["output", "error", "bar", ""]);
        for (name, error) in self.ordered() {
            let shown = if error == 0.0 {
                "0".into()
            } else {
                scientific(error)
            };
            table.row([
                name.to_owned(),
                shown,
                scientific(BAR),
                verdict(passes(error)),
            ]);
        }
        table.write(out)?;
        if self.repeatable {
            writeln!(out, "  A second run gave y with the same bits.")?;
        } else {
            writeln!(out, "  A second run gave y with other bits.")?;
        }
        writeln!(out)
    }

    fn write_times(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "{}", title("Times (medians)"))?;
        let mut table = Table::new(["", "ms", "MB moved", "GB/s"]);
        let whole = match self.engine {
            Engine::Gpu { .. } => "both, upload and readback too",
            Engine::Cpu(_) => "both",
        };
        for (name, time) in [
            ("forward", self.times.forward),
            ("backward", self.times.backward),
            (whole, self.times.whole),
        ] {
            table.row([
                name.to_owned(),
                format!("{:.2}", time.ms),
                format!("{:.1}", time.bytes as f64 / 1e6),
                format!("{:.1}", time.gigabytes_per_second()),
            ]);
        }
        table.write(out)?;
        writeln!(out)
    }

    fn write_running_statistics(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "{}", title("Running statistics of some channels"))?;
        let mut table = Table::new([
            "channel",
            "mean before",
            "after",
            "variance before",
            "after",
        ]);
        let names = channel_names();
        for c in (0..names.len()).step_by(names.len() / EXAMPLES) {
            let number = |values: &[f32]| {
                let value = values.get(c).copied().unwrap_or(f32::NAN);
                super::draw::short(value.into())
            };
            table.row([
                names[c].to_owned(),
                number(&self.case.running_mean),
                number(&self.outputs["bn.running_mean_after"]),
                number(&self.case.running_var),
                number(&self.outputs["bn.running_var_after"]),
            ]);
        }
        table.write(out)?;
        writeln!(out)
    }

    /// All of it for programs. Numbers that are not finite become null.
    pub fn json(&self) -> Value {
        let (adapter, backend) = self.engine.names();
        let time = |time: Time| {
            json!({
                "ms": time.ms,
                "bytes": time.bytes,
                "gb_per_s": time.gigabytes_per_second(),
            })
        };
        let photos: Vec<Value> = self
            .photos
            .iter()
            .map(|photo| json!({"name": photo.name, "width": photo.width, "height": photo.height}))
            .collect();
        json!({
            "made_by": MADE_BY,
            "version": env!("CARGO_PKG_VERSION"),
            "adapter": adapter,
            "backend": backend,
            "software": self.engine.is_software_adapter(),
            "photographs": photos,
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
            "times": {
                "forward": time(self.times.forward),
                "backward": time(self.times.backward),
                "whole": time(self.times.whole),
            },
            "running_mean": {
                "before": self.case.running_mean,
                "after": self.outputs["bn.running_mean_after"],
            },
            "running_var": {
                "before": self.case.running_var,
                "after": self.outputs["bn.running_var_after"],
            },
            "files": FILES,
        })
    }
}

/// NaN passes nothing.
fn passes(error: f64) -> bool {
    error <= BAR
}

/// Names, not too many of them.
fn list(names: &[&str]) -> String {
    const MOST: usize = 6;
    match names.len() {
        ..=MOST => names.join(", "),
        all => format!("{} and {} more", names[..MOST].join(", "), all - MOST),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_number_does_not_pass() {
        assert!(passes(0.0) && passes(BAR));
        assert!(!passes(f64::NAN) && !passes(f64::INFINITY) && !passes(BAR * 1.01));
    }

    #[test]
    fn long_lists_are_cut() {
        assert_eq!(list(&["a", "b"]), "a, b");
        assert_eq!(list(&["a"; 9]), "a, a, a, a, a, a and 3 more");
    }
}
