//! `bcnorm verify`: golden vectors on every adapter.

use crate::case::{Outputs, run_on_cpu, run_on_gpu};
use crate::golden::{Golden, files_in, load};
use crate::table::{Table, scientific, title, verdict};
use crate::{device, progress};
use anyhow::{Result, ensure};
use bcnorm::gpu::Pipelines;
use bcnorm::gpu::headless::{Gpu, describe};
use bcnorm::{ChannelStats, Mode, cpu};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Arguments of `bcnorm verify`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
A golden file (.safetensors) holds one call of Batch-Channel Normalization and its results by \
PyTorch in f64: y, all gradients, running statistics. A tensor passes where its largest error, \
divided by its scale, is at most 1e-6, or PyTorch's own f32 error where that is larger.

Examples:
  bcnorm verify tests/golden                       every adapter of this machine
  bcnorm verify tests/golden --adapter vulkan      those that have \"vulkan\" in name or backend
  bcnorm verify tests/golden --adapter cpu         the CPU executor alone
  bcnorm verify case.safetensors --cpu --json      one JSON object per file and adapter

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

/// One file on one adapter.
#[derive(Serialize)]
struct Line<'a> {
    file: String,
    adapter: &'a str,
    backend: &'a str,
    /// JSON knows no infinity: it appears as null.
    errors: BTreeMap<&'static str, f64>,
    pytorch_f32_errors: BTreeMap<&'static str, f64>,
    pass: bool,
    /// What kept the case from running, or is wrong besides the errors.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
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

    let bar = progress::bar(targets.len() * cases.len(), "verify");
    let (mut runs, mut failed) = (0, 0);
    for target in &targets {
        let (name, backend) = target.names();
        bar.set_message(name.clone());
        let mut table = Table::new(["file", "worst error", "bar", "PyTorch", "in", ""]);
        let mut runner = Runner::default();
        let (mut passed, mut problems) = (0, Vec::new());
        for (path, golden) in &cases {
            let line = judge(path, golden, runner.run(target, golden), &name, &backend);
            runs += 1;
            passed += usize::from(line.pass);
            if args.json {
                let text = serde_json::to_string(&line)?;
                bar.suspend(|| writeln!(out, "{text}"))?;
            } else {
                add_row(&mut table, &line, golden);
                problems.extend(
                    line.problem
                        .map(|problem| format!("{}: {problem}", line.file)),
                );
            }
            bar.inc(1);
        }
        failed += cases.len() - passed;
        if !args.json {
            let text = summary(target, &table, passed, cases.len(), &problems)?;
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
fn load_all(paths: &[PathBuf]) -> (Vec<(PathBuf, Golden)>, usize) {
    let mut cases = Vec::new();
    let mut unreadable = 0;
    let mut complain = |error: anyhow::Error| {
        unreadable += 1;
        let _ = writeln!(std::io::stderr(), "error: {error:#}");
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
                    match load(&file) {
                        Ok(golden) => cases.push((file, golden)),
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

/// Keeps a device from case to case, until one fails.
#[derive(Default)]
struct Runner {
    device: Option<(Gpu, Pipelines)>,
}

impl Runner {
    fn run(&mut self, target: &Target, golden: &Golden) -> Result<Outputs> {
        let adapter = match target {
            Target::Cpu(executor) => return run_on_cpu(&golden.case, executor),
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
        let outputs = run_on_gpu(&golden.case, &gpu, &pipelines)?;
        // A device that failed may be lost: the next case gets a new one.
        self.device = Some((gpu, pipelines));
        Ok(outputs)
    }
}

fn judge<'a>(
    path: &Path,
    golden: &Golden,
    outputs: Result<Outputs>,
    adapter: &'a str,
    backend: &'a str,
) -> Line<'a> {
    let (errors, problem) = match &outputs {
        Ok(outputs) => (golden.errors(outputs), check_counter(golden, outputs)),
        Err(error) => (BTreeMap::new(), Some(format!("{error:#}"))),
    };
    // Never true for a NaN, nor for a tensor that has no error.
    let good = |(name, expected): (&&str, &crate::golden::Expected)| {
        errors
            .get(*name)
            .is_some_and(|error| *error <= expected.bar())
    };
    Line {
        file: path.display().to_string(),
        adapter,
        backend,
        pass: golden.expected.iter().all(good) && problem.is_none(),
        pytorch_f32_errors: golden
            .expected
            .iter()
            .map(|(&name, expected)| (name, expected.pytorch_f32_error))
            .collect(),
        errors,
        problem,
    }
}

/// num_batches_tracked is no tensor of the golden files, but known.
fn check_counter(golden: &Golden, outputs: &Outputs) -> Option<String> {
    let case = &golden.case;
    let counts = case.mode == Mode::Train && matches!(case.stats, ChannelStats::Batch { .. });
    let expected = case.num_batches_tracked + u32::from(counts);
    let found = outputs.num_batches_tracked;
    (found != expected)
        .then(|| format!("bn.num_batches_tracked is {found} after the call, expected {expected}"))
}

/// One row: the tensor that is nearest to its bar, or furthest beyond.
fn add_row(table: &mut Table, line: &Line, golden: &Golden) {
    let file = Path::new(&line.file);
    let file = file.file_stem().unwrap_or(file.as_os_str());
    let mut row = vec![file.to_string_lossy().into_owned()];
    let relative = |name: &str, error: f64| error / golden.expected[name].bar();
    let worst = line
        .errors
        .iter()
        .max_by(|a, b| relative(a.0, *a.1).total_cmp(&relative(b.0, *b.1)));
    match worst {
        Some((name, &error)) => {
            let expected = &golden.expected[name];
            row.extend([
                scientific(error),
                scientific(expected.bar()),
                scientific(expected.pytorch_f32_error),
                (*name).to_owned(),
            ]);
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
        writeln!(text, "  {problem}")?;
    }
    writeln!(text, "  {passed} of {total} pass\n")?;
    Ok(text)
}
