//! `bcnorm info`: adapters, what they offer, and the tuning that is used on them.

mod card;
mod plan;

use crate::request::{Dims, Direction, NormArgs, Request, parse_dims};
use crate::table::{Table, title};
use crate::text::describe_error;
use crate::{device, tuning};
use anyhow::{Context as _, Result};
use bcnorm::gpu::headless::{adapters, describe};
use bcnorm::{Tuning, cpu};
use card::Prediction;
use plan::Explained;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use wgpu::Features;

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
  bcnorm info --plan 8,64,56,56 --tuning tuning.txt     with what bcnorm tune --save wrote
  bcnorm info --plan 32,256,56,56 --card rtx-4090,m2    what it would take there: a prediction"
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
    /// Predict what the plan would take on cards that are not here, step by step: names with commas, or all
    #[arg(long, value_name = "NAME", value_delimiter = ',', requires = "plan", conflicts_with = "tuning", value_parser = card::card_parser())]
    card: Vec<String>,
    /// Print one JSON object instead
    #[arg(long)]
    json: bool,
}

/// What is known of an adapter.
struct Adapter {
    description: String,
    info: wgpu::AdapterInfo,
    limits: wgpu::Limits,
    features: Features,
    /// Or why the adapter gives no device.
    tuning: Result<Tuning, String>,
}

pub fn run(args: Args) -> Result<()> {
    let text = match &args.plan {
        Some(dims) if !args.card.is_empty() => predict(&args, dims)?,
        Some(dims) => explain(&args, dims)?,
        None => {
            let found = pollster::block_on(adapters()).into_iter();
            let found: Vec<Adapter> = found.map(Adapter::inspect).collect();
            match args.json {
                true => format!("{:#}\n", report(&found)),
                false => text(&found)?,
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
                tunings.push((name, device::tuning(&gpu)?));
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
        let mut object = planned(&request, direction);
        object["plans"] = json!(plans);
        return Ok(format!("{object:#}\n"));
    }
    let plans: String = plans.iter().map(|plan| format!("{plan}\n")).collect();
    Ok(format!("{direction} of {request}\n\n{plans}"))
}

/// Predicts the plan for a shape on cards of the table.
fn predict(args: &Args, dims: &Dims) -> Result<String> {
    let request = args.norm.request(dims)?;
    let predict = |card| Prediction::new(card, &request, args.direction);
    let cards = card::chosen(&args.card).map(predict);
    let cards = cards.collect::<Result<Vec<Prediction>>>()?;
    let direction = args.direction.name();
    if args.json {
        let mut object = planned(&request, direction);
        object["note"] = json!(card::NOTE);
        object["cards"] = json!(cards);
        return Ok(format!("{object:#}\n"));
    }
    let cards: String = cards.iter().map(|card| format!("{card}\n")).collect();
    Ok(format!(
        "{}\n\n{direction} of {request}\n\n{cards}",
        card::NOTE
    ))
}

/// What was planned.
fn planned(request: &Request, direction: &str) -> Value {
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "norm": request.norm.kind.name(),
        "shape": request.tensor.dims(),
        "groups": request.norm.num_groups,
        "dtype": request.tensor.dtype().name(),
        "layout": request.tensor.layout().name(),
        "direction": direction,
    })
}

/// As `Gpu::new` does: the first that gives a device.
fn default(adapters: &[Adapter]) -> Option<usize> {
    adapters.iter().position(|adapter| adapter.tuning.is_ok())
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn numbers(tuning: &Tuning) -> BTreeMap<&'static str, u64> {
    tuning.settings().into_iter().collect()
}

fn report(adapters: &[Adapter]) -> Value {
    let default = default(adapters);
    let adapters = adapters.iter().enumerate();
    let adapters = adapters.map(|(i, adapter)| adapter.json(Some(i) == default));
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "adapters": adapters.collect::<Vec<Value>>(),
        "cpu": {"threads": threads(), "tuning": numbers(&cpu::Executor::new().tuning())},
    })
}

fn text(adapters: &[Adapter]) -> Result<String> {
    let mut text = String::new();
    if adapters.is_empty() {
        text += "No GPU adapter found. A software driver serves where there is no GPU (on Debian: apt \
                 install mesa-vulkan-drivers).\n";
    }
    for (index, adapter) in adapters.iter().enumerate() {
        let is_default = default(adapters) == Some(index);
        let default = if is_default { ", the default" } else { "" };
        let name = title(format_args!("#{index} {}", adapter.description));
        writeln!(text, "{name}{default}")?;
        for (what, line) in adapter.lines() {
            writeln!(text, "  {what:<18}{line}")?;
        }
        text += "\n";
    }
    writeln!(text, "{}, {} threads\n", title("CPU executor"), threads())?;

    let tuned = adapters.iter().enumerate();
    let tuned =
        tuned.filter_map(|(i, adapter)| Some((format!("#{i}"), adapter.tuning.clone().ok()?)));
    let tuned = tuned.chain([("CPU".to_owned(), cpu::Executor::new().tuning())]);
    let (headings, columns): (Vec<String>, Vec<_>) = tuned
        .map(|(name, tuning)| (name, tuning.settings()))
        .unzip();
    let mut table = Table::new(std::iter::once(String::new()).chain(headings));
    for (row, (name, _)) in Tuning::CPU.settings().into_iter().enumerate() {
        let numbers = columns.iter().map(|column| column[row].1.to_string());
        table.row(std::iter::once(name.to_owned()).chain(numbers));
    }
    write!(text, "{}\n{table}", title("Tuning"))?;
    Ok(text)
}

