//! `bcnorm info`: adapters, what they offer, and the tuning that is used on them.

mod plan;

use crate::request::{
    Dims, Direction, Request, any_norm, norm_parser, parse_dims, parse_dtype, parse_layout,
};
use crate::table::{Table, title};
use crate::text::describe_error;
use crate::{device, tuning};
use anyhow::{Context as _, Result};
use bcnorm::gpu::headless::{Gpu, adapters, describe};
use bcnorm::{DType, Layout, NormKind, Tuning, cpu};
use plan::Explained;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

/// Arguments of `bcnorm info`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  bcnorm info
  WGPU_BACKEND=vulkan bcnorm info
  bcnorm info --json | jq '.adapters[] | select(.default).name'
  bcnorm info --plan 8,64,56,56                   which steps, how shared out, and why
  bcnorm info --plan 8,64,56,56 --norm group_norm --dtype f16 --layout last --direction backward
  bcnorm info --plan 8,64,56,56 --tuning tuning.txt     with what bcnorm tune --save wrote")]
pub struct Args {
    /// Explain the plan for a shape instead: on each adapter and on the CPU executor
    #[arg(long, value_name = "N,C,H,W", value_parser = parse_dims)]
    plan: Option<Dims>,
    /// Which normalization
    #[arg(long, value_name = "NAME", default_value = "bc_norm", value_parser = norm_parser(any_norm), requires = "plan")]
    norm: NormKind,
    /// Groups [default: 32, or the largest divisor of C below]
    #[arg(long, value_name = "G", requires = "plan")]
    groups: Option<usize>,
    /// How tensors are stored: f32, f16 or bf16
    #[arg(long, default_value = "f32", value_parser = parse_dtype, requires = "plan")]
    dtype: DType,
    /// Order in memory: first (N, C, H, W) or last (N, H, W, C)
    #[arg(long, default_value = "first", value_parser = parse_layout, requires = "plan")]
    layout: Layout,
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

/// `--plan --json`.
#[derive(Serialize)]
struct Plans {
    version: &'static str,
    norm: &'static str,
    shape: Vec<usize>,
    groups: usize,
    dtype: &'static str,
    layout: &'static str,
    direction: &'static str,
    plans: Vec<Explained>,
}

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
    limits: Limits,
    features: Features,
    subgroup_min_size: u32,
    subgroup_max_size: u32,
    /// Absent where the adapter gives no device.
    #[serde(skip_serializing_if = "Option::is_none")]
    tuning: Option<BTreeMap<&'static str, u64>>,
    /// Why the adapter gives no device.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    #[serde(skip)]
    description: String,
}

#[derive(Serialize)]
struct Limits {
    max_storage_buffer_binding_size: u64,
    max_buffer_size: u64,
    max_storage_buffers_per_shader_stage: u32,
    min_storage_buffer_offset_alignment: u32,
    max_compute_invocations_per_workgroup: u32,
    max_compute_workgroup_size_x: u32,
    max_compute_workgroup_storage_size: u32,
    max_compute_workgroups_per_dimension: u32,
}

#[derive(Serialize)]
struct Features {
    timestamp_query: bool,
    timestamp_query_inside_passes: bool,
    shader_f16: bool,
    subgroup: bool,
}

#[derive(Serialize)]
struct Cpu {
    threads: usize,
    tuning: BTreeMap<&'static str, u64>,
}

/// Runs `bcnorm info`.
pub fn run(args: Args) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if let Some(dims) = &args.plan {
        return explain(&args, dims, &mut out);
    }
    let report = report();
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
    } else {
        print(&report, &mut out)?;
    }
    Ok(())
}

/// Explains the plan for a shape, with every tuning there is on this machine or with that of a file.
fn explain(args: &Args, dims: &Dims, out: &mut impl Write) -> Result<()> {
    let request = Request::new(args.norm, dims, args.groups, args.dtype, args.layout)?;
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
    let plans = tunings
        .iter()
        .map(|(on, tuning)| {
            let explained = Explained::new(on, &request, args.direction, tuning);
            explained.with_context(|| on.clone())
        })
        .collect::<Result<Vec<Explained>>>()?;
    let direction = args.direction.name();
    if args.json {
        let plans = Plans {
            version: env!("CARGO_PKG_VERSION"),
            norm: request.norm.kind.name(),
            shape: request.tensor.dims().to_vec(),
            groups: request.norm.num_groups,
            dtype: request.tensor.dtype().name(),
            layout: request.tensor.layout().name(),
            direction,
            plans,
        };
        writeln!(out, "{}", serde_json::to_string_pretty(&plans)?)?;
        return Ok(());
    }
    writeln!(out, "{direction} of {request}")?;
    writeln!(out)?;
    for plan in &plans {
        plan.write(out)?;
    }
    Ok(())
}

fn report() -> Report {
    let mut found: Vec<Adapter> = pollster::block_on(adapters())
        .into_iter()
        .map(inspect)
        .collect();
    // As `Gpu::new` does: the first that gives a device.
    if let Some(first) = found.iter_mut().find(|adapter| adapter.problem.is_none()) {
        first.default = true;
    }
    Report {
        version: env!("CARGO_PKG_VERSION"),
        adapters: found,
        cpu: Cpu {
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            tuning: tuning::listed(cpu::Executor::new().tuning())
                .into_iter()
                .collect(),
        },
    }
}

