//! `bcnorm bench`: milliseconds and bytes of each direction, against a copy of the same tensor, a read of it,
//! the same work op by op, and the CPU executor.
//!
//! A wrong kernel is not timed: every output is checked against an f64 reference first, and after
//! timing what was timed must have written the same bits.

mod cliffs;
mod clock;
mod composition;
mod copy;
mod kernel;
mod measure;
mod plot;
mod read;
mod report;
mod shape;
mod subject;
mod suite;
mod timing;

use crate::request::{Dims, Direction, norm_parser, parse_dims, parse_dtype, parse_layout};
use crate::text::describe_error;
use crate::{device, progress, store, tuning};
use anyhow::{Context as _, Result, ensure};
use bcnorm::gpu::Pipelines;
use bcnorm::gpu::headless::Gpu;
use bcnorm::{DType, Layout, Mode, NormKind, TensorDesc, Tuning, cpu};
use measure::{Machine, What};
use report::{Measurement, write_json, write_table};
use shape::Shape;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;
use subject::{Reference, check_fits, on_cpu};
use suite::Suite;

/// Arguments of `bcnorm bench`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Forward is training forward (3 tensor-sized transfers), backward yields all gradients (5), eval is \
forward with running statistics. \"copies\" is the time divided by that of a kernel that copies the \
same tensor (2 transfers), the fastest of a few workgroup sizes, timed in the same run; \"read\" reads it \
and writes nothing (1 transfer). \"op by op\" is the same work as an eager framework dispatches it (10 \
transfers forward, 17 backward, 9 in eval; bc_norm on f32 with channels first). A result that is further \
than 5e-6 from an f64 reference (or, in 16 bits, than a unit in the last place) is not timed. Time on the \
device is by its timestamps where these agree with the wall clock, else by the wall clock.

Examples:
  bcnorm bench                                      five shapes of real networks
  bcnorm bench --shape 32,256,14,14 --groups 16     a shape of yours
  bcnorm bench --adapter all --json > bench.jsonl   every adapter, for a program to read
  bcnorm bench --suite resnet50,unet --plot charts  named lists of shapes; charts as SVG
  bcnorm bench --suite cliffs --filter random       where does time per byte jump?
  bcnorm bench --norm group_norm                    another norm of the family
  bcnorm bench --dtype bf16 --layout last           16 bits, channels last
  bcnorm bench --direction forward --steps          which stage takes how long
  bcnorm bench --tune workgroup_size=64 --steps     and with another tuning (see bcnorm info)")]
pub struct Args {
    /// Shape to measure, may be repeated
    #[arg(long = "shape", value_name = "N,C,H,W", value_parser = parse_dims)]
    shapes: Vec<Dims>,
    /// Named list of shapes, may be repeated [default: default, where no shape is given]
    #[arg(long = "suite", value_enum, value_name = "NAME", value_delimiter = ',')]
    suites: Vec<Suite>,
    /// Only this part of the suite cliffs
    #[arg(long, value_enum, value_name = "PART")]
    filter: Option<cliffs::Part>,
    /// Seed of the random shapes of the suite cliffs
    #[arg(long, value_name = "N", default_value_t = 4)]
    seed: u64,
    /// Which norm
    #[arg(long, value_name = "NAME", default_value = "bc_norm", value_parser = norm_parser(is_of_activations))]
    norm: NormKind,
    /// Groups of bc_norm and group_norm [default: 32, or the largest divisor of C below]
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
    /// Directions to measure, may be repeated [default: all three; cliffs: forward and backward]
    #[arg(long = "direction", value_enum, value_name = "DIRECTION")]
    directions: Vec<Direction>,
    /// Submissions whose median is taken [default: 9; cliffs: 5]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeats: Option<u32>,
    /// Milliseconds that a submission should take: the work is repeated in it as often as that needs
    /// [default: 60; cliffs: 12]
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(1..=1000))]
    submission_ms: Option<u32>,
    /// Time every step of the plans alone, too
    #[arg(long)]
    steps: bool,
    /// Change a number of the adapter's tuning, may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    tune: Vec<String>,
    /// Draw charts of what was measured into this folder, as SVG
    #[arg(long, value_name = "DIR")]
    plot: Option<PathBuf>,
    /// Do not time the CPU executor
    #[arg(long)]
    no_cpu: bool,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

/// The filters of a convolution are no activations.
fn is_of_activations(kind: NormKind) -> bool {
    kind != NormKind::WeightStandardization
}

/// A shape to measure, and where it comes from.
pub struct Case {
    shape: Shape,
    /// None where the shape was given by itself.
    suite: Option<Suite>,
    part: Option<cliffs::Part>,
}

/// A case measured on one of the machines, as indices, and the directions.
struct Measured {
    case: usize,
    machine: usize,
    measurements: Vec<Measurement>,
}

