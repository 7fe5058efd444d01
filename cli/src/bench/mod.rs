//! `bcnorm bench`: milliseconds and bytes of each direction, against a copy of the same tensor, a read of it,
//! the same work op by op, and the CPU executor.
//!
//! A wrong kernel is not timed: every output is checked against an f64 reference first, and after
//! timing what was timed must have written the same bits.

mod cliffs;
pub mod clock;
mod composition;
mod data;
mod kernel;
mod measure;
mod plot;
mod report;
mod subject;
mod suite;
pub mod timing;

use crate::request::{Dims, Direction, NormArgs, Request, norm_parser, parse_dims};
use crate::text::describe_error;
use crate::{device, progress, store, tuning};
use anyhow::{Context as _, Result, ensure};
use bcnorm::gpu::Pipelines;
use bcnorm::gpu::headless::Gpu;
use bcnorm::{Mode, NormKind, Tuning, cpu};
use indicatif::ProgressBar;
use measure::{Machine, What};
use report::Measurement;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;
use subject::{Reference, check_fits, on_cpu};
use suite::Suite;

/// Arguments of `bcnorm bench`.
#[derive(clap::Args, Debug)]
#[command(
    // The filters of a convolution are no activations.
    mut_arg("norm", |arg| {
        arg.value_parser(norm_parser(|kind| kind != NormKind::WeightStandardization))
    }),
    after_help = "\
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
  bcnorm bench --tune map.workgroup_size=64 --steps     and with another tuning (see bcnorm info)"
)]
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
    #[command(flatten)]
    norm: NormArgs,
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

/// A shape to measure, and where it comes from.
pub struct Case {
    request: Request,
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
        let writable = std::fs::create_dir_all(folder).map_err(anyhow::Error::from);
        let writable = writable.and_then(|()| store::check_writable(folder));
        writable.with_context(|| format!("--plot {}", folder.display()))?;
    }
    let machines = machines(&args)?;
    let (full, lean) = (args.what(false), args.what(true));
    let rounds = |what: &What| what.effort.rounds as usize * (1 + usize::from(what.steps));
    let what = |case: &Case| if case.part.is_some() { &lean } else { &full };
    let steps: usize = cases.iter().map(|case| rounds(what(case))).sum();
    let bar = progress::bar(steps * machines.len(), "bench");
    let mut bench = Bench {
        args: &args,
        cases: &cases,
        machines: &machines,
        bar,
        measured: Vec::new(),
    };
    let mut failed = 0;
    for (case, what) in cases.iter().map(what).enumerate() {
        let before = bench.bar.position();
        failed += bench.case(case, what)?;
        let steps = rounds(what) * machines.len();
        bench.bar.set_position(before + steps as u64);
    }
    bench.again(&lean)?;
    bench.bar.finish_and_clear();
    bench.summarize()?;
    bench.plot()?;
    let total = cases.len() * machines.len();
    ensure!(failed == 0, "{failed} of {total} measurements failed");
    Ok(())
}

/// What is to be measured, and what was.
struct Bench<'a> {
    args: &'a Args,
    cases: &'a [Case],
    machines: &'a [Machine],
    bar: ProgressBar,
    measured: Vec<Measured>,
}

