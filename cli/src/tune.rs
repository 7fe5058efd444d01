//! `bcnorm tune`: a measured search for a faster tuning of an adapter.

use crate::request::{Dims, NormArgs, Request, parse_dims};
use crate::store::Destination;
use crate::table::{Table, title};
use crate::{device, progress};
use anyhow::Result;
use bcnorm::gpu::autotune::{Effort, Trial, Tuned, Verdict, autotune};
use bcnorm::gpu::headless::Gpu;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

/// Arguments of `bcnorm tune`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Training forward and backward of every shape are timed with one field of the tuning halved or doubled, \
in turn with the best tuning so far. What is clearly faster in all, and nowhere slower, is kept, if its \
results are those of the adapter's default. At the end the winner meets the default once more. Let \
nothing else run meanwhile.

Examples:
  bcnorm tune                                          what would be faster here?
  bcnorm tune --shape 32,256,14,14 --save tuning.txt   for shapes of yours, kept in a file
  bcnorm info --plan 32,256,14,14 --tuning tuning.txt  what it plans")]
pub struct Args {
    /// Shape to tune for, may be repeated [default: 8,64,56,56 and 16,512,7,7]
    #[arg(long = "shape", value_name = "N,C,H,W", value_parser = parse_dims)]
    shapes: Vec<Dims>,
    #[command(flatten)]
    norm: NormArgs,
    /// A part of an adapter's name or backend [default: the best adapter]
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
    /// Submissions whose median is taken
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeats: u32,
    /// Milliseconds that a submission should take
    #[arg(long, value_name = "MS", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    submission_ms: u32,
    /// How often to go over all fields, at most
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=10))]
    passes: u32,
    /// Try nothing further after so many seconds
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// Write the tuning to a file
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Replace the file if it exists
    #[arg(long, requires = "save")]
    force: bool,
}

/// Runs `bcnorm tune`.
pub fn run(args: Args) -> Result<()> {
    let save = args.save.as_deref();
    let save = save
        .map(|file| Destination::new(file, args.force, &[]))
        .transpose()?;
    let defaults = [vec![8, 64, 56, 56], vec![16, 512, 7, 7]].map(Dims);
    let shapes = match args.shapes.as_slice() {
        [] => &defaults[..],
        given => given,
    };
    let requests = shapes.iter().map(|dims| args.norm.request(dims));
    let requests = requests.collect::<Result<Vec<Request>>>()?;
    let gpu = device::open_best(args.adapter.as_deref())?;
    let mut out = std::io::stdout().lock();
    for request in &requests {
        let heading = format!("{request}, on {}", gpu.describe());
        writeln!(out, "{}", title(heading))?;
    }
    let tuned = search(&args, &gpu, &requests)?;
    let mut table = Table::new(["tried", "result"]);
    for trial in &tuned.trials {
        table.row([trial.setting.clone(), verdict(&trial.verdict)]);
    }
    write!(out, "{table}")?;
    // Fields that are not the default's, and what that gains.
    let default = device::tuning(&gpu)?.settings();
    let settings = tuned.tuning.settings().into_iter().zip(default);
    let changes = settings.filter(|(ours, default)| ours != default);
    let changes = changes.map(|((name, ours), (_, was))| format!("{name}={ours} (default {was})"));
    let changes: Vec<String> = changes.collect();
    let gains = requests
        .iter()
        .zip(&tuned.ratios)
        .map(|(request, [forward, backward])| {
            format!("{request}: forward {forward:.2}, backward {backward:.2} of the default's time")
        });
    let gains: Vec<String> = gains.collect();
    if changes.is_empty() {
        writeln!(out, "nothing is clearly faster than the default")?;
    } else {
        writeln!(
            out,
            "{}\n  {}",
            title(changes.join(", ")),
            gains.join("\n  ")
        )?;
    }
    if let Some(file) = save {
        let version = env!("CARGO_PKG_VERSION");
        let origin = format!("bcnorm tune {version}, on {}", gpu.describe());
        let comments = [origin].into_iter().chain(gains).chain(changes);
        let comments: String = comments.map(|comment| format!("# {comment}\n")).collect();
        file.write(format!("{comments}{}", tuned.tuning).as_bytes())?;
        writeln!(out, "written to {file}")?;
    }
    Ok(())
}

fn search(args: &Args, gpu: &Gpu, requests: &[Request]) -> Result<Tuned> {
    let work = requests
        .iter()
        .map(|request| (request.norm, request.tensor.clone()));
    let work: Vec<_> = work.collect();
    let effort = Effort::default()
        .with_submission(Duration::from_millis(u64::from(args.submission_ms)))
        .with_rounds(args.repeats)
        .with_passes(args.passes)
        .with_limit(args.seconds.map(Duration::from_secs));
    // How many trials there will be, nobody knows.
    let bar = progress::bar(20, "tune");
    let watch = |trial: &Trial| {
        bar.inc_length(1);
        bar.inc(1);
        bar.set_message(format!("{}: {}", trial.setting, verdict(&trial.verdict)));
    };
    let tuned = device::guarded(gpu, || {
        let search = autotune(&gpu.device, &gpu.queue, &work, effort, watch);
        Ok(pollster::block_on(search)?)
    });
    bar.finish_and_clear();
    tuned
}

fn verdict(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Faster(ratio) => format!("{ratio:.2} of the time, kept"),
        Verdict::NotFaster(ratio) => format!("{ratio:.2} of the time"),
        Verdict::Refused(error) => format!("refused: {error}"),
        Verdict::Wrong(role) => format!("WRONG {role}"),
        _ => String::new(),
    }
}
