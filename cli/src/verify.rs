//! `bcnorm verify`: golden vectors on every adapter.

use crate::case::{Problem, Run};
use crate::device::Engine;
use crate::table::{Table, scientific, title, verdict};
use crate::text::{describe_error, printable};
use crate::{device, progress};
use anyhow::{Result, ensure};
use bcnorm::gpu::headless::describe;
use bcnorm::{DType, Layout, cpu};
use bcnorm_testkit::compare::{Finding, judge};
use bcnorm_testkit::golden::chain::{self, Chain};
use bcnorm_testkit::golden::{self, File, files_in};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

#[derive(clap::Args, Debug)]
#[command(after_help = "\
A golden file (.safetensors) holds one call of a norm and its results by PyTorch in f64: y, all \
gradients, running statistics. It runs with channels first and with channels last. A tensor passes \
where its largest error, divided by its scale, is at most 1e-6, or PyTorch's own f32 error where that \
is larger; a 16-bit tensor where every value is within a unit in the last place (ulp) of the \
correctly rounded one, and 99 % are that. Folders are looked into, with theirs.

Examples:
  bcnorm verify tests/golden                       every adapter of this machine
  bcnorm verify tests/golden --adapter vulkan      those that have \"vulkan\" in name or backend
  bcnorm verify tests/golden --adapter cpu         the CPU executor alone
  bcnorm verify case.safetensors --cpu --json      one JSON object per file, layout and adapter