const FEATURES: [(&str, Features); 4] = [
    ("timestamp_query", Features::TIMESTAMP_QUERY),
    (
        "timestamp_query_inside_passes",
        Features::TIMESTAMP_QUERY_INSIDE_PASSES,
    ),
    ("shader_f16", Features::SHADER_F16),
    ("subgroup", Features::SUBGROUP),
];

impl Adapter {
    fn inspect(adapter: wgpu::Adapter) -> Self {
        Self {
            description: describe(&adapter),
            info: adapter.get_info(),
            limits: adapter.limits(),
            features: adapter.features(),
            tuning: match device::open(adapter) {
                Ok(gpu) => device::tuning(&gpu),
                Err(error) => Err(error),
            }
            .map_err(|error| describe_error(&error)),
        }
    }

    fn json(&self, is_default: bool) -> Value {
        let (info, limits) = (&self.info, &self.limits);
        macro_rules! named {
            ($($field:ident),*) => {
                json!({$(stringify!($field): limits.$field),*})
            };
        }
        let features = FEATURES.map(|(name, feature)| (name, self.features.contains(feature)));
        let mut object = json!({
            "name": info.name,
            "backend": format!("{:?}", info.backend),
            "device_type": format!("{:?}", info.device_type),
            "software": device::is_software(info),
            "driver": self.driver(),
            "default": is_default,
            "limits": named!(
                max_storage_buffer_binding_size,
                max_buffer_size,
                max_storage_buffers_per_shader_stage,
                min_storage_buffer_offset_alignment,
                max_compute_invocations_per_workgroup,
                max_compute_workgroup_size_x,
                max_compute_workgroup_storage_size,
                max_compute_workgroups_per_dimension
            ),
            "features": BTreeMap::from(features),
            "subgroup_min_size": info.subgroup_min_size,
            "subgroup_max_size": info.subgroup_max_size,
        });
        match &self.tuning {
            Ok(tuning) => object["tuning"] = json!(numbers(tuning)),
            Err(problem) => object["problem"] = json!(problem),
        }
        object
    }

    fn driver(&self) -> String {
        let text = format!("{} {}", self.info.driver, self.info.driver_info);
        text.trim().to_owned()
    }

    fn lines(&self) -> Vec<(&'static str, String)> {
        let (info, limits) = (&self.info, &self.limits);
        let yes = |feature| {
            if self.features.contains(feature) {
                "yes"
            } else {
                "no"
            }
        };
        let binding = mebibytes(limits.max_storage_buffer_binding_size);
        let buffer = mebibytes(limits.max_buffer_size);
        let offsets = limits.min_storage_buffer_offset_alignment;
        let invocations = limits.max_compute_invocations_per_workgroup;
        let invocations = invocations.min(limits.max_compute_workgroup_size_x);
        let kibibytes = limits.max_compute_workgroup_storage_size / 1024;
        let dimension = limits.max_compute_workgroups_per_dimension;
        let binding = format!("{binding} (buffer: {buffer}, offsets: multiples of {offsets})");
        let workgroups = format!(
            "{invocations} invocations, {kibibytes} KiB of memory, {dimension} in a dimension"
        );
        let subgroups = match self.features.contains(Features::SUBGROUP) {
            true => format!("{} to {}", info.subgroup_min_size, info.subgroup_max_size),
            false => "no".to_owned(),
        };
        let stamps = yes(Features::TIMESTAMP_QUERY);
        let inside = yes(Features::TIMESTAMP_QUERY_INSIDE_PASSES);
        let mut lines = vec![
            ("driver", self.driver()),
            ("largest binding", binding),
            ("workgroups", workgroups),
            (
                "storage buffers",
                limits.max_storage_buffers_per_shader_stage.to_string(),
            ),
            ("subgroups", subgroups),
            ("f16 arithmetic", yes(Features::SHADER_F16).to_owned()),
            ("timestamps", format!("{stamps}, inside passes: {inside}")),
        ];
        let problem = self.tuning.as_ref().err();
        lines.extend(problem.map(|problem| ("NO DEVICE", problem.clone())));
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