/// Runs `bcnorm bench`.
pub fn run(args: Args) -> Result<()> {
    let cases = cases(&args)?;
    if let Some(folder) = &args.plot {
        // Before minutes are spent on measuring.
        std::fs::create_dir_all(folder).with_context(|| format!("--plot {}", folder.display()))?;
        store::check_writable(folder).with_context(|| format!("--plot {}", folder.display()))?;
    }
    let machines = machines(&args)?;
    let (full, lean) = (args.what(false), args.what(true));
    let rounds = |what: &What| what.effort.rounds as usize * (1 + usize::from(what.steps));
    let what = |case: &Case| if case.part.is_some() { &lean } else { &full };
    let steps: usize = cases.iter().map(|case| rounds(what(case))).sum();
    let bar = progress::bar(steps * machines.len(), "bench");
    let mut failed = 0;
    let mut measured = Vec::new();
    for (case_index, case) in cases.iter().enumerate() {
        let (shape, what) = (&case.shape, what(case));
        let before = bar.position();
        let mut complain = |gpu: &Gpu, error: anyhow::Error| {
            failed += 1;
            let why = describe_error(&error);
            let text = format!("error: {shape} on {}: {why}", gpu.describe());
            bar.suspend(|| writeln!(std::io::stderr(), "{text}"))
        };
        let mut fitting = Vec::new();
        for (index, machine) in machines.iter().enumerate() {
            match check_fits(shape, &machine.gpu, &machine.pipelines) {
                Ok(()) => fitting.push((index, machine)),
                Err(error) => complain(&machine.gpu, error)?,
            }
        }
        if !fitting.is_empty() {
            bar.set_message(format!("{shape}: reference"));
            let reference = Reference::new(shape, &what.directions)?;
            let on_cpu = |executor| on_cpu(&reference, &what.directions, &executor);
            let (cpu_ms, cpu_1_ms) = match args.no_cpu || what.lean {
                true => (Vec::new(), Vec::new()),
                false => {
                    bar.set_message(format!("{shape}: CPU executor"));
                    let all = on_cpu(cpu::Executor::new())?;
                    (all, on_cpu(cpu::Executor::with_threads(1))?)
                }
            };
            for (index, machine) in fitting {
                bar.set_message(format!("{shape}: {}", machine.gpu.describe()));
                match measure::measure(machine, case, &reference, what, &bar) {
                    Ok(mut measurements) => {
                        for (index, measurement) in measurements.iter_mut().enumerate() {
                            measurement.cpu_ms = cpu_ms.get(index).copied();
                            measurement.cpu_1_ms = cpu_1_ms.get(index).copied();
                        }
                        print(&args, machine, case, &measurements, &bar)?;
                        measured.push(Measured {
                            case: case_index,
                            machine: index,
                            measurements,
                        });
                    }
                    Err(error) => complain(&machine.gpu, error)?,
                }
            }
        }
        bar.set_position(before + (rounds(what) * machines.len()) as u64);
    }
    again(&args, &lean, &machines, &cases, &mut measured, &bar)?;
    bar.finish_and_clear();
    summarize(&args, &machines, &cases, &measured)?;
    if let Some(folder) = &args.plot {
        let mut written = Vec::new();
        for index in 0..machines.len() {
            let of_machine = measured.iter().filter(|m| m.machine == index);
            let all: Vec<&Measurement> = of_machine.flat_map(|m| &m.measurements).collect();
            let paths = plot::draw(folder, &all, &written)?;
            written.extend(paths);
        }
        for path in &written {
            writeln!(std::io::stderr(), "wrote {}", path.display())?;
        }
    }
    let total = cases.len() * machines.len();
    ensure!(failed == 0, "{failed} of {total} measurements failed");
    Ok(())
}

/// Prints what was measured of one case: of cliffs only lines of JSON, of which there are hundreds.
fn print(
    args: &Args,
    machine: &Machine,
    case: &Case,
    measurements: &[Measurement],
    bar: &indicatif::ProgressBar,
) -> Result<()> {
    let mut text = Vec::new();
    if args.json {
        write_json(measurements, &mut text)?;
    } else if case.part.is_none() {
        write_table(
            &machine.gpu.describe(),
            &case.shape,
            measurements,
            &mut text,
        )?;
    }
    Ok(bar.suspend(|| std::io::stdout().lock().write_all(&text))?)
}

