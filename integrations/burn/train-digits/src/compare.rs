//! Every norm with several seeds: logs, a table, and the curves.

use crate::args::Args;
use crate::chart;
use crate::checkpoint::Progress;
use crate::digits::Digits;
use crate::log::Log;
use crate::network::NormKind;
use crate::ranks::Ranks;
use crate::run::{End, Options, Start, train};
use crate::training::Settings;
use anyhow::{Result, ensure};
use burn::tensor::Device;
use std::sync::atomic::AtomicBool;

/// What is compared: norms, and whether with Weight Standardization.
const NORMS: [(NormKind, bool); 6] = [
    (NormKind::Bn, false),
    (NormKind::Gn, false),
    (NormKind::Bcn, true),
    (NormKind::BcnEst, true),
    (NormKind::BurnBn, false),
    (NormKind::BurnGn, false),
];

/// The steps at whose mean the table's loss is.
const LAST_STEPS: usize = 500;

/// Runs of one norm with several seeds.
#[derive(Debug, Clone)]
pub struct Curve {
    /// Whose norms: `bcnorm`, `burn`, `pytorch`, `tfjs`.
    pub source: String,
    /// `bn`, `gn`, `bcn`, `bcn-est`.
    pub norm: String,
    pub ws: bool,
    /// A log for each seed.
    pub runs: Vec<Log>,
}

/// Trains what is not trained yet, and draws. A message says that it was stopped before.
///
/// # Errors
/// Those of a run; logs that do not fit; files that cannot be written.
pub fn run(
    args: &Args,
    digits: &[Digits; 2],
    device: &Device,
    stop: &AtomicBool,
) -> Result<Option<String>> {
    let base = args.settings.settings(Ranks::ALONE);
    let mut logs = Vec::new();
    // Before anything is trained.
    for path in &args.with {
        let log = Log::read(path)?;
        let ours = Log::new(&base);
        for key in ["batch", "lr", "epochs"] {
            let [theirs, ours] = [&log, &ours].map(|log| log.settings.get(key));
            ensure!(
                theirs == ours,
                "{}: {key} is {}, and {} here: give --{key} the same value",
                path.display(),
                theirs.map_or("not said", String::as_str),
                ours.map_or("not said", String::as_str)
            );
        }
        logs.push(log);
    }
    let runs = (0..args.seeds as u64).flat_map(|seed| NORMS.map(|(norm, ws)| (seed, norm, ws)));
    let runs: Vec<_> = runs.collect();
    for (index, &(seed, norm, ws)) in runs.iter().enumerate() {
        let settings = Settings {
            norm,
            ws,
            seed,
            ..base.clone()
        };
        let path = args.out.join(format!("{norm}-seed{seed}.tsv"));
        let total = settings.epochs * settings.steps_per_epoch(digits[0].len());
        let last = args.steps.map_or(total, |steps| steps.min(total));
        let known = match path.exists() {
            true => Some(Log::read(&path)?),
            false => None,
        };
        let complete = |log: &Log| {
            let end = log.rows.last().map(|row| row.step);
            log.settings == Log::new(&settings).settings && end == Some(last)
        };
        let log = match known.filter(complete) {
            Some(log) => log,
            None => {
                let ws = if ws { " with WS" } else { "" };
                eprintln!("{} of {}: {norm}{ws}, seed {seed}", index + 1, runs.len());
                let progress = Progress {
                    settings,
                    step: 0,
                    seconds: 0.0,
                };
                let options = Options {
                    steps: args.steps,
                    log: Some(path.clone()),
                    log_every: args.log_every,
                    save: None,
                    print: false,
                    ranks: Ranks::ALONE,
                };
                match train(progress, Start::Seed, &options, digits, device, stop)? {
                    End::Finished(log) => log,
                    End::Stopped(_) => {
                        let out = args.out.display();
                        let message = format!(
                            "stopped; the runs that were finished are in {out}, and are not done again"
                        );
                        return Ok(Some(message));
                    }
                }
            }
        };
        logs.push(log);
    }
    let curves = curves(logs);
    print!("{}", table(&curves));
    for path in chart::draw(&curves, &base, &args.out)? {
        println!("{}", path.display());
    }
    Ok(None)
}