Exit status 0 only if everything passed and at least one file ran.")]
pub struct Args {
    /// Golden files, or folders of them
    #[arg(value_name = "FILES|DIRS", required = true)]
    paths: Vec<PathBuf>,
    /// "all", "best", "cpu", or a part of an adapter's name or backend
    #[arg(long, default_value = "all", value_name = "all|best|cpu|NAME")]
    adapter: String,
    /// Run the CPU executor too
    #[arg(long)]
    cpu: bool,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

/// Where a case runs: on an adapter, or on the CPU executor.
struct Target(Option<wgpu::Adapter>);

/// A golden file, ready to run.
struct Case {
    work: Work,
    norm: &'static str,
    dtype: DType,
    /// What must come out, by name.
    wanted: BTreeMap<String, Wanted>,
    /// num_batches_tracked after the call: no tensor of the golden files, but known.
    count: u32,
}

enum Work {
    /// A call of a norm.
    Norm(Box<Problem>),
    /// Several, with a convolution between them.
    Chain(Box<Chain>),
}

struct Wanted {
    values: Vec<f64>,
    scale: f64,
    bar: f64,
    pytorch_f32_error: Option<f64>,
}

/// How a case lies in memory, one after the other.
const LAYOUTS: [Layout; 2] = [Layout::ChannelsFirst, Layout::ChannelsLast];

/// One file in one layout on one adapter.
#[derive(Serialize)]
struct Line<'a> {
    file: String,
    adapter: &'a str,
    backend: &'a str,
    norm: &'static str,
    dtype: &'static str,
    layout: &'static str,
    /// JSON knows no infinity: it appears as null.
    errors: BTreeMap<&'a str, f64>,
    /// Of 16-bit cases nothing.
    pytorch_f32_errors: BTreeMap<&'a str, f64>,
    /// Of 16-bit tensors: the largest distance from the correctly rounded value.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    ulps: BTreeMap<&'a str, u32>,
    /// Of 16-bit tensors: the share of correctly rounded values.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    exact: BTreeMap<&'a str, f64>,
    pass: bool,
    /// What kept the case from running, or is wrong besides the errors.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    /// The tensor that is nearest to its bar, or furthest beyond.
    #[serde(skip)]
    worst: Option<(&'a str, Finding)>,
}

pub fn run(args: Args) -> Result<()> {
    let targets = targets(&args)?;
    let mut out = std::io::stdout().lock();
    let (cases, unreadable) = load_all(&args.paths);
    ensure!(
        !cases.is_empty(),
        "nothing was verified: no golden file could be read"
    );

    let total = cases.len() * LAYOUTS.len();
    let bar = progress::bar(targets.len() * total, "verify");
    let mut failed = 0;
    for target in &targets {
        let (name, backend) = target.names();
        bar.set_message(name.clone());
        let mut table = Table::new(["file", "layout", "worst error", "bar", "PyTorch", "in", ""]);
        // Kept from case to case, until one fails: a device that did may be lost.
        let mut engine = None;
        let (mut passed, mut problems) = (0, String::new());
        for (path, case) in &cases {
            for layout in LAYOUTS {
                let run = case.run(layout, |problem| {
                    let open = engine.take().map_or_else(|| target.open(), Ok)?;
                    let run = open.run(problem)?;
                    engine = Some(open);
                    Ok(run)
                });
                let line = Line::new(path, case, layout, run, (&name, &backend));
                passed += usize::from(line.pass);
                if args.json {
                    let text = serde_json::to_string(&line)?;
                    bar.suspend(|| writeln!(out, "{text}"))?;
                } else {
                    table.row(line.row());
                    if let Some(problem) = &line.problem {
                        let problem = format!("{} ({}): {problem}", line.file, line.layout);
                        problems += &format!("  {}\n", printable(&problem));
                    }
                }
                bar.inc(1);
            }
        }
        failed += total - passed;
        if !args.json {
            let heading = title(target.describe());
            let text = format!("{heading}\n{table}{problems}  {passed} of {total} pass\n\n");
            bar.suspend(|| out.write_all(text.as_bytes()))?;
        }
    }
    bar.finish_and_clear();
    ensure!(
        failed == 0,
        "{failed} of {} runs failed",
        targets.len() * total
    );
    ensure!(
        unreadable == 0,
        "{unreadable} of the paths given could not be read (see above)"
    );
    Ok(())
}

fn targets(args: &Args) -> Result<Vec<Target>> {
    if device::is_cpu(&args.adapter) {
        return Ok(vec![Target(None)]);
    }
    let adapters = device::select(&args.adapter)?.into_iter().map(Some);
    Ok(adapters
        .chain(args.cpu.then_some(None))
        .map(Target)
        .collect())
}

/// Every golden file of the paths, and how many paths or files could not be read; each of those
/// is named on standard error.
fn load_all(paths: &[PathBuf]) -> (Vec<(PathBuf, Case)>, usize) {
    let mut cases = Vec::new();
    let mut unreadable = 0;
    let mut complain = |error: String| {
        unreadable += 1;
        // All of it is one line, whatever names the file has.
        let error = printable(&error).replace('\n', "\\n");
        let _ = writeln!(std::io::stderr(), "error: {error}");
    };
    for path in paths {
        let files = match path.is_dir() {
            true => files_in(path),
            false => Ok(vec![path.clone()]),
        };
        for file in files.unwrap_or_else(|error| {
            complain(error);
            Vec::new()
        }) {
            match golden::read(&file) {
                Ok(read) => cases.push((file, Case::new(read))),
                Err(error) => complain(error),
            }
        }
    }
    (cases, unreadable)
}

impl Target {
    fn describe(&self) -> String {
        self.0.as_ref().map_or("CPU executor".to_owned(), describe)
    }

    fn names(&self) -> (String, String) {
        match self.0.as_ref().map(wgpu::Adapter::get_info) {
            Some(info) => (info.name, format!("{:?}", info.backend)),
            None => ("cpu".to_owned(), "Cpu".to_owned()),
        }
    }

    fn open(&self) -> Result<Engine> {
        match &self.0 {
            Some(adapter) => Engine::on(device::open(adapter.clone())?),
            None => Ok(Engine::Cpu(cpu::Executor::new())),
        }
    }
}

impl Case {
    fn new(file: File) -> Self {
        let (norm, dtype, count, work) = match &file {
            File::Norm(of) => {
                let problem = of.problem();
                let count = problem.num_batches_tracked_after();
                let work = Work::Norm(Box::new(problem));
                (of.norm.kind.name(), of.dtype, count, work)
            }
            File::Chain(of) => {
                let count = of.num_batches_tracked_after();
                (chain::NORM, DType::F32, count, Work::Chain(of.clone()))
            }
        };
        let (expected, scales, theirs) = match &file {
            File::Norm(of) => (&of.expected, &of.scale, &of.pytorch_f32_error),
            File::Chain(of) => (&of.expected, &of.scale, &of.pytorch_f32_error),
        };
        let wanted = expected.iter().map(|(name, values)| {
            let wanted = Wanted {
                values: values.clone(),
                scale: scales[name],
                bar: match &file {
                    File::Norm(of) => of.bar(name),
                    File::Chain(of) => of.bar(name),
                },
                pytorch_f32_error: theirs.get(name).copied(),
            };
            (name.clone(), wanted)
        });
        let wanted = wanted.collect();
        Self {
            work,
            norm,
            dtype,
            wanted,
            count,
        }
    }

