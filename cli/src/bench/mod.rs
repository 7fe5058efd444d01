//! `bcnorm bench`: milliseconds and bytes of each direction, against a copy of the same tensor.
//!
//! A wrong kernel is not timed: every output is checked against the f64 oracle first, and after
//! timing what was timed must have written the same bits.

mod copy;
mod report;
mod shape;
mod subject;
mod timing;

use crate::{device, progress, tuning};
use anyhow::{Context as _, Result, ensure};
use bcnorm::gpu::Pipelines;
use bcnorm::gpu::headless::Gpu;
use bcnorm::{DType, Layout, Role, Tuning, cpu};
use report::{Measurement, Step, write_json, write_table};
use shape::{DEFAULTS, Dims, Shape, parse_dims};
use std::io::Write as _;
use std::time::Duration;
use subject::{Reference, Subject, check_fits, on_cpu};

/// Arguments of `bcnorm bench`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Forward is training forward (3 tensor-sized transfers), backward yields all gradients (5), eval is \
forward with running statistics. \"copies\" is the time divided by that of a kernel that copies the \
same tensor (2 transfers), the fastest of a few workgroup sizes, timed in the same run. A result that \
is further than 5e-6 from the f64 oracle (or, in 16 bits, than a unit in the last place) is not timed.

Examples:
  bcnorm bench                                      five shapes of real networks
  bcnorm bench --shape 32,256,14,14 --groups 16     a shape of yours
  bcnorm bench --adapter all --json > bench.jsonl   every adapter, for a program to read
  bcnorm bench --dtype bf16 --layout last           16 bits, channels last
  bcnorm bench --direction forward --steps          which stage takes how long
  bcnorm bench --tune workgroup_size=64 --steps     and with another tuning (see bcnorm info)")]
pub struct Args {
    /// Shape to measure, may be repeated [default: five shapes of real networks]
    #[arg(long = "shape", value_name = "N,C,H,W", value_parser = parse_dims)]
    shapes: Vec<Dims>,
    /// Groups [default: 32, or the largest divisor of C below]
    #[arg(long, value_name = "G")]
    groups: Option<usize>,
    /// How tensors are stored: f32, f16 or bf16
    #[arg(long, default_value = "f32", value_parser = parse_dtype)]
    dtype: DType,
    /// Order in memory: first (N, C, H, W) or last (N, H, W, C)
    #[arg(long, default_value = "first", value_parser = parse_layout)]
    layout: Layout,
    /// "all", or a part of an adapter's name or backend [default: the best adapter]
    #[arg(long, value_name = "all|NAME")]
    adapter: Option<String>,
    /// Directions to measure, may be repeated [default: all three]
    #[arg(long = "direction", value_enum, value_name = "DIRECTION")]
    directions: Vec<Direction>,
    /// Submissions whose median is taken
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeats: u32,
    /// Milliseconds that a submission should take: the work is repeated in it as often as that needs
    #[arg(long, value_name = "MS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=1000))]
    submission_ms: u32,
    /// Time every step of the plans alone, too
    #[arg(long)]
    steps: bool,
    /// Change a number of the adapter's tuning, may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    tune: Vec<String>,
    /// Do not time the CPU executor
    #[arg(long)]
    no_cpu: bool,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

fn parse_dtype(text: &str) -> Result<DType, String> {
    [DType::F32, DType::F16, DType::BF16]
        .into_iter()
        .find(|dtype| dtype.name() == text)
        .ok_or_else(|| "expected f32, f16 or bf16".to_owned())
}

fn parse_layout(text: &str) -> Result<Layout, String> {
    match text {
        "first" | "nchw" => Ok(Layout::ChannelsFirst),
        "last" | "nhwc" => Ok(Layout::ChannelsLast),
        _ => Err("expected first (or nchw), last (or nhwc)".to_owned()),
    }
}

/// What is measured.
#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Training forward.
    Forward,
    /// All gradients.
    Backward,
    /// Forward with running statistics.
    Eval,
}

impl Direction {
    const ALL: [Direction; 3] = [Direction::Forward, Direction::Backward, Direction::Eval];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Direction::Forward => "forward",
            Direction::Backward => "backward",
            Direction::Eval => "eval",
        }
    }
}

/// Runs `bcnorm bench`.
pub fn run(args: Args) -> Result<()> {
    let shapes = shapes(&args)?;
    let directions = match args.directions.as_slice() {
        [] => Direction::ALL.to_vec(),
        some => some.to_vec(),
    };
    let machines = machines(&args)?;
    let mut out = std::io::stdout().lock();
    let steps =
        shapes.len() * machines.len() * (args.repeats as usize) * (1 + usize::from(args.steps));
    let bar = progress::bar(steps, "bench");
    let mut failed = 0;
    for shape in &shapes {
        let mut complain = |gpu: &Gpu, error: anyhow::Error| {
            failed += 1;
            let text = format!("error: {shape} on {}: {error:#}", gpu.describe());
            bar.suspend(|| writeln!(std::io::stderr(), "{text}"))
        };
        let mut fitting = Vec::new();
        for (gpu, pipelines) in &machines {
            match check_fits(shape, gpu, pipelines) {
                Ok(()) => fitting.push((gpu, pipelines)),
                Err(error) => complain(gpu, error)?,
            }
        }
        if fitting.is_empty() {
            continue;
        }
        bar.set_message(format!("{shape}: oracle"));
        let mut reference = Reference::new(shape, &directions)?;
        let cpu_ms = match args.no_cpu {
            true => Vec::new(),
            false => {
                bar.set_message(format!("{shape}: CPU executor"));
                on_cpu(&reference, &directions, &cpu::Executor::new())?
            }
        };
        for (gpu, pipelines) in fitting {
            bar.set_message(format!("{shape}: {}", gpu.describe()));
            match measure(&args, gpu, pipelines, &mut reference, &directions, &bar) {
                Ok(mut measured) => {
                    for (measurement, ms) in measured.iter_mut().zip(&cpu_ms) {
                        measurement.cpu_ms = Some(*ms);
                    }
                    let mut text = Vec::new();
                    if args.json {
                        write_json(&measured, &mut text)?;
                    } else {
                        write_table(&gpu.describe(), shape, &measured, &mut text)?;
                    }
                    bar.suspend(|| out.write_all(&text))?;
                }
                Err(error) => complain(gpu, error)?,
            }
        }
    }
    bar.finish_and_clear();
    let total = shapes.len() * machines.len();
    ensure!(failed == 0, "{failed} of {total} measurements failed");
    Ok(())
}

