//! `bcnorm verify`: golden vectors on every adapter.

use crate::case::{Problem, Run, run_on_cpu, run_on_gpu};
use crate::table::{Table, scientific, title, verdict};
use crate::text::{describe_error, printable};
use crate::{device, progress};
use anyhow::{Result, ensure};
use bcnorm::gpu::Pipelines;
use bcnorm::gpu::headless::{Gpu, describe};
use bcnorm::{DType, Layout, cpu};
use bcnorm_testkit::compare::{Finding, judge};
use bcnorm_testkit::golden::chain::{self, Chain};
use bcnorm_testkit::golden::{self, File, Golden, files_in};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Arguments of `bcnorm verify`.
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
    #[arg(value_name = "FILES|DIRS", required_unless_present = "list_adapters")]
    paths: Vec<PathBuf>,
    /// "all", "cpu", or a part of an adapter's name or backend
    #[arg(long, default_value = "all", value_name = "all|cpu|NAME")]
    adapter: String,
    /// Run the CPU executor too
    #[arg(long)]
    cpu: bool,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
    /// Print the adapters that would be used, and run nothing
    #[arg(long)]
    list_adapters: bool,
}

/// Where a case runs.
enum Target {
    Gpu(wgpu::Adapter),
    Cpu(cpu::Executor),
}

/// A golden file, ready to run.
enum Case {
    /// A call of a norm.
    Norm(Box<(Golden, Problem)>),
    /// Several, with a convolution between them.
    Chain(Box<Chain>),
}

/// What must come out of a case, by name.
struct Wanted<'a> {
    values: &'a BTreeMap<String, Vec<f64>>,
    scales: &'a BTreeMap<String, f64>,
    pytorch_f32_errors: &'a BTreeMap<String, f64>,
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

/// Runs `bcnorm verify`.
pub fn run(args: Args) -> Result<()> {
    let targets = targets(&args)?;
    let mut out = std::io::stdout().lock();
    if args.list_adapters {
        for target in &targets {
            writeln!(out, "{}", target.describe())?;
        }
        return Ok(());
    }
    let (cases, unreadable) = load_all(&args.paths);
    ensure!(
        !cases.is_empty(),
        "nothing was verified: no golden file could be read"
    );

    let total = cases.len() * LAYOUTS.len();
    let bar = progress::bar(targets.len() * total, "verify");
    let (mut runs, mut failed) = (0, 0);
    for target in &targets {
        let (name, backend) = target.names();
        bar.set_message(name.clone());
        let mut table = Table::new(["file", "layout", "worst error", "bar", "PyTorch", "in", ""]);
        let mut runner = Runner::default();
        let (mut passed, mut problems) = (0, Vec::new());
        for (path, case) in &cases {
            for layout in LAYOUTS {
                let run = case.run(layout, |problem| runner.run(target, problem));
                let line = judged(path, case, layout, run, (&name, &backend));
                runs += 1;
                passed += usize::from(line.pass);
                if args.json {
                    let text = serde_json::to_string(&line)?;
                    bar.suspend(|| writeln!(out, "{text}"))?;
                } else {
                    add_row(&mut table, &line);
                    problems.extend(
                        line.problem
                            .map(|problem| format!("{} ({}): {problem}", line.file, line.layout)),
                    );
                }
                bar.inc(1);
            }
        }
        failed += total - passed;
        if !args.json {
            let text = summary(target, &table, passed, total, &problems)?;
            bar.suspend(|| out.write_all(&text))?;
        }
    }
    bar.finish_and_clear();
    ensure!(failed == 0, "{failed} of {runs} runs failed");
    ensure!(
        unreadable == 0,
        "{unreadable} of the paths given could not be read (see above)"
    );
    Ok(())
}

