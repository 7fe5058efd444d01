//! The command line.

use crate::checkpoint::{Checkpoint, Progress};
use crate::network::NormKind;
use crate::ranks::Ranks;
use crate::training::Settings;
use clap::Parser;
use std::fmt;
use std::path::PathBuf;

/// Train a residual network on handwritten digits, at batch size 2 unless told otherwise, on burn's wgpu backend.
///
/// Norms, activations, residuals and Weight Standardization are bcnorm's fused kernels, or burn's own modules with
/// --norm burn-bn or burn-gn.
#[derive(Parser, Debug, Clone)]
#[command(name = "train-digits", version, after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    pub settings: SettingsArgs,
    /// Stop after so many steps; the schedule stays that of all epochs
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub steps: Option<usize>,
    /// The adapter: a part of its name, backend or kind [default: burn's choice]
    #[arg(long, value_name = "NAME")]
    pub adapter: Option<String>,
    /// A folder with other digits, in files like those of examples/digits [default: these]
    #[arg(long, value_name = "FOLDER")]
    pub data: Option<PathBuf>,
    /// Write what is read back as a table, FILE.tsv
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// Steps between two rows
    #[arg(long, value_name = "N", default_value = "100", value_parser = at_least_one)]
    pub log_every: usize,
    /// Write a checkpoint at the end, after each epoch, and on Ctrl-C, FILE.safetensors
    #[arg(long, value_name = "FILE")]
    pub save: Option<PathBuf>,
    /// Go on from a checkpoint, with its settings, to the same bits as without a break
    #[arg(long, value_name = "FILE", conflicts_with = "init")]
    pub resume: Option<PathBuf>,
    /// Begin with the weights of a checkpoint, or of a state dict of PyTorch's
    #[arg(long, value_name = "FILE")]
    pub init: Option<PathBuf>,
    /// Train nothing: the accuracy of a checkpoint, or of a state dict of PyTorch's
    #[arg(long, value_name = "FILE", conflicts_with_all = ["resume", "init", "log", "save", "steps"])]
    pub evaluate: Option<PathBuf>,
    /// Train every norm with several seeds, and draw the curves
    #[arg(long, conflicts_with_all = ["resume", "init", "log", "save", "evaluate", "norm", "ws", "seed"])]
    pub compare: bool,
    /// Seeds of --compare, from 0 on
    #[arg(long, value_name = "N", default_value = "3", value_parser = at_least_one)]
    pub seeds: usize,
    /// Where --compare writes; runs whose logs are there already are not done again
    #[arg(long, value_name = "FOLDER", default_value = "train-output")]
    pub out: PathBuf,
    /// Logs to draw beside those of --compare
    #[arg(long, value_name = "LOG", num_args = 1..)]
    pub with: Vec<PathBuf>,
    /// Measure what a step costs with each norm, and without any
    #[arg(long, conflicts_with_all = ["resume", "init", "log", "save", "evaluate", "compare", "norm", "ws"])]
    pub bench: bool,
}

const EXAMPLES: &str = "\
Examples:
  train-digits --norm bcn-est --ws                  the paper's norm for micro-batches, 3 epochs
  train-digits --norm bn --save bn.safetensors      BatchNorm, and its weights for PyTorch
  train-digits --resume bn.safetensors --save bn.safetensors
  train-digits --evaluate bn.safetensors
  train-digits --compare                            all norms, three seeds; train-output/curves-light.svg
  train-digits --bench                              milliseconds a step, and the norms' share

Exit status: 0 done, 1 failed, 2 wrong usage, 130 stopped by Ctrl-C.";

/// What a run depends on. A checkpoint has values of its own for these.
#[derive(clap::Args, Debug, Clone)]
pub struct SettingsArgs {
    /// The norm [default: bcn-est]
    #[arg(long)]
    norm: Option<NormKind>,
    /// Weight Standardization of every convolution
    #[arg(long)]
    ws: bool,
    /// Digits of a step, of every rank [default: 2]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    batch: Option<usize>,
    /// [default: 3]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    epochs: Option<usize>,
    /// Of the initial weights and of the order of the digits [default: 0]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Learning rate at the beginning, above 0 and at most 1; a cosine takes it to 0 [default: 0.02]
    #[arg(long, value_parser = learning_rate)]
    lr: Option<f64>,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n) if n > 0 => Ok(n),
        _ => Err("expected a whole number, 1 or more".into()),
    }
}

fn learning_rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(lr) if 0.0 < lr && lr <= 1.0 => Ok(lr),
        _ => Err("expected a number above 0 and at most 1, as burn's schedulers do".into()),
    }
}

/// What is wrong with a command line.
#[derive(Debug)]
pub struct Usage(pub String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

impl SettingsArgs {
    /// Those of a run of these ranks.
    pub fn settings(&self, ranks: Ranks) -> Settings {
        Settings {
            norm: self.norm.unwrap_or(NormKind::BcnEst),
            ws: self.ws,
            batch: self.batch.unwrap_or(2) * ranks.size,
            lr: self.lr.unwrap_or(0.02),
            epochs: self.epochs.unwrap_or(3),
            seed: self.seed.unwrap_or(0),
        }
    }

    /// Whether a checkpoint's are those that were given.
    ///
    /// # Errors
    /// The first that is not.
    pub fn check(&self, progress: &Progress, ranks: Ranks) -> Result<(), Usage> {
        let of = &progress.settings;
        if !of.batch.is_multiple_of(ranks.size) {
            return Err(Usage(format!(
                "{} ranks cannot share the {} digits of the checkpoint's batch: go on with a number of ranks that divides it",
                ranks.size, of.batch
            )));
        }
        let given = |value: Option<String>, of: String, option: &str| match value {
            Some(value) if value != of => Err(Usage(format!(
                "--{option} {value}, but the checkpoint's run has {option} {of}: drop the option to go on with it, or \
                 begin another run with its weights by --init"
            ))),
            _ => Ok(()),
        };
        let text = |value: Option<usize>| value.map(|value| value.to_string());
        given(
            self.norm.map(|norm| norm.to_string()),
            of.norm.to_string(),
            "norm",
        )?;
        given(self.ws.then(|| "true".to_owned()), of.ws.to_string(), "ws")?;
        given(
            text(self.batch),
            (of.batch / ranks.size).to_string(),
            "batch",
        )?;
        given(text(self.epochs), of.epochs.to_string(), "epochs")?;
        given(
            self.seed.map(|seed| seed.to_string()),
            of.seed.to_string(),
            "seed",
        )?;
        given(self.lr.map(|lr| lr.to_string()), of.lr.to_string(), "lr")
    }

    /// Norm and Weight Standardization of a network whose state is in a file: as given, else as its metadata say.
    ///
    /// # Errors
    /// Where neither says what the norm is.
    pub fn of_file(&self, file: &Checkpoint) -> Result<(NormKind, bool), Usage> {
        let norm = self.norm.or(file.norm());
        let norm = norm.ok_or_else(|| {
            Usage("the file does not say which norm its network has: give --norm, and --ws if it has it".into())
        })?;
        let ws = self.ws || (self.norm.is_none() && file.ws() == Some(true));
        Ok((norm, ws))
    }
}
