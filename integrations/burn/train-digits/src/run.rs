//! A run, from the first step or a checkpoint to the last step.

use crate::checkpoint::{Checkpoint, Progress};
use crate::digits::Digits;
use crate::log::{Log, Row};
use crate::network::read;
use crate::ranks::Ranks;
use crate::training::{Batches, Trainer};
use anyhow::{Context as _, Result, bail, ensure};
use burn::tensor::{Device, Tensor};
use indicatif::{ProgressBar, ProgressStyle};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Where a run begins.
pub enum Start {
    /// With the initial weights of the seed.
    Seed,
    /// With these weights, at the first step.
    Weights(Checkpoint),
    /// Where another run was left.
    Checkpoint(Checkpoint),
}

/// What a run does beside its steps.
pub struct Options {
    /// The last step, if not that of the last epoch.
    pub steps: Option<usize>,
    /// Where its table goes.
    pub log: Option<PathBuf>,
    /// How many steps there are between two rows; the end of an epoch has one, too.
    pub log_every: usize,
    /// Where its checkpoints go.
    pub save: Option<PathBuf>,
    /// Whether every row is printed where no progress bar can be.
    pub print: bool,
    /// Whose share of a batch this process trains on. All ranks are given the same of what is above, and the first writes.
    pub ranks: Ranks,
}

/// How a run ended.
pub enum End {
    /// With its last step.
    Finished(Log),
    /// Before, as it was asked to, after so many steps.
    Stopped(usize),
}

/// Trains until the last step, or until `stop` says so, which it looks at between steps.
///
/// # Errors
/// Checkpoints and logs that do not fit or cannot be written; a loss that is no number.
pub fn train(
    mut progress: Progress,
    start: Start,
    options: &Options,
    [digits, tests]: &[Digits; 2],
    device: &Device,
    stop: &AtomicBool,
) -> Result<End> {
    let settings = progress.settings.clone();
    let per_epoch = settings.steps_per_epoch(digits.len());
    let total = settings.epochs * per_epoch;
    let last = options.steps.map_or(total, |steps| steps.min(total));

    let mut trainer = Trainer::new(&settings, device, options.ranks);
    match &start {
        Start::Seed => {}
        Start::Weights(weights) => {
            let (state, _) = trainer.state();
            trainer.set_state(weights.state(&state)?);
        }
        Start::Checkpoint(checkpoint) => {
            let (state, _) = trainer.state();
            trainer.set_state(checkpoint.state(&state)?);
        }
    }
    let mut scheduler = settings.scheduler(total)?;
    for _ in 0..progress.step {
        scheduler.step();
    }
    let mut log = Log::new(&settings);
    let mut file = match &options.log {
        Some(path) if options.ranks.is_first() => Some(Sink::open(path, &mut log, progress.step)?),
        _ => None,
    };

    let bar = if options.ranks.is_first() {
        bar(last)
    } else {
        ProgressBar::hidden()
    };
    let print = options.print && options.ranks.is_first() && bar.is_hidden();
    if print {
        print!("{}", log.head());
    }
    let mut batches = Batches::new(&settings, digits.len(), options.ranks);
    let mut losses: Option<Tensor<1>> = None;
    let mut before = (progress.step, progress.seconds);
    let mut started = Instant::now();
    while progress.step < last {
        let (images, labels) = digits.batch(batches.of_step(progress.step), trainer.device());
        let lr = scheduler.step().base();
        let loss = trainer.step(images, labels, lr);
        losses = Some(match losses {
            Some(losses) => losses + loss,
            None => loss,
        });
        progress.step += 1;
        let step = progress.step;
        bar.set_position(step as u64);
        let stopped = options.ranks.any(stop.load(Ordering::Relaxed));
        let epoch_ends = step.is_multiple_of(per_epoch);
        if !(step.is_multiple_of(options.log_every) || epoch_ends || step == last || stopped) {
            continue;
        }
        // The only place that waits for the device.
        let mut sum = [losses.take().map_or(0.0, |losses| read(losses)[0])];
        options.ranks.average(&mut sum);
        progress.seconds += started.elapsed().as_secs_f64();
        let steps = step - before.0;
        let row = Row {
            step,
            loss: f64::from(sum[0]) / steps as f64,
            accuracy: epoch_ends.then(|| trainer.accuracy(tests)),
            seconds: progress.seconds,
        };
        if !row.loss.is_finite() {
            bail!(
                "the loss of steps {} to {step} is {}: lower --lr, which is {}",
                before.0 + 1,
                row.loss,
                settings.lr
            );
        }
        log.rows.push(row);
        if let Some(file) = &mut file {
            file.append(&row)?;
        }
        if print {
            println!("{row}");
        }
        let rate = (steps * settings.batch) as f64 / (progress.seconds - before.1);
        let known = log.rows.iter().rev().find_map(|row| row.accuracy);
        let known = known.map_or(String::new(), |known| format!(", accuracy {known:.3}"));
        bar.set_message(format!("loss {:.3}{known}, {rate:.0} images/s", row.loss));
        if let Some(path) = &options.save
            && options.ranks.is_first()
            && (epoch_ends || step == last || stopped)
        {
            Checkpoint::of(&trainer, &progress).write(path)?;
        }
        if stopped && step < last {
            bar.abandon();
            return Ok(End::Stopped(step));
        }
        before = (step, progress.seconds);
        started = Instant::now();
    }
    bar.finish();
    Ok(End::Finished(log))
}

/// A bar of steps on standard error; hidden where that is no terminal.
fn bar(steps: usize) -> ProgressBar {
    let bar = ProgressBar::new(steps as u64);
    // The template is a constant; without it the bar looks plainer.
    if let Ok(style) = ProgressStyle::with_template("{bar:24} {pos}/{len} {msg}") {
        bar.set_style(style);
    }
    bar
}

/// A log's file.
struct Sink<'a>(File, &'a Path);

impl<'a> Sink<'a> {
    /// Begins a file. That of a run that goes on after `step` keeps the rows up to there, which are the log's then.
    fn open(path: &'a Path, log: &mut Log, step: usize) -> Result<Self> {
        if step > 0 && path.exists() {
            let known = Log::read(path)?;
            ensure!(
                known.settings == log.settings,
                "{}: the log of another run, which this one does not go on with: give another --log",
                path.display()
            );
            log.rows = known.rows;
            log.rows.retain(|row| row.step <= step);
        }
        let cannot = || format!("cannot write {}", path.display());
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(cannot)?;
        }
        let mut file = File::create(path).with_context(cannot)?;
        file.write_all(log.text().as_bytes()).with_context(cannot)?;
        Ok(Self(file, path))
    }

    fn append(&mut self, row: &Row) -> Result<()> {
        let Self(file, path) = self;
        writeln!(file, "{row}").with_context(|| format!("cannot write {}", path.display()))
    }
}
