//! `bcnorm info`: adapters, what they offer, and the tuning that is used on them.

mod plan;

use crate::request::{Dims, Direction, NormArgs, parse_dims};
use crate::table::{Table, title};
use crate::text::describe_error;
use crate::{device, tuning};
use anyhow::{Context as _, Result};
use bcnorm::gpu::headless::{Gpu, adapters, describe};
use bcnorm::{Tuning, cpu};
use plan::Explained;
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;

/// Arguments of `bcnorm info`.
#[derive(clap::Args, Debug)]
#[command(
    mut_group("NormArgs", |group| group.requires("plan")),
    after_help = "\
Examples:
  bcnorm info
  WGPU_BACKEND=vulkan bcnorm info
  bcnorm info --json | jq '.adapters[] | select(.default).name'
  bcnorm info --plan 8,64,56,56                   which steps, how shared out, and why
  bcnorm info --plan 8,64,56,56 --norm group_norm --dtype f16 --layout last --direction backward
  bcnorm info --plan 8,64,56,56 --tuning tuning.txt     with what bcnorm tune --save wrote"
)]
pub struct Args {
    /// Explain the plan for a shape instead: on each adapter and on the CPU executor
    #[arg(long, value_name = "N,C,H,W", value_parser = parse_dims)]
    plan: Option<Dims>,
    #[command(flatten)]
    norm: NormArgs,
    /// What the plan computes
    #[arg(long, value_enum, default_value = "forward", requires = "plan")]
    direction: Direction,
    /// Plan with the tuning of a file only
    #[arg(long, value_name = "FILE", requires = "plan")]
    tuning: Option<PathBuf>,
    /// Print one JSON object instead
    #[arg(long)]
    json: bool,
}

type Numbers = BTreeMap<&'static str, u64>;

#[derive(Serialize)]
struct Report {
    version: &'static str,
    adapters: Vec<Adapter>,
    cpu: Cpu,
}

#[derive(Serialize)]
struct Adapter {
    name: String,
    backend: String,
    device_type: String,
    software: bool,
    driver: String,
    /// The one that is taken where none is named.
    default: bool,
    limits: Numbers,
    features: BTreeMap<&'static str, bool>,
    subgroup_min_size: u32,
    subgroup_max_size: u32,
    /// Absent where the adapter gives no device.
    #[serde(skip_serializing_if = "Option::is_none")]
    tuning: Option<Numbers>,
    /// Why the adapter gives no device.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    #[serde(skip)]
    description: String,
}

#[derive(Serialize)]
struct Cpu {
    threads: usize,
    tuning: Numbers,
}

/// Runs `bcnorm info`.
pub fn run(args: Args) -> Result<()> {
    let text = match &args.plan {
        Some(dims) => explain(&args, dims)?,
        None => {
            let report = Report::new();
            match args.json {
                true => serde_json::to_string_pretty(&report)? + "\n",
                false => report.text()?,
            }
        }
    };
    write!(std::io::stdout(), "{text}")?;
    Ok(())
}

/// Explains the plan for a shape, with every tuning there is on this machine or with that of a file.
fn explain(args: &Args, dims: &Dims) -> Result<String> {
    let request = args.norm.request(dims)?;
    let mut tunings = Vec::new();
    if let Some(file) = &args.tuning {
        let tuning = tuning::load(Some(file), Tuning::CPU)?;
        tunings.push((file.display().to_string(), tuning));
    } else {
        for adapter in pollster::block_on(adapters()) {
            let name = describe(&adapter);
            // An adapter without a device runs no plans; `bcnorm info` says why.
            if let Ok(gpu) = device::open(adapter) {
                tunings.push((name, Tuning::for_device(&gpu.device)));
            }
        }
        tunings.push(("CPU executor".to_owned(), cpu::Executor::new().tuning()));
    }
    let explained = tunings.iter().map(|(on, tuning)| {
        let explained = Explained::new(on, &request, args.direction, tuning);
        explained.with_context(|| on.clone())
    });
    let plans = explained.collect::<Result<Vec<Explained>>>()?;
    let direction = args.direction.name();
    if args.json {
        let object = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "norm": request.norm.kind.name(),
            "shape": request.tensor.dims(),
            "groups": request.norm.num_groups,
            "dtype": request.tensor.dtype().name(),
            "layout": request.tensor.layout().name(),
            "direction": direction,
            "plans": plans,
        });
        return Ok(format!("{object:#}\n"));
    }
    let plans: String = plans.iter().map(|plan| format!("{plan}\n")).collect();
    Ok(format!("{direction} of {request}\n\n{plans}"))
}

impl Report {
    fn new() -> Self {
        let found = pollster::block_on(adapters()).into_iter();
        let mut found: Vec<Adapter> = found.map(Adapter::inspect).collect();
        // As `Gpu::new` does: the first that gives a device.
        if let Some(first) = found.iter_mut().find(|adapter| adapter.problem.is_none()) {
            first.default = true;
        }
        Self {
            version: env!("CARGO_PKG_VERSION"),
            adapters: found,
            cpu: Cpu {
                threads: std::thread::available_parallelism().map_or(1, usize::from),
                tuning: cpu::Executor::new()
                    .tuning()
                    .settings()
                    .into_iter()
                    .collect(),
            },
        }
    }