/// Logs by what they are of: bcnorm's, burn's, and then others' in the order in which they came.
fn curves(logs: Vec<Log>) -> Vec<Curve> {
    let mut curves: Vec<Curve> = Vec::new();
    for log in logs {
        let said = |key: &str| log.settings.get(key).cloned().unwrap_or_default();
        let (source, norm, ws) = (said("source"), said("norm"), said("ws") == "1");
        let same =
            |curve: &&mut Curve| (&curve.source, &curve.norm, curve.ws) == (&source, &norm, ws);
        match curves.iter_mut().find(same) {
            Some(curve) => curve.runs.push(log),
            None => curves.push(Curve {
                source,
                norm,
                ws,
                runs: vec![log],
            }),
        }
    }
    let sources = ["bcnorm", "burn"];
    curves.sort_by_key(|curve| {
        sources
            .iter()
            .position(|source| *source == curve.source)
            .unwrap_or(2)
    });
    curves
}

impl Curve {
    /// Its name.
    pub fn name(&self) -> String {
        let norm = match self.norm.as_str() {
            "bn" => "BatchNorm",
            "gn" => "GroupNorm",
            "bcn" => "BCNorm",
            "bcn-est" => "BCNorm, estimates",
            other => other,
        };
        let ws = if self.ws { " + WS" } else { "" };
        let source = match self.source.as_str() {
            "bcnorm" => "",
            "burn" => " (burn)",
            "pytorch" => " (PyTorch)",
            "tfjs" => " (tf.js)",
            other => return format!("{norm}{ws} ({other})"),
        };
        format!("{norm}{ws}{source}")
    }

    /// The last accuracy of each run that has one.
    pub fn accuracies(&self) -> Vec<f64> {
        let last = |log: &Log| log.rows.iter().rev().find_map(|row| row.accuracy);
        self.runs.iter().filter_map(last).collect()
    }

    /// Milliseconds of a step, over all runs.
    pub fn milliseconds(&self) -> f64 {
        let last = self.runs.iter().filter_map(|log| log.rows.last());
        let (seconds, steps) = last.fold((0.0, 0), |(seconds, steps), row| {
            (seconds + row.seconds, steps + row.step)
        });
        1e3 * seconds / steps as f64
    }

    /// The mean loss of each run's last steps.
    fn losses(&self) -> Vec<f64> {
        let of = |log: &Log| {
            let end = log.rows.last()?.step;
            let rows = log.rows.iter().filter(|row| row.step + LAST_STEPS > end);
            mean(&rows.map(|row| row.loss).collect::<Vec<_>>())
        };
        self.runs.iter().filter_map(of).collect()
    }
}

/// The mean of what there is.
pub fn mean(values: &[f64]) -> Option<f64> {
    match values {
        [] => None,
        values => Some(values.iter().sum::<f64>() / values.len() as f64),
    }
}

fn table(curves: &[Curve]) -> String {
    let mut text = format!(
        "| norm | test accuracy: mean | each seed | loss of the last {LAST_STEPS} steps | ms a step |\n\
         | --- | --- | --- | --- | --- |\n"
    );
    for curve in curves {
        let accuracies = curve.accuracies();
        let number =
            |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.3}"));
        let each = accuracies.iter().map(|accuracy| format!("{accuracy:.3}"));
        text += &format!(
            "| {} | {} | {} | {} | {:.1} |\n",
            curve.name(),
            number(mean(&accuracies)),
            each.collect::<Vec<_>>().join(", "),
            number(mean(&curve.losses())),
            curve.milliseconds()
        );
    }
    text
}