impl Bench<'_> {
    /// Measures a case on every machine, and says on how many that failed.
    fn case(&mut self, index: usize, what: &What) -> Result<usize> {
        let (case, bar) = (&self.cases[index], self.bar.clone());
        let shape = case.request.shape();
        let mut failed = 0;
        let mut complain = |gpu: &Gpu, error: anyhow::Error| {
            failed += 1;
            let why = describe_error(&error);
            let text = format!("error: {shape} on {}: {why}", gpu.describe());
            bar.suspend(|| writeln!(std::io::stderr(), "{text}"))
        };
        let mut fitting = Vec::new();
        for (number, machine) in self.machines.iter().enumerate() {
            match check_fits(&case.request, &machine.gpu, &machine.pipelines) {
                Ok(()) => fitting.push((number, machine)),
                Err(error) => complain(&machine.gpu, error)?,
            }
        }
        if fitting.is_empty() {
            return Ok(failed);
        }
        bar.set_message(format!("{shape}: reference"));
        let reference = Reference::new(&case.request, &what.directions)?;
        let on_cpu = |executor| on_cpu(&reference, &what.directions, &executor);
        let [cpu_ms, cpu_1_ms] = match self.args.no_cpu || what.lean {
            true => [Vec::new(), Vec::new()],
            false => {
                bar.set_message(format!("{shape}: CPU executor"));
                [
                    on_cpu(cpu::Executor::new())?,
                    on_cpu(cpu::Executor::with_threads(1))?,
                ]
            }
        };
        for (number, machine) in fitting {
            bar.set_message(format!("{shape}: {}", machine.gpu.describe()));
            match measure::measure(machine, case, &reference, what, &bar) {
                Ok(mut measurements) => {
                    for (index, measurement) in measurements.iter_mut().enumerate() {
                        measurement.cpu_ms = cpu_ms.get(index).copied();
                        measurement.cpu_1_ms = cpu_1_ms.get(index).copied();
                    }
                    self.print(machine, case, &measurements)?;
                    self.measured.push(Measured {
                        case: index,
                        machine: number,
                        measurements,
                    });
                }
                Err(error) => complain(&machine.gpu, error)?,
            }
        }
        Ok(failed)
    }

    /// Prints what was measured of one case: of cliffs only lines of JSON, of which there are hundreds.
    fn print(&self, machine: &Machine, case: &Case, measured: &[Measurement]) -> Result<()> {
        let mut text = String::new();
        if self.args.json {
            for measurement in measured {
                text += &serde_json::to_string(measurement)?;
                text += "\n";
            }
        } else if case.part.is_none() {
            text = report::table(&machine.gpu.describe(), &case.request, measured);
        }
        Ok(self
            .bar
            .suspend(|| std::io::stdout().lock().write_all(text.as_bytes()))?)
    }

    /// What was measured of a part of the cliffs on a machine, and where in `measured`.
    fn of_part(&self, part: cliffs::Part, machine: usize) -> (Vec<usize>, Vec<&Measurement>) {
        let of = self.measured.iter().enumerate();
        let of = of.filter(|(_, m)| m.machine == machine && self.cases[m.case].part == Some(part));
        of.flat_map(|(owner, m)| m.measurements.iter().map(move |one| (owner, one)))
            .unzip()
    }

    /// Measures the worst of the cliffs again: the better time counts, lest a busy moment of the machine pass for
    /// a cliff.
    fn again(&mut self, what: &What) -> Result<()> {
        for part in [cliffs::Part::Scan, cliffs::Part::Random] {
            for (index, machine) in self.machines.iter().enumerate() {
                let (owners, all) = self.of_part(part, index);
                let doubtful = cliffs::doubtful(&all, part).into_iter().map(|i| owners[i]);
                let mut doubtful: Vec<usize> = doubtful.collect();
                doubtful.dedup();
                self.bar
                    .inc_length(doubtful.len() as u64 * u64::from(what.effort.rounds));
                for owner in doubtful {
                    let case = &self.cases[self.measured[owner].case];
                    self.bar
                        .set_message(format!("{} again", case.request.shape()));
                    let reference = Reference::new(&case.request, &what.directions)?;
                    let mut second = measure::measure(machine, case, &reference, what, &self.bar)?;
                    let first = &mut self.measured[owner].measurements;
                    for (first, second) in first.iter_mut().zip(&mut second) {
                        second.again = true;
                        if second.ms < first.ms {
                            *first = second.clone();
                        }
                    }
                    self.print(machine, case, &second)?;
                }
            }
        }
        Ok(())
    }

    /// Prints what the cliffs come to.
    fn summarize(&self) -> Result<()> {
        let mut out = std::io::stdout().lock();
        for part in [cliffs::Part::Scan, cliffs::Part::Random] {
            for index in 0..self.machines.len() {
                let (_, all) = self.of_part(part, index);
                for direction in Direction::ALL {
                    let of = all
                        .iter()
                        .copied()
                        .filter(|m| m.direction == direction.name());
                    match cliffs::Summary::of(&of.collect::<Vec<_>>(), part) {
                        Some(summary) if self.args.json => {
                            writeln!(out, "{}", serde_json::to_string(&summary)?)?;
                        }
                        Some(summary) => write!(out, "{summary}")?,
                        None => {}
                    }
                }
            }
        }
        Ok(())
    }

    /// Draws charts, where they are asked for.
    fn plot(&self) -> Result<()> {
        let Some(folder) = &self.args.plot else {
            return Ok(());
        };
        let mut written = Vec::new();
        for index in 0..self.machines.len() {
            let of_machine = self.measured.iter().filter(|m| m.machine == index);
            let all: Vec<&Measurement> = of_machine.flat_map(|m| &m.measurements).collect();
            written.extend(plot::draw(folder, &all, &written)?);
        }
        for path in &written {
            writeln!(std::io::stderr(), "wrote {}", path.display())?;
        }
        Ok(())
    }
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
        let request = args.norm.request(&Dims(dims))?;
        data::check_size(&request)?;
        // A suite is for all norms, and has shapes that some of them refuse.
        match (
            suite,
            request.norm.validate_for(&request.tensor, Mode::Train),
        ) {
            (Some(_), Err(error)) => {
                let why = describe_error(&error.into());
                writeln!(
                    std::io::stderr(),
                    "note: {} is left out: {why}",
                    request.shape()
                )?;
            }
            (_, refused) => {
                refused?;
                cases.push(Case {
                    request,
                    suite,
                    part,
                });
            }
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
    let machine = |gpu: Gpu| {
        let mut tuning = Tuning::for_device(&gpu.device);
        for setting in &args.tune {
            tuning::apply(&mut tuning, setting)?;
        }
        let pipelines = Pipelines::with_tuning(&gpu.device, tuning);
        Ok(Machine::new(gpu, pipelines))
    };
    gpus.into_iter().map(machine).collect()
}