    fn text(&self) -> Result<String> {
        let mut text = String::new();
        if self.adapters.is_empty() {
            text += "No GPU adapter found. A software driver serves where there is no GPU (on Debian: apt \
                     install mesa-vulkan-drivers).\n";
        }
        for (index, adapter) in self.adapters.iter().enumerate() {
            let default = if adapter.default { ", the default" } else { "" };
            let name = title(format_args!("#{index} {}", adapter.description));
            writeln!(text, "{name}{default}")?;
            for (what, line) in adapter.lines() {
                writeln!(text, "  {what:<18}{line}")?;
            }
            text += "\n";
        }
        let threads = self.cpu.threads;
        writeln!(text, "{}, {threads} threads\n", title("CPU executor"))?;

        let tuned = self.adapters.iter().enumerate();
        let tuned =
            tuned.filter_map(|(i, adapter)| Some((format!("#{i}"), adapter.tuning.as_ref()?)));
        let tuned = tuned.chain([("CPU".to_owned(), &self.cpu.tuning)]);
        let (headings, columns): (Vec<String>, Vec<&Numbers>) = tuned.unzip();
        let mut table = Table::new(std::iter::once(String::new()).chain(headings));
        for (name, _) in Tuning::CPU.settings() {
            let numbers = columns.iter().map(|column| column[name].to_string());
            table.row(std::iter::once(name.to_owned()).chain(numbers));
        }
        write!(text, "{}\n{table}", title("Tuning"))?;
        Ok(text)
    }
}

impl Adapter {
    fn inspect(adapter: wgpu::Adapter) -> Self {
        use wgpu::Features;
        let (info, limits) = (adapter.get_info(), adapter.limits());
        let features = adapter.features();
        let description = describe(&adapter);
        let tuning = device::open(adapter).map(|Gpu { device, .. }| Tuning::for_device(&device));
        let (tuning, problem) = match tuning {
            Ok(tuning) => (Some(tuning.settings().into_iter().collect()), None),
            Err(error) => (None, Some(describe_error(&error))),
        };
        macro_rules! named {
            ($($field:ident),*) => {
                [$((stringify!($field), limits.$field.into())),*].into()
            };
        }
        let has = |(name, feature)| (name, features.contains(feature));
        Self {
            backend: format!("{:?}", info.backend),
            device_type: format!("{:?}", info.device_type),
            software: Tuning::for_adapter(&info).class == bcnorm::tuning::AdapterClass::Software,
            driver: format!("{} {}", info.driver, info.driver_info)
                .trim()
                .to_owned(),
            default: false,
            limits: named!(
                max_storage_buffer_binding_size,
                max_buffer_size,
                max_storage_buffers_per_shader_stage,
                min_storage_buffer_offset_alignment,
                max_compute_invocations_per_workgroup,
                max_compute_workgroup_size_x,
                max_compute_workgroup_storage_size,
                max_compute_workgroups_per_dimension
            ),
            features: [
                ("timestamp_query", Features::TIMESTAMP_QUERY),
                (
                    "timestamp_query_inside_passes",
                    Features::TIMESTAMP_QUERY_INSIDE_PASSES,
                ),
                ("shader_f16", Features::SHADER_F16),
                ("subgroup", Features::SUBGROUP),
            ]
            .map(has)
            .into(),
            subgroup_min_size: info.subgroup_min_size,
            subgroup_max_size: info.subgroup_max_size,
            name: info.name,
            tuning,
            problem,
            description,
        }
    }

    /// What people want to know of it.
    fn lines(&self) -> Vec<(&'static str, String)> {
        let yes = |feature| if self.features[feature] { "yes" } else { "no" };
        let limit = |name| self.limits[name];
        let binding = mebibytes(limit("max_storage_buffer_binding_size"));
        let buffer = mebibytes(limit("max_buffer_size"));
        let offsets = limit("min_storage_buffer_offset_alignment");
        let invocations = limit("max_compute_invocations_per_workgroup");
        let invocations = invocations.min(limit("max_compute_workgroup_size_x"));
        let kibibytes = limit("max_compute_workgroup_storage_size") / 1024;
        let dimension = limit("max_compute_workgroups_per_dimension");
        let subgroups = match self.features["subgroup"] {
            true => format!("{} to {}", self.subgroup_min_size, self.subgroup_max_size),
            false => "no".to_owned(),
        };
        let (stamps, inside) = (yes("timestamp_query"), yes("timestamp_query_inside_passes"));
        let mut lines = vec![
            ("driver", self.driver.clone()),
            (
                "largest binding",
                format!("{binding} (buffer: {buffer}, offsets: multiples of {offsets})"),
            ),
            (
                "workgroups",
                format!(
                    "{invocations} invocations, {kibibytes} KiB of memory, {dimension} in a dimension"
                ),
            ),
            (
                "storage buffers",
                limit("max_storage_buffers_per_shader_stage").to_string(),
            ),
            ("subgroups", subgroups),
            ("f16 arithmetic", yes("shader_f16").to_owned()),
            ("timestamps", format!("{stamps}, inside passes: {inside}")),
        ];
        lines.extend(self.problem.clone().map(|problem| ("NO DEVICE", problem)));
        lines
    }
}

fn mebibytes(bytes: u64) -> String {
    match bytes >> 20 {
        0 => format!("{bytes} bytes"),
        // Some drivers say "as much as a number holds".
        mebibytes if mebibytes >= 1 << 40 => "unlimited".to_owned(),
        mebibytes => format!("{mebibytes} MiB"),
    }
}
