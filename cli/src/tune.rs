//! `bcnorm tune`: a measured search for a faster tuning of an adapter.

use crate::request::{Dims, Request, any_norm, norm_parser, parse_dims, parse_dtype, parse_layout};
use crate::store::Destination;
use crate::table::{Table, title};
use crate::{device, progress};
use anyhow::Result;
use bcnorm::gpu::autotune::{Effort, Tuned, Verdict, autotune};
use bcnorm::gpu::headless::Gpu;
use bcnorm::{DType, Layout, NormKind, Tuning};
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
    /// Which normalization
    #[arg(long, value_name = "NAME", default_value = "bc_norm", value_parser = norm_parser(any_norm))]
    norm: NormKind,
    /// Groups [default: 32, or the largest divisor of C below]
    #[arg(long, value_name = "G")]
    groups: Option<usize>,
    /// How tensors are stored: f32, f16 or bf16
    #[arg(long, default_value = "f32", value_parser = parse_dtype)]
    dtype: DType,
    /// Order in memory: first (N, C, H, W) or last (N, H, W, C)
    #[arg(long, default_value = "first", value_parser = parse_layout)]
    layout: Layout,
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
    let requests = shapes
        .iter()
        .map(|dims| Request::new(args.norm, dims, args.groups, args.dtype, args.layout))
        .collect::<Result<Vec<Request>>>()?;
    let gpu = device::open_best(args.adapter.as_deref())?;
    let mut out = std::io::stdout().lock();
    for request in &requests {
        writeln!(
            out,
            "{}",
            title(&format!("{request}, on {}", gpu.describe()))
        )?;
    }
    let tuned = search(&args, &gpu, &requests)?;
    report(&tuned, &requests, &gpu, &mut out)?;
    if let Some(file) = save {
        file.write(text(&tuned, &requests, &gpu).as_bytes())?;
        writeln!(out, "written to {file}")?;
    }
    Ok(())
}

fn search(args: &Args, gpu: &Gpu, requests: &[Request]) -> Result<Tuned> {
    let work: Vec<_> = requests
        .iter()
        .map(|request| (request.norm, request.tensor.clone()))
        .collect();
    let effort = Effort {
        submission: Duration::from_millis(u64::from(args.submission_ms)),
        rounds: args.repeats,
        passes: args.passes,
    };
    // How many trials there will be, nobody knows.
    let bar = progress::bar(20, "tune");
    let tuned = device::guarded(gpu, || {
        let watch = |trial: &bcnorm::gpu::autotune::Trial| {
            bar.inc_length(1);
            bar.inc(1);
            bar.set_message(format!("{}: {}", trial.setting, verdict(&trial.verdict)));
        };
        Ok(pollster::block_on(autotune(
            &gpu.device,
            &gpu.queue,
            &work,
            effort,
            watch,
        ))?)
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

/// Fields that are not the default's.
fn changes(tuned: &Tuned, gpu: &Gpu) -> Vec<String> {
    let default = Tuning::for_device(&gpu.device).settings();
    let settings = tuned.tuning.settings().into_iter().zip(default);
    settings
        .filter(|(ours, default)| ours != default)
        .map(|((name, ours), (_, default))| format!("{name}={ours} (default {default})"))
        .collect()
}

fn report(
    tuned: &Tuned,
    requests: &[Request],
    gpu: &Gpu,
    out: &mut impl std::io::Write,
) -> Result<()> {
    let mut table = Table::new(["tried", "result"]);
    for trial in &tuned.trials {
        table.row([trial.setting.clone(), verdict(&trial.verdict)]);
    }
    table.write(out)?;
    let changes = changes(tuned, gpu);
    if changes.is_empty() {
        writeln!(out, "nothing is clearly faster than the default")?;
        return Ok(());
    }
    writeln!(out, "{}", title(&changes.join(", ")))?;
    for (request, [forward, backward]) in requests.iter().zip(&tuned.ratios) {
        writeln!(
            out,
            "  {request}: forward {forward:.2}, backward {backward:.2} of the default's time"
        )?;
    }
    Ok(())
}

/// The file: the tuning, and in comments where it comes from.
fn text(tuned: &Tuned, requests: &[Request], gpu: &Gpu) -> String {
    let mut text = format!(
        "# bcnorm tune {}, on {}\n",
        env!("CARGO_PKG_VERSION"),
        gpu.describe()
    );
    for (request, [forward, backward]) in requests.iter().zip(&tuned.ratios) {
        text += &format!(
            "# {request}: forward {forward:.2}, backward {backward:.2} of the default's time\n"
        );
    }
    for change in changes(tuned, gpu) {
        text += &format!("# {change}\n");
    }
    text + &tuned.tuning.to_string()
}