/// Measures the worst of the cliffs again: the better time counts, lest a busy moment of the machine pass
/// for a cliff.
fn again(
    args: &Args,
    what: &What,
    machines: &[Machine],
    cases: &[Case],
    measured: &mut [Measured],
    bar: &indicatif::ProgressBar,
) -> Result<()> {
    for part in [cliffs::Part::Scan, cliffs::Part::Random] {
        for (index, machine) in machines.iter().enumerate() {
            let of_part = |m: &Measured| m.machine == index && cases[m.case].part == Some(part);
            let (owners, all): (Vec<usize>, Vec<&Measurement>) = measured
                .iter()
                .enumerate()
                .filter(|(_, m)| of_part(m))
                .flat_map(|(owner, m)| m.measurements.iter().map(move |one| (owner, one)))
                .unzip();
            let doubtful = cliffs::doubtful(&all, part);
            let mut doubtful: Vec<usize> = doubtful.into_iter().map(|i| owners[i]).collect();
            doubtful.dedup();
            bar.inc_length(doubtful.len() as u64 * u64::from(what.effort.rounds));
            for owner in doubtful {
                let case = &cases[measured[owner].case];
                bar.set_message(format!("{} again", case.shape));
                let reference = Reference::new(&case.shape, &what.directions)?;
                let mut second = measure::measure(machine, case, &reference, what, bar)?;
                for (first, second) in measured[owner].measurements.iter_mut().zip(&mut second) {
                    second.again = true;
                    if second.ms < first.ms {
                        *first = second.clone();
                    }
                }
                print(args, machine, case, &second, bar)?;
            }
        }
    }
    Ok(())
}

/// Prints what the cliffs come to.
fn summarize(
    args: &Args,
    machines: &[Machine],
    cases: &[Case],
    measured: &[Measured],
) -> Result<()> {
    let mut out = std::io::stdout().lock();
    for part in [cliffs::Part::Scan, cliffs::Part::Random] {
        for index in 0..machines.len() {
            for direction in Direction::ALL {
                let of: Vec<&Measurement> = measured
                    .iter()
                    .filter(|m| m.machine == index && cases[m.case].part == Some(part))
                    .flat_map(|m| &m.measurements)
                    .filter(|m| m.direction == direction.name())
                    .collect();
                match cliffs::Summary::of(&of, part) {
                    Some(summary) if args.json => {
                        writeln!(out, "{}", serde_json::to_string(&summary)?)?;
                    }
                    Some(summary) => summary.write(&mut out)?,
                    None => {}
                }
            }
        }
    }
    Ok(())
}

impl Args {
    /// What to measure: all there is, or what cliffs need.
    fn what(&self, lean: bool) -> What {
        let directions = match (self.directions.as_slice(), lean) {
            ([], true) => vec![Direction::Forward, Direction::Backward],
            ([], false) => Direction::ALL.to_vec(),
            (some, _) => some.to_vec(),
        };
        let milliseconds = self.submission_ms.unwrap_or(if lean { 12 } else { 60 });
        What {
            directions,
            effort: timing::Effort {
                submission: Duration::from_millis(u64::from(milliseconds)),
                rounds: self.repeats.unwrap_or(if lean { 5 } else { 9 }),
            },
            steps: self.steps,
            lean,
        }
    }
}

fn cases(args: &Args) -> Result<Vec<Case>> {
    ensure!(
        args.filter.is_none() || args.suites.contains(&Suite::Cliffs),
        "--filter picks a part of the suite cliffs: add --suite cliffs"
    );
    let given = args.shapes.iter().map(|dims| (None, None, dims.0.clone()));
    let suites = match (args.suites.as_slice(), args.shapes.as_slice()) {
        ([], []) => &[Suite::Default],
        (suites, _) => suites,
    };
    let listed = suites.iter().flat_map(|&suite| {
        let shapes = suite.shapes(args.seed).into_iter();
        shapes.map(move |(part, dims)| (Some(suite), part, dims))
    });
    let wanted = given.chain(listed).filter(|(_, part, _)| {
        part.is_none() || args.filter.is_none_or(|only| *part == Some(only))
    });
    let mut cases = Vec::new();
    for (suite, part, dims) in wanted {
        let shape =
            Shape::new(args.norm, &dims, args.groups)?.with_storage(args.dtype, args.layout);
        // A suite is for all norms, and has shapes that some of them refuse.
        let refused = shape
            .norm
            .validate_for(&TensorDesc::new(&dims)?, Mode::Train);
        match (suite, refused) {
            (Some(_), Err(error)) => {
                let why = describe_error(&error.into());
                writeln!(std::io::stderr(), "note: {shape} is left out: {why}")?;
            }
            (None, refused) => {
                refused?;
                cases.push(Case { shape, suite, part });
            }
            (Some(_), Ok(())) => cases.push(Case { shape, suite, part }),
        }
    }
    Ok(cases)
}

/// The devices to measure on.
fn machines(args: &Args) -> Result<Vec<Machine>> {
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
            Ok(Machine::new(gpu, pipelines))
        })
        .collect()
}
