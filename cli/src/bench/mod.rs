//! `bcnorm bench`: milliseconds and bytes of each direction, against a copy of the same tensor, a read of it,
//! the same work op by op, and the CPU executor.
//!
//! A wrong kernel is not timed: every output is checked against an f64 reference first, and after
//! timing what was timed must have written the same bits.

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
use bcnorm::{Mode, NormKind, cpu};
use indicatif::ProgressBar;
use measure::{Machine, What};
use report::Measurement;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use subject::{Reference, check_fits, on_cpu};
use suite::Suite;

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
  bcnorm bench --suite lengths,random --no-cpu --repeats 3 --submission-ms 10 --json --plot charts
                                                    where does time per byte jump? (10 minutes)
  bcnorm bench --norm group_norm                    another norm of the family
  bcnorm bench --dtype bf16 --layout last           16 bits, channels last
  bcnorm bench --direction forward --steps          which stage takes how long
  bcnorm bench --tune map.workgroup_size=64 --steps     and with another tuning (see bcnorm info)
  bcnorm bench --suite typical,resnet50 --seconds 120 --json > results.jsonl
  bcnorm section results.jsonl > section.md         as a section of benches/RESULTS.md"
)]
pub struct Args {
    /// Shape to measure, may be repeated
    #[arg(long = "shape", value_name = "N,C,H,W", value_parser = parse_dims)]
    shapes: Vec<Dims>,
    /// Named list of shapes, may be repeated [default: default, where no shape is given]
    #[arg(long = "suite", value_enum, value_name = "NAME", value_delimiter = ',')]
    suites: Vec<Suite>,
    #[command(flatten)]
    norm: NormArgs,
    /// "all", or a part of an adapter's name or backend [default: the best adapter]
    #[arg(long, value_name = "all|NAME")]
    adapter: Option<String>,
    /// Directions to measure, may be repeated [default: all three]
    #[arg(long = "direction", value_enum, value_name = "DIRECTION")]
    directions: Vec<Direction>,
    /// Submissions whose median is taken
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeats: u32,
    /// Milliseconds that a submission should take: the work is repeated in it as often as that needs
    #[arg(long, value_name = "MS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=1000))]
    submission_ms: u32,
    /// Time every step of the plans alone, too
    #[arg(long)]
    steps: bool,
    /// Use the tuning of a file, which bcnorm tune --save wrote
    #[arg(long, value_name = "FILE")]
    tuning: Option<PathBuf>,
    /// Change a number of the tuning, may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    tune: Vec<String>,
    /// Draw charts of what was measured into this folder, as SVG
    #[arg(long, value_name = "DIR")]
    plot: Option<PathBuf>,
    /// Do not time the CPU executor
    #[arg(long)]
    no_cpu: bool,
    /// Leave out shapes that cannot be expected to be done after so many seconds
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// A name for these measurements, a field of the JSON
    #[arg(long, value_name = "TEXT", requires = "json")]
    label: Option<String>,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

/// A shape to measure, and where it comes from.
pub struct Case {
    request: Request,
    /// None where the shape was given by itself.
    suite: Option<Suite>,
}

pub fn run(args: Args) -> Result<()> {
    let begin = Instant::now();
    let cases = cases(&args)?;
    if let Some(folder) = &args.plot {
        // Before minutes are spent on measuring.
        let writable = std::fs::create_dir_all(folder).map_err(anyhow::Error::from);
        let writable = writable.and_then(|()| store::check_writable(folder));
        writable.with_context(|| format!("--plot {}", folder.display()))?;
    }
    let machines = machines(&args)?;
    let what = args.what();
    let steps = what.effort.rounds as usize * (1 + usize::from(what.steps)) * machines.len();
    let bar = progress::bar(steps * cases.len(), "bench");
    let mut measured: Vec<Vec<Measurement>> = machines.iter().map(|_| Vec::new()).collect();
    let mut failed = 0;
    let mut time = TimeLimit::new(begin, args.seconds);
    let mut left_out = Vec::new();
    for (number, case) in (1..).zip(&cases) {
        if !time.has_room_for(case) {
            left_out.push(case.request.shape());
            bar.set_position((number * steps) as u64);
            continue;
        }
        let started = Instant::now();
        let results = measure_everywhere(&machines, case, &what, args.no_cpu, &bar)?;
        for ((machine, result), all) in machines.iter().zip(results).zip(&mut measured) {
            match result {
                Ok(mut of_case) => {
                    of_case
                        .iter_mut()
                        .for_each(|one| one.label.clone_from(&args.label));
                    let text = print(machine, case, &of_case, args.json)?;
                    bar.suspend(|| std::io::stdout().lock().write_all(text.as_bytes()))?;
                    all.extend(of_case);
                }
                Err(error) => {
                    failed += 1;
                    let (shape, why) = (case.request.shape(), describe_error(&error));
                    let text = format!("error: {shape} on {}: {why}", machine.gpu.describe());
                    bar.suspend(|| writeln!(std::io::stderr(), "{text}"))?;
                }
            }
        }
        time.took(case, started.elapsed());
        bar.set_position((number * steps) as u64);
    }
    bar.finish_and_clear();
    if !left_out.is_empty() {
        const NAMED: usize = 4;
        let count = left_out.len();
        let mut shapes = left_out[..count.min(NAMED)].join(", ");
        if count > NAMED {
            shapes += &format!(" and {} more", count - NAMED);
        }
        let text = format!(
            "note: {count} of {} shapes left out for want of time: {shapes}",
            cases.len()
        );
        writeln!(std::io::stderr(), "{text}")?;
    }
    if let Some(folder) = &args.plot {
        for (machine, measured) in measured.iter().enumerate() {
            for path in plot::draw(folder, machine, measured)? {
                writeln!(std::io::stderr(), "wrote {}", path.display())?;
            }
        }
    }
    let total = cases.len() * machines.len();
    ensure!(failed == 0, "{failed} of {total} measurements failed");
    Ok(())
}

/// How long shapes may take, all together.
struct TimeLimit {
    begin: Instant,
    limit: Option<Duration>,
    /// Seconds of an element: the least of those measured, as a small tensor's are mostly compiling.
    per_element: f64,
}

impl TimeLimit {
    fn new(begin: Instant, seconds: Option<u64>) -> Self {
        Self {
            begin,
            limit: seconds.map(Duration::from_secs),
            per_element: f64::INFINITY,
        }
    }

