//! What a run was like: a table of tab-separated values, which all implementations of the experiment write.

use crate::network::NormKind;
use crate::training::Settings;
use anyhow::{Context as _, Result, ensure};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

const COLUMNS: &str = "step\tloss\taccuracy\tseconds";

/// A run.
#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    /// `source`, `norm`, `ws`, ...: what it depended on.
    pub settings: BTreeMap<String, String>,
    pub rows: Vec<Row>,
}

/// What was read back at a time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row {
    /// Steps done.
    pub step: usize,
    /// The mean loss since the row before.
    pub loss: f64,
    /// The share of the test's digits that the network knows, where that was asked.
    pub accuracy: Option<f64>,
    /// Seconds of training since the first step.
    pub seconds: f64,
}

impl Log {
    /// A run of train-digits before its first row.
    pub fn new(settings: &Settings) -> Self {
        let (source, norm) = match settings.norm {
            NormKind::BurnBn => ("burn", NormKind::Bn),
            NormKind::BurnGn => ("burn", NormKind::Gn),
            norm => ("bcnorm", norm),
        };
        let settings = Settings {
            norm,
            ..settings.clone()
        };
        let settings = [("source", source.to_owned())]
            .into_iter()
            .chain(settings.described());
        Self {
            settings: settings
                .map(|(key, value)| (key.to_owned(), value))
                .collect(),
            rows: Vec::new(),
        }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// A file that cannot be read or parsed, with the line.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path);
        text.map_err(Into::into)
            .and_then(|text| Self::parse(&text))
            .with_context(|| path.display().to_string())
    }

    fn parse(text: &str) -> Result<Self> {
        let mut lines = text.lines();
        let head = lines.next().and_then(|line| line.strip_prefix("# "));
        let head =
            head.context("not a log: its first line should be like `# source=pytorch norm=bn`")?;
        let settings = head.split_whitespace().filter_map(|pair| {
            let (key, value) = pair.split_once('=')?;
            Some((key.to_owned(), value.to_owned()))
        });
        let settings = settings.collect();
        ensure!(
            lines.next() == Some(COLUMNS),
            "not a log: its second line should be the columns {COLUMNS:?}"
        );
        let rows = lines.enumerate().map(|(index, line)| {
            row(line).with_context(|| format!("line {}: {line:?} is no row", index + 3))
        });
        Ok(Self {
            settings,
            rows: rows.collect::<Result<_>>()?,
        })
    }

    /// The two lines above the rows.
    pub fn head(&self) -> String {
        let order = ["source", "norm", "ws", "batch", "lr", "epochs", "seed"];
        let pairs = order.iter().filter_map(|key| {
            let value = self.settings.get(*key)?;
            Some(format!("{key}={value}"))
        });
        format!("# {}\n{COLUMNS}\n", pairs.collect::<Vec<_>>().join(" "))
    }

    /// The whole file.
    pub fn text(&self) -> String {
        let mut text = self.head();
        for row in &self.rows {
            // Into a string, which has room.
            let _ = writeln!(text, "{row}");
        }
        text
    }
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let accuracy = self.accuracy.map(|accuracy| format!("{accuracy:.4}"));
        let accuracy = accuracy.unwrap_or_default();
        let Self {
            step,
            loss,
            seconds,
            ..
        } = self;
        write!(f, "{step}\t{loss:.6}\t{accuracy}\t{seconds:.3}")
    }
}

fn row(line: &str) -> Option<Row> {
    let mut cells = line.split('\t');
    let mut cell = || cells.next();
    let row = Row {
        step: cell()?.parse().ok()?,
        loss: cell()?.parse().ok()?,
        accuracy: match cell()? {
            "" => None,
            accuracy => Some(accuracy.parse().ok()?),
        },
        seconds: cell()?.parse().ok()?,
    };
    cell().is_none().then_some(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_read_as_written() {
        let text = "# source=pytorch norm=bcn-est ws=1 batch=2 lr=0.02 epochs=3 seed=0\n\
                    step\tloss\taccuracy\tseconds\n\
                    100\t2.250000\t\t1.500\n\
                    2000\t0.500000\t0.9125\t30.000\n";
        let log = Log::parse(text).unwrap();
        assert_eq!(log.settings["norm"], "bcn-est");
        assert_eq!(log.rows[0].accuracy, None);
        assert_eq!(log.rows[1].accuracy, Some(0.9125));
        assert_eq!(log.text(), text);
        for (wrong, why) in [
            ("", "first line"),
            ("# norm=bn\nstep loss\n", "second line"),
            (
                "# norm=bn\nstep\tloss\taccuracy\tseconds\n1\tx\t\t2\n",
                "line 3",
            ),
        ] {
            let error = format!("{:#}", Log::parse(wrong).unwrap_err());
            assert!(error.contains(why), "{error}");
        }
    }
}
