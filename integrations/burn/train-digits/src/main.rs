//! The command `train-digits`.
#![forbid(unsafe_code)]

use anyhow::Result;
use bcnorm_burn::MovingSpeed;
use burn::tensor::Device;
use clap::Parser as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use train_digits::args::{Args, Usage};
use train_digits::checkpoint::{Checkpoint, Progress};
use train_digits::digits::Digits;
use train_digits::network::Network;
use train_digits::ranks::{self, Ranks};
use train_digits::run::{End, Options, Start, train};
use train_digits::training::accuracy;
use train_digits::{bench, compare, device};

/// Status of a program that Ctrl-C ended: 128 + SIGINT.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let args = Args::parse();
    ranks::run(|ranks| run(&args, ranks))
}

fn run(args: &Args, ranks: Ranks) -> Result<ExitCode> {
    if ranks.size > 1 && (args.compare || args.bench || args.evaluate.is_some()) {
        let what =
            "several ranks train one network: --compare, --bench and --evaluate are for one rank";
        return Err(Usage(what.into()).into());
    }
    let digits = Digits::read(args.data.as_deref())?;
    if let Some(path) = &args.evaluate {
        return evaluate(args, &Checkpoint::read(path)?, &digits[1]);
    }
    let (start, progress) = start(args, ranks)?;
    let (batch, len) = (progress.settings.batch, digits[0].len());
    if batch > len {
        return Err(Usage(format!(
            "--batch {batch}: there are {len} digits to learn from"
        ))
        .into());
    }
    let device = device::open(args.adapter.as_deref(), ranks.on_machine)?;
    ranks.synchronize(&device);
    if args.bench {
        bench::run(&progress.settings, &digits[0], &device)?;
        return Ok(ExitCode::SUCCESS);
    }
    let stop = stop_on_ctrl_c()?;
    let stopped = if args.compare {
        compare::run(args, &digits, &device, &stop)?
    } else {
        let options = Options {
            steps: args.steps,
            log: args.log.clone(),
            log_every: args.log_every,
            save: args.save.clone(),
            print: true,
            ranks,
        };
        match train(progress, start, &options, &digits, &device, &stop)? {
            End::Finished(_) => None,
            End::Stopped(step) => Some(match &args.save {
                Some(path) => format!(
                    "stopped after step {step}; go on with --resume {0} --save {0}",
                    path.display()
                ),
                None => format!("stopped after step {step}; without --save nothing was kept"),
            }),
        }
    };
    Ok(match stopped {
        Some(message) => {
            eprintln!("{message}");
            ExitCode::from(INTERRUPTED)
        }
        None => ExitCode::SUCCESS,
    })
}

/// Where the run that was asked for begins.
fn start(args: &Args, ranks: Ranks) -> Result<(Start, Progress)> {
    if let Some(path) = &args.resume {
        let checkpoint = Checkpoint::read(path)?;
        let progress = checkpoint.progress()?;
        args.settings.check(&progress, ranks)?;
        return Ok((Start::Checkpoint(checkpoint), progress));
    }
    let progress = Progress {
        settings: args.settings.settings(ranks),
        step: 0,
        seconds: 0.0,
    };
    let start = match &args.init {
        Some(path) => Start::Weights(Checkpoint::read(path)?),
        None => Start::Seed,
    };
    Ok((start, progress))
}

/// Prints how many of the test's digits a stored network knows.
fn evaluate(args: &Args, file: &Checkpoint, tests: &Digits) -> Result<ExitCode> {
    let (norm, ws) = args.settings.of_file(file)?;
    let device: Device = device::open(args.adapter.as_deref(), 0)?;
    let network = Network::new(norm, ws, 0, &MovingSpeed::new(0.0), &device);
    let state = file.state(&network.state())?;
    let accuracy = accuracy(&network.with_state(state), tests, &device);
    println!(
        "accuracy {accuracy:.4} of {} digits (norm={norm} ws={})",
        tests.len(),
        u8::from(ws)
    );
    Ok(ExitCode::SUCCESS)
}

/// What is true once Ctrl-C was pressed. Pressed again, it ends the program at once.
fn stop_on_ctrl_c() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let pressed = stop.clone();
    ctrlc::set_handler(move || {
        if pressed.swap(true, Ordering::Relaxed) {
            std::process::exit(INTERRUPTED.into());
        }
    })?;
    Ok(stop)
}