fn shapes(args: &Args) -> Result<Vec<Shape>> {
    let given = args.shapes.iter().map(|dims| dims.0.as_slice());
    let dims: Vec<&[usize]> = match args.shapes.as_slice() {
        [] => DEFAULTS.to_vec(),
        _ => given.collect(),
    };
    dims.into_iter()
        .map(|dims| Ok(Shape::new(dims, args.groups)?.with_storage(args.dtype, args.layout)))
        .collect()
}

/// The devices to measure on.
fn machines(args: &Args) -> Result<Vec<(Gpu, Pipelines)>> {
    let gpus = match args.adapter.as_deref() {
        Some(name) if name.eq_ignore_ascii_case("all") => device::select("all")?
            .into_iter()
            .map(device::open)
            .collect::<Result<Vec<_>>>()?,
        name => vec![device::open_best(name)?],
    };
    gpus.into_iter()
        .map(|gpu| {
            let mut tuning = Tuning::for_device(&gpu.device);
            for setting in &args.tune {
                tuning::apply(&mut tuning, setting)?;
            }
            let pipelines = Pipelines::with_tuning(&gpu.device, tuning);
            Ok((gpu, pipelines))
        })
        .collect()
}

/// Checks, then times, all directions of one shape on one device.
fn measure(
    args: &Args,
    gpu: &Gpu,
    pipelines: &Pipelines,
    reference: &mut Reference,
    directions: &[Direction],
    bar: &indicatif::ProgressBar,
) -> Result<Vec<Measurement>> {
    let errors = reference.check(gpu, pipelines)?;
    let training = reference.training();
    let stored = training.words(Role::X, &training.x);
    let copies = copy::Copies::new(gpu, bytemuck::cast_slice(&stored))?;
    let subject = Subject::new(gpu, pipelines, reference)?;
    device::guarded(gpu, || {
        let bound = subject.bind()?;
        let mut candidates: Vec<_> = copies.candidates().collect();
        let num_copies = candidates.len();
        for &direction in directions {
            candidates.push(bound.candidate(direction));
        }
        let effort = timing::Effort {
            submission: Duration::from_millis(u64::from(args.submission_ms)),
            rounds: args.repeats,
        };
        bound.prime(gpu);
        timing::measure(gpu, &mut candidates, effort, bar)?;
        subject
            .check_written(reference, directions)
            .context("what was timed is not what was checked")?;

        let (copied, timed) = candidates.split_at(num_copies);
        let (copy_ms, copy_workgroup_size) = copied
            .iter()
            .map(timing::Candidate::median_ms)
            .zip(copies.workgroup_sizes())
            .min_by(|a, b| a.0.total_cmp(&b.0))
            .context("no workgroup size for a copy")?;
        let steps = match args.steps {
            true => time_steps(gpu, &bound, directions, effort, bar)?,
            false => directions.iter().map(|_| Vec::new()).collect(),
        };
        let info = gpu.adapter.get_info();
        let shape = reference.shape();
        Ok(directions
            .iter()
            .zip(timed)
            .zip(steps)
            .map(|((&direction, candidate), steps)| {
                let ms = candidate.median_ms();
                let bytes = bound.tensor_bytes(direction);
                Measurement {
                    adapter: info.name.clone(),
                    backend: format!("{:?}", info.backend),
                    shape: shape.dims.clone(),
                    groups: shape.groups,
                    dtype: shape.dtype.name(),
                    layout: match shape.layout {
                        Layout::ChannelsLast => "nhwc",
                        _ => "nchw",
                    },
                    norm: "bcnorm",
                    direction: direction.name(),
                    ms,
                    bytes,
                    gb_per_s: bytes as f64 / ms / 1e6,
                    copy_ms,
                    copy_bytes: 2 * shape.bytes(),
                    copy_workgroup_size,
                    ratio_to_copy: ms / copy_ms,
                    cpu_ms: None,
                    error: errors.of(direction),
                    steps,
                }
            })
            .collect())
    })
}

/// Times the steps of each direction's plan, each alone.
fn time_steps(
    gpu: &Gpu,
    bound: &subject::BoundSubject<'_>,
    directions: &[Direction],
    effort: timing::Effort,
    bar: &indicatif::ProgressBar,
) -> Result<Vec<Vec<Step>>> {
    let mut candidates = Vec::new();
    for &direction in directions {
        candidates.extend(bound.step_candidates(direction));
    }
    timing::measure(gpu, &mut candidates, effort, bar)?;
    let mut medians = candidates.iter().map(timing::Candidate::median_ms);
    Ok(directions
        .iter()
        .map(|&direction| {
            let steps = bound.plan(direction).steps();
            steps
                .iter()
                .zip(medians.by_ref())
                .map(|(step, ms)| Step::new(step, ms))
                .collect()
        })
        .collect())
}