fn targets(args: &Args) -> Result<Vec<Target>> {
    if args.adapter.eq_ignore_ascii_case("cpu") {
        return Ok(vec![Target::Cpu(cpu::Executor::new())]);
    }
    let adapters = device::select(&args.adapter)?;
    let mut targets: Vec<Target> = adapters.into_iter().map(Target::Gpu).collect();
    if args.cpu {
        targets.push(Target::Cpu(cpu::Executor::new()));
    }
    Ok(targets)
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
        match files {
            Err(error) => complain(error),
            Ok(files) => {
                for file in files {
                    match golden::read(&file) {
                        Ok(read) => cases.push((file, Case::new(read))),
                        Err(error) => complain(error),
                    }
                }
            }
        }
    }
    (cases, unreadable)
}

impl Target {
    fn describe(&self) -> String {
        match self {
            Target::Gpu(adapter) => describe(adapter),
            Target::Cpu(_) => "CPU executor".to_owned(),
        }
    }

    /// Name and backend.
    fn names(&self) -> (String, String) {
        match self {
            Target::Gpu(adapter) => {
                let info = adapter.get_info();
                (info.name, format!("{:?}", info.backend))
            }
            Target::Cpu(_) => ("cpu".to_owned(), "Cpu".to_owned()),
        }
    }
}

impl Case {
    fn new(file: File) -> Self {
        match file {
            File::Norm(golden) => {
                let problem = golden.problem();
                Case::Norm(Box::new((*golden, problem)))
            }
            File::Chain(chain) => Case::Chain(chain),
        }
    }

    /// Runs it; `run` computes a norm.
    fn run(&self, layout: Layout, mut run: impl FnMut(&Problem) -> Result<Run>) -> Result<Run> {
        match self {
            Case::Norm(case) => run(&case.1.clone().with_layout(layout)),
            Case::Chain(chain) => chain.run(layout, run),
        }
    }

    /// What it is called, and how its tensors are stored.
    fn norm(&self) -> (&'static str, DType) {
        match self {
            Case::Norm(case) => (case.0.norm.kind.name(), case.0.dtype),
            Case::Chain(_) => (chain::NORM, DType::F32),
        }
    }

    fn wanted(&self) -> Wanted<'_> {
        match self {
            Case::Norm(case) => Wanted {
                values: &case.0.expected,
                scales: &case.0.scale,
                pytorch_f32_errors: &case.0.pytorch_f32_error,
            },
            Case::Chain(chain) => Wanted {
                values: &chain.expected,
                scales: &chain.scale,
                pytorch_f32_errors: &chain.pytorch_f32_error,
            },
        }
    }

    fn bar(&self, name: &str) -> f64 {
        match self {
            Case::Norm(case) => case.0.bar(name),
            Case::Chain(chain) => chain.bar(name),
        }
    }

    /// num_batches_tracked after the call: no tensor of the golden files, but known.
    fn count(&self) -> u32 {
        match self {
            Case::Norm(case) => case.1.num_batches_tracked_after(),
            Case::Chain(chain) => chain.num_batches_tracked_after(),
        }
    }

    /// Compares every tensor that must come out. Of what did not come out, the error is infinite.
    fn findings(&self, run: &Run) -> Vec<(&str, Finding)> {
        let (wanted, dtype) = (self.wanted(), self.norm().1);
        let findings = wanted.values.iter().map(|(name, values)| {
            let (scale, bar) = (wanted.scales[name], self.bar(name));
            let finding = judge(dtype, name, run.get(name), values, scale, bar);
            (name.as_str(), finding)
        });
        findings.collect()
    }
}

/// Keeps a device from case to case, until one fails.
#[derive(Default)]
struct Runner {
    device: Option<(Gpu, Pipelines)>,
}