fn inspect(adapter: wgpu::Adapter) -> Adapter {
    let info = adapter.get_info();
    let limits = adapter.limits();
    let features = adapter.features();
    let description = describe(&adapter);
    let tuning = device::open(adapter).map(|Gpu { device, .. }| Tuning::for_device(&device));
    let (tuning, problem) = match tuning {
        Ok(tuning) => (Some(tuning), None),
        Err(error) => (None, Some(describe_error(&error))),
    };
    Adapter {
        name: info.name.clone(),
        backend: format!("{:?}", info.backend),
        device_type: format!("{:?}", info.device_type),
        software: Tuning::for_adapter(&info).class == bcnorm::tuning::AdapterClass::Software,
        driver: format!("{} {}", info.driver, info.driver_info)
            .trim()
            .to_owned(),
        default: false,
        limits: Limits {
            max_storage_buffer_binding_size: limits.max_storage_buffer_binding_size,
            max_buffer_size: limits.max_buffer_size,
            max_storage_buffers_per_shader_stage: limits.max_storage_buffers_per_shader_stage,
            min_storage_buffer_offset_alignment: limits.min_storage_buffer_offset_alignment,
            max_compute_invocations_per_workgroup: limits.max_compute_invocations_per_workgroup,
            max_compute_workgroup_size_x: limits.max_compute_workgroup_size_x,
            max_compute_workgroup_storage_size: limits.max_compute_workgroup_storage_size,
            max_compute_workgroups_per_dimension: limits.max_compute_workgroups_per_dimension,
        },
        features: Features {
            timestamp_query: features.contains(wgpu::Features::TIMESTAMP_QUERY),
            timestamp_query_inside_passes: features
                .contains(wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES),
            shader_f16: features.contains(wgpu::Features::SHADER_F16),
            subgroup: features.contains(wgpu::Features::SUBGROUP),
        },
        subgroup_min_size: info.subgroup_min_size,
        subgroup_max_size: info.subgroup_max_size,
        tuning: tuning.map(|tuning| tuning::listed(tuning).into_iter().collect()),
        problem,
        description,
    }
}

fn print(report: &Report, out: &mut impl Write) -> Result<()> {
    if report.adapters.is_empty() {
        writeln!(
            out,
            "No GPU adapter found. A software driver serves where there is no GPU (on Debian: apt \
             install mesa-vulkan-drivers)."
        )?;
    }
    for (index, adapter) in report.adapters.iter().enumerate() {
        let default = if adapter.default { ", the default" } else { "" };
        let name = format!("#{index} {}", adapter.description);
        writeln!(out, "{}{default}", title(&name))?;
        for (what, text) in adapter.lines() {
            writeln!(out, "  {what:<18}{text}")?;
        }
        writeln!(out)?;
    }
    writeln!(
        out,
        "{}, {} threads",
        title("CPU executor"),
        report.cpu.threads
    )?;
    writeln!(out)?;

    writeln!(out, "{}", title("Tuning"))?;
    let tuned = report
        .adapters
        .iter()
        .enumerate()
        .filter_map(|(index, adapter)| {
            let tuning = adapter.tuning.as_ref()?;
            Some((format!("#{index}"), tuning))
        })
        .chain([("CPU".to_owned(), &report.cpu.tuning)]);
    let (headings, columns): (Vec<String>, Vec<_>) = tuned.unzip();
    let mut table = Table::new(std::iter::once(String::new()).chain(headings));
    for (name, _) in tuning::listed(Tuning::CPU) {
        let numbers = columns.iter().map(|column| column[name].to_string());
        table.row(std::iter::once(name.to_owned()).chain(numbers));
    }
    table.write(out)?;
    Ok(())
}

impl Adapter {
    /// What people want to know of it.
    fn lines(&self) -> Vec<(&'static str, String)> {
        let yes = |flag| if flag { "yes" } else { "no" };
        let (limits, features) = (&self.limits, &self.features);
        let mut lines = vec![
            ("driver", self.driver.clone()),
            (
                "largest binding",
                format!(
                    "{} (buffer: {}, offsets: multiples of {})",
                    mebibytes(limits.max_storage_buffer_binding_size),
                    mebibytes(limits.max_buffer_size),
                    limits.min_storage_buffer_offset_alignment
                ),
            ),
            (
                "workgroups",
                format!(
                    "{} invocations, {} KiB of memory, {} in a dimension",
                    limits
                        .max_compute_invocations_per_workgroup
                        .min(limits.max_compute_workgroup_size_x),
                    limits.max_compute_workgroup_storage_size / 1024,
                    limits.max_compute_workgroups_per_dimension
                ),
            ),
            (
                "storage buffers",
                limits.max_storage_buffers_per_shader_stage.to_string(),
            ),
            (
                "subgroups",
                if features.subgroup {
                    format!("{} to {}", self.subgroup_min_size, self.subgroup_max_size)
                } else {
                    "no".to_owned()
                },
            ),
            ("f16 arithmetic", yes(features.shader_f16).to_owned()),
            (
                "timestamps",
                format!(
                    "{}, inside passes: {}",
                    yes(features.timestamp_query),
                    yes(features.timestamp_query_inside_passes)
                ),
            ),
        ];
        if let Some(problem) = &self.problem {
            lines.push(("NO DEVICE", problem.clone()));
        }
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