    /// Whether there is time left, and as much as the shape can be expected to take.
    fn has_room_for(&self, case: &Case) -> bool {
        let Some(limit) = self.limit else { return true };
        let elapsed = self.begin.elapsed();
        let expected = match self.per_element.is_finite() {
            true => self.per_element * case.request.tensor.elements() as f64,
            false => 0.0,
        };
        elapsed < limit && elapsed.as_secs_f64() + expected <= limit.as_secs_f64()
    }

    fn took(&mut self, case: &Case, time: Duration) {
        let each = time.as_secs_f64() / case.request.tensor.elements() as f64;
        self.per_element = self.per_element.min(each);
    }
}

/// Measures a case on every machine.
fn measure_everywhere(
    machines: &[Machine],
    case: &Case,
    what: &What,
    no_cpu: bool,
    bar: &ProgressBar,
) -> Result<Vec<Result<Vec<Measurement>>>> {
    let (request, shape) = (&case.request, case.request.shape());
    let fit = |machine: &Machine| check_fits(request, &machine.gpu, &machine.pipelines);
    let fits: Vec<Result<()>> = machines.iter().map(fit).collect();
    if fits.iter().all(Result::is_err) {
        let failed = fits.into_iter().map(|fit| fit.map(|()| Vec::new()));
        return Ok(failed.collect());
    }
    bar.set_message(format!("{shape}: reference"));
    let reference = Reference::new(request, &what.directions)?;
    let mut cpu_ms = [Vec::new(), Vec::new()];
    if !no_cpu {
        bar.set_message(format!("{shape}: CPU executor"));
        let executors = [cpu::Executor::new(), cpu::Executor::with_threads(1)];
        for (times, executor) in cpu_ms.iter_mut().zip(executors) {
            *times = on_cpu(&reference, &what.directions, &executor)?;
        }
    }
    let measure = |(machine, fit): (&Machine, Result<()>)| {
        fit?;
        bar.set_message(format!("{shape}: {}", machine.gpu.describe()));
        let mut measured = measure::measure(machine, case, &reference, what, bar)?;
        for (index, one) in measured.iter_mut().enumerate() {
            let [all, single] = [0, 1].map(|threads: usize| cpu_ms[threads].get(index).copied());
            (one.cpu_ms, one.cpu_1_ms) = (all, single);
        }
        Ok(measured)
    };
    Ok(machines.iter().zip(fits).map(measure).collect())
}

/// What is printed of a case on a machine.
fn print(machine: &Machine, case: &Case, measured: &[Measurement], json: bool) -> Result<String> {
    if !json {
        return Ok(report::table(
            &machine.gpu.describe(),
            &case.request,
            measured,
        ));
    }
    let lines = measured
        .iter()
        .map(|one| Ok(serde_json::to_string(one)? + "\n"));
    lines.collect()
}

impl Args {
    fn what(&self) -> What {
        What {
            directions: match self.directions.as_slice() {
                [] => Direction::ALL.to_vec(),
                some => some.to_vec(),
            },
            effort: timing::Effort {
                submission: Duration::from_millis(self.submission_ms.into()),
                rounds: self.repeats,
            },
            steps: self.steps,
        }
    }
}

fn cases(args: &Args) -> Result<Vec<Case>> {
    let given = args.shapes.iter().map(|dims| (None, dims.0.clone()));
    let suites = match (args.suites.as_slice(), args.shapes.as_slice()) {
        ([], []) => &[Suite::Default],
        (suites, _) => suites,
    };
    let shapes = |&suite: &Suite| {
        suite
            .shapes()
            .into_iter()
            .map(move |dims| (Some(suite), dims))
    };
    let mut cases: Vec<Case> = Vec::new();
    for (suite, dims) in given.chain(suites.iter().flat_map(shapes)) {
        // Two suites may share a shape. Charts of many shapes want all of theirs.
        let many = suite.is_some_and(Suite::has_many_shapes);
        if !many && cases.iter().any(|case| case.request.tensor.dims() == dims) {
            continue;
        }
        let request = args.norm.request(&Dims(dims))?;
        data::check_size(&request)?;
        let refused = request.norm.validate_for(&request.tensor, Mode::Train);
        // A suite is for all norms, and has shapes that some of them refuse.
        if let (Some(_), Err(error)) = (suite, &refused) {
            let (shape, why) = (request.shape(), describe_error(&error.clone().into()));
            writeln!(std::io::stderr(), "note: {shape} is left out: {why}")?;
            continue;
        }
        refused?;
        cases.push(Case { request, suite });
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
        let mut tuning = tuning::load(args.tuning.as_deref(), device::tuning(&gpu)?)?;
        for setting in &args.tune {
            tuning::apply(&mut tuning, setting)?;
        }
        let pipelines = Pipelines::with_tuning(&gpu.device, tuning);
        Ok(Machine::new(gpu, pipelines))
    };
    gpus.into_iter().map(machine).collect()
}