    /// Runs it; `run` computes a norm.
    fn run(&self, layout: Layout, mut run: impl FnMut(&Problem) -> Result<Run>) -> Result<Run> {
        match &self.work {
            Work::Norm(problem) => run(&problem.as_ref().clone().with_layout(layout)),
            Work::Chain(chain) => chain.run(layout, run),
        }
    }

    /// What is wrong besides the tensors that must come out: one that must not, or the batches counted.
    fn surplus(&self, run: &Run) -> Option<String> {
        let mut names = run.outputs.keys();
        if let Some(name) = names.find(|name| !self.wanted.contains_key(**name)) {
            return Some(format!("{name} came out, which the file does not have"));
        }
        let (found, expected) = (run.num_batches_tracked, self.count);
        (found != expected)
            .then(|| format!("num_batches_tracked is {found} after the call, expected {expected}"))
    }
}

impl<'a> Line<'a> {
    fn new(
        path: &Path,
        case: &'a Case,
        layout: Layout,
        run: Result<Run>,
        (adapter, backend): (&'a str, &'a str),
    ) -> Self {
        let problem = match &run {
            Ok(run) => case.surplus(run),
            Err(error) => Some(describe_error(error)),
        };
        let wanted = case.wanted.iter().map(|(name, wanted)| (&**name, wanted));
        let theirs = wanted.clone();
        let theirs = theirs.filter_map(|(name, wanted)| Some((name, wanted.pytorch_f32_error?)));
        let mut line = Line {
            file: path.display().to_string(),
            adapter,
            backend,
            norm: case.norm,
            dtype: case.dtype.name(),
            layout: layout.name(),
            errors: BTreeMap::new(),
            pytorch_f32_errors: theirs.collect(),
            ulps: BTreeMap::new(),
            exact: BTreeMap::new(),
            pass: problem.is_none(),
            problem,
            worst: None,
        };
        let Ok(run) = run else { return line };
        // Of what did not come out, the error is infinite.
        for (name, wanted) in wanted {
            let (got, values) = (run.get(name), &wanted.values);
            let finding = judge(case.dtype, name, got, values, wanted.scale, wanted.bar);
            line.errors.insert(name, finding.error);
            if let Some(rounded) = &finding.rounded {
                line.ulps.insert(name, rounded.worst_ulps);
                line.exact.insert(name, rounded.exact());
            }
            line.pass &= finding.wrong.is_none();
            let worst = line.worst.as_ref().map(|(_, worst)| worst.fraction());
            if worst.is_none_or(|worst| finding.fraction() > worst) {
                line.worst = Some((name, finding));
            }
        }
        line
    }

    /// The tensor that is nearest to its bar, or furthest beyond.
    fn row(&self) -> Vec<String> {
        let file = Path::new(&self.file);
        let file = file.file_stem().unwrap_or(file.as_os_str());
        let mut row = vec![printable(&file.to_string_lossy()), self.layout.to_owned()];
        match &self.worst {
            Some((name, finding)) => {
                let (error, bar) = match &finding.rounded {
                    Some(rounded) => (format!("{} ulp", rounded.worst_ulps), "1 ulp".to_owned()),
                    None => (scientific(finding.error), scientific(finding.bar)),
                };
                let theirs = self.pytorch_f32_errors.get(name);
                let theirs = theirs.map_or("-".to_owned(), |&error| scientific(error));
                row.extend([error, bar, theirs, (*name).to_owned()]);
            }
            None => row.extend(["-", "-", "-", "did not run"].map(String::from)),
        }
        row.push(verdict(self.pass));
        row
    }
}