impl Runner {
    fn run(&mut self, target: &Target, problem: &Problem) -> Result<Run> {
        let adapter = match target {
            Target::Cpu(executor) => return run_on_cpu(problem, executor),
            Target::Gpu(adapter) => adapter,
        };
        let (gpu, pipelines) = match self.device.take() {
            Some(device) => device,
            None => {
                let gpu = device::open(adapter.clone())?;
                let pipelines = Pipelines::new(&gpu.device);
                (gpu, pipelines)
            }
        };
        let run = run_on_gpu(problem, &gpu, &pipelines)?;
        // A device that failed may be lost: the next case gets a new one.
        self.device = Some((gpu, pipelines));
        Ok(run)
    }
}

fn judged<'a>(
    path: &Path,
    case: &'a Case,
    layout: Layout,
    run: Result<Run>,
    (adapter, backend): (&'a str, &'a str),
) -> Line<'a> {
    let (findings, problem) = match &run {
        Ok(run) => (case.findings(run), surplus(case, run)),
        Err(error) => (Vec::new(), Some(describe_error(error))),
    };
    let (norm, dtype) = case.norm();
    let mut line = Line {
        file: path.display().to_string(),
        adapter,
        backend,
        norm,
        dtype: dtype.name(),
        layout: layout.name(),
        errors: BTreeMap::new(),
        pytorch_f32_errors: BTreeMap::new(),
        ulps: BTreeMap::new(),
        exact: BTreeMap::new(),
        pass: problem.is_none() && findings.iter().all(|(_, finding)| finding.wrong.is_none()),
        problem,
        worst: None,
    };
    for (name, error) in case.wanted().pytorch_f32_errors {
        line.pytorch_f32_errors.insert(name, *error);
    }
    for (name, finding) in findings {
        line.errors.insert(name, finding.error);
        if let Some(rounded) = &finding.rounded {
            line.ulps.insert(name, rounded.worst_ulps);
            line.exact.insert(name, rounded.exact());
        }
        let fraction = |finding: &Finding| match finding.wrong {
            Some(_) => f64::INFINITY,
            None => finding.fraction(),
        };
        let worse = match &line.worst {
            None => true,
            Some((_, worst)) => fraction(&finding) > fraction(worst),
        };
        if worse {
            line.worst = Some((name, finding));
        }
    }
    line
}

/// What is wrong besides the tensors that must come out: one that must not, or the batches counted.
fn surplus(case: &Case, run: &Run) -> Option<String> {
    let wanted = case.wanted().values;
    let mut surplus = run
        .outputs
        .keys()
        .filter(|name| !wanted.contains_key(**name));
    if let Some(name) = surplus.next() {
        return Some(format!("{name} came out, which the file does not have"));
    }
    let (found, expected) = (run.num_batches_tracked, case.count());
    (found != expected)
        .then(|| format!("num_batches_tracked is {found} after the call, expected {expected}"))
}

/// One row: the tensor that is nearest to its bar, or furthest beyond.
fn add_row(table: &mut Table, line: &Line) {
    let file = Path::new(&line.file);
    let file = file.file_stem().unwrap_or(file.as_os_str());
    let mut row = vec![printable(&file.to_string_lossy()), line.layout.to_owned()];
    match &line.worst {
        Some((name, finding)) => {
            let (error, bar) = match &finding.rounded {
                Some(rounded) => (format!("{} ulp", rounded.worst_ulps), "1 ulp".to_owned()),
                None => (scientific(finding.error), scientific(finding.bar)),
            };
            let theirs = line.pytorch_f32_errors.get(name);
            let theirs = theirs.map_or("-".to_owned(), |&error| scientific(error));
            row.extend([error, bar, theirs, (*name).to_owned()]);
        }
        None => row.extend(["-", "-", "-", "did not run"].map(String::from)),
    }
    row.push(verdict(line.pass));
    table.row(row);
}

fn summary(
    target: &Target,
    table: &Table,
    passed: usize,
    total: usize,
    problems: &[String],
) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    writeln!(text, "{}", title(&target.describe()))?;
    table.write(&mut text)?;
    for problem in problems {
        writeln!(text, "  {}", printable(problem))?;
    }
    writeln!(text, "  {passed} of {total} pass\n")?;
    Ok(text)
}
