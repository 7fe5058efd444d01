//! `bcnorm run`: normalizes stored activations with stored parameters.

use crate::case::{Problem, Run};
use crate::device::Engine;
use crate::request::{NormArgs, describe_norm, describe_tensor, is_grouped, one_of};
use crate::store::{Contents, Destination, Tensor, read_tensor};
use crate::text::{listed, printable};
use anyhow::{Context as _, Result, bail, ensure};
use bcnorm::layer::checkpoint;
use bcnorm::layer::state::{self, StateDict, StateValue};
use bcnorm::{Activation, ChannelStats, DType, Fusion, Mode, NormDesc, NormKind, Role, host};
use bcnorm_testkit::names::is_tensor;
use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};

#[derive(clap::Args, Debug)]
#[command(after_help = "\
The parameters are a PyTorch state dict, saved with safetensors: of a module of the norm, or of a model \
that has it (--module). F16, BF16, F32 and F64 are read. Of a BCNorm it holds
  weight, bias                       (1, G, 1) or (G); per channel (1, C, 1) or (C)
  bn.weight, bn.bias,
  bn.running_mean, bn.running_var    (C); pbn.* is read as well
  bn.num_batches_tracked             I64, one number
  bn.estbn_moving_speed              one number; for --stats estimate, may be absent
of the others weight, bias, running_mean, running_var, num_batches_tracked and estbn_moving_speed, as far \
as they have them. Where neither weight nor bias is there, the norm has no affine, and where no running \
statistics are, it tracks none, as PyTorch's modules with affine=False and track_running_stats=False.
In PyTorch: safetensors.torch.save_file(norm.state_dict(), \"norm.safetensors\")

Tensors are (N, C, *spatial), channels first, in files; --layout says how they lie in the device's memory.
The output holds y and the running statistics, and with --grad also grad_x and the gradients of the \
residual and of all parameters. y, grad_x and grad_residual are of the type --dtype.

Examples:
  bcnorm run --input x.npy --params norm.safetensors --groups 32 --eval --output y.safetensors
  bcnorm run --input x.safetensors --grad dy.safetensors --params norm.safetensors \\
      --groups 32 --train --output out.safetensors
  bcnorm run --norm batch_norm --input x.npy --params resnet.safetensors --module layer1.0.bn1 \\
      --activation relu --residual shortcut.npy --eval --output y.safetensors
  bcnorm run --input x.npy --params norm.safetensors --groups 8 --stats estimate \\
      --moving-speed 0.01 --adapter cpu --output out.safetensors")]
pub struct Args {
    /// The input (N, C, *spatial): a .safetensors file (tensor "x", or the only one; F16, BF16, F32, F64)
    /// or a .npy file
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// Name of the tensor in --input
    #[arg(long, value_name = "NAME")]
    input_name: Option<String>,
    #[command(flatten)]
    norm: NormArgs,
    /// Parameters and running statistics, a .safetensors file with PyTorch's names; may be absent with
    /// instance_norm and weight_standardization
    #[arg(long, value_name = "FILE")]
    params: Option<PathBuf>,
    /// The norm's module in --params, such as layer1.0.bn1 [default: the file is the norm's own]
    #[arg(long, value_name = "PATH", requires = "params")]
    module: Option<String>,
    /// Applied last: y = activation(norm(x) + residual)
    #[arg(long, default_value = "none", value_parser = one_of(&ACTIVATIONS))]
    activation: Activation,
    /// Added before the activation, of the input's shape (tensor "residual", or the only one)
    #[arg(long, value_name = "FILE")]
    residual: Option<PathBuf>,
    /// Name of the tensor in --residual
    #[arg(long, value_name = "NAME", requires = "residual")]
    residual_name: Option<String>,
    /// Gradient of the loss with respect to y (tensor "grad_y", or the only one): runs backward too
    #[arg(long, value_name = "FILE")]
    grad: Option<PathBuf>,
    /// Name of the tensor in --grad
    #[arg(long, value_name = "NAME", requires = "grad")]
    grad_name: Option<String>,
    /// Use the batch's statistics and update the running ones (the default, as in PyTorch)
    #[arg(long, conflicts_with = "eval")]
    train: bool,
    /// Use the running statistics as they are
    #[arg(long)]
    eval: bool,
    /// Channel statistics of bc_norm: those of the batch (BatchNorm2d) or running estimates (EstBN).
    /// Without it: estimate where the parameters hold bn.estbn_moving_speed, batch elsewhere
    #[arg(long, value_enum)]
    stats: Option<Stats>,
    /// eps; with bc_norm that of the group part (the channel part's is 1e-5)
    #[arg(long, default_value_t = 1e-5, allow_negative_numbers = true)]
    eps: f32,
    /// Weight of the batch in the running statistics, 0 to 1, or "none" for a cumulative average [default: 0.1]
    #[arg(long, value_name = "M|none", value_parser = parse_momentum, allow_negative_numbers = true)]
    momentum: Option<Momentum>,
    /// estbn_moving_speed, 0 to 1 [default: that of the parameters, or 0]
    #[arg(
        long,
        value_name = "S",
        conflicts_with = "momentum",
        allow_negative_numbers = true
    )]
    moving_speed: Option<f32>,
    /// "cpu", or a part of an adapter's name or backend [default: the best adapter]
    #[arg(long, value_name = "cpu|NAME")]
    adapter: Option<String>,
    /// The .safetensors file to write
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Replace the output file if it exists
    #[arg(long)]
    force: bool,
}

/// Where the channel statistics come from.
#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
enum Stats {
    Batch,
    Estimate,
}

const ACTIVATIONS: [(&str, Activation); 3] = [
    ("none", Activation::None),
    ("relu", Activation::Relu),
    ("silu", Activation::Silu),
];

/// A momentum, or none.
#[derive(Debug, Clone, Copy)]
struct Momentum(Option<f32>);

fn parse_momentum(text: &str) -> Result<Momentum, String> {
    match text.parse() {
        Ok(momentum) => Ok(Momentum(Some(momentum))),
        Err(_) if text.eq_ignore_ascii_case("none") => Ok(Momentum(None)),
        Err(_) => Err("expected a number from 0 to 1, or none".to_owned()),
    }
}

pub fn run(args: Args) -> Result<()> {
    let extension = args.output.extension();
    ensure!(
        extension.is_some_and(|end| end.eq_ignore_ascii_case("safetensors")),
        "{}: the output is written as .safetensors, give it a name that ends so",
        args.output.display()
    );
    let inputs = [
        ("--input", Some(&args.input)),
        ("--params", args.params.as_ref()),
        ("--grad", args.grad.as_ref()),
        ("--residual", args.residual.as_ref()),
    ];
    let inputs = inputs.map(|(option, path)| Some((option, path?.as_path())));
    let inputs: Vec<(&str, &Path)> = inputs.into_iter().flatten().collect();
    let destination = Destination::new(&args.output, args.force, &inputs)?;

    let input = read_tensor(&args.input, args.input_name.as_deref(), "x")?;
    let tensor = describe_tensor(args.norm.norm, &input.dims);
    let tensor = tensor.with_context(|| args.input.display().to_string())?;
    let NormArgs {
        norm: kind,
        groups,
        dtype,
        layout,
    } = args.norm;
    ensure!(
        !is_grouped(kind) || groups.is_some(),
        "{} needs a number of groups: --groups G",
        kind.name()
    );
    // A mistake here would show as misshapen parameters.
    let plain = describe_norm(kind, tensor.num_channels() as usize, groups)?.with_eps(args.eps);
    let mut state = read_state(&args)?;
    let norm = as_stored(&args, plain, &mut state)?;
    let fit = match state::fit(&norm, &state) {
        Ok(fit) => fit,
        Err(bcnorm::Error::StateDict { problems }) => bail!(misfit(&args, &norm, &state, problems)),
        Err(error) => return Err(error.into()),
    };
    let file = args.params.as_deref().unwrap_or(Path::new("--params"));
    for warning in &fit.warnings {
        let text = format!("{}: {warning}", file.display());
        writeln!(std::io::stderr(), "warning: {}", printable(&text))?;
    }

    let shape = input.dims.clone();
    check_range(&args.input, dtype, &input)?;
    let same_shape = |path: &Option<PathBuf>, name: &Option<String>, default| {
        let Some(path) = path else {
            return Ok(None);
        };
        let tensor = read_tensor(path, name.as_deref(), default)?;
        ensure!(
            tensor.dims == shape,
            "{}: {default} has shape {:?}, expected that of the input, {shape:?}",
            path.display(),
            tensor.dims,
        );
        check_range(path, dtype, &tensor)?;
        Ok(Some(tensor.values))
    };
    let grad_y = same_shape(&args.grad, &args.grad_name, "grad_y")?;
    let residual = same_shape(&args.residual, &args.residual_name, "residual")?;

    let count = fit.batch_count.unwrap_or(0);
    let mut case = Problem {
        mode: if args.eval { Mode::Eval } else { Mode::Train },
        layout,
        fusion: Fusion::NONE
            .with_activation(args.activation)
            .with_residual(residual.is_some()),
        backward: grad_y.is_some(),
        grad_y: grad_y.unwrap_or_default(),
        residual: residual.unwrap_or_default(),
        // Kernels count to there. One less, so that it shows whether they counted.
        num_batches_tracked: u32::try_from(count).unwrap_or(u32::MAX).min(u32::MAX - 1),
        ..Problem::new(fit.norm, tensor.dims(), input.values)
    };
    for (role, values) in &fit.values {
        let place = match role {
            Role::Weight => &mut case.weight,
            Role::Bias => &mut case.bias,
            Role::BnWeight => &mut case.bn_weight,
            Role::BnBias => &mut case.bn_bias,
            Role::RunningMean => &mut case.running_mean,
            Role::RunningVar => &mut case.running_var,
            other => bail!("{other} is not known to this command"),
        };
        *place = values.to_vec();
    }
    let case = case.with_dtype(dtype);
    case.check()?;

    let engine = Engine::open(args.adapter.as_deref())?;
    let (outputs, adapter) = (engine.run(&case)?, engine.describe());
    let counted = outputs.num_batches_tracked - case.num_batches_tracked;
    let count = count.saturating_add(counted.into());
    let mode = if args.eval { "eval" } else { "train" };
    let name = case.norm.kind.name();
    let mut contents = pack(&case, &outputs, &shape, &state, count);
    let stats = stats_name(&case.norm).map(|stats| ("stats", stats));
    let remarks = [
        ("adapter", &*adapter),
        ("bcnorm", env!("CARGO_PKG_VERSION")),
        ("norm", name),
        ("mode", mode),
    ];
    let remarks = remarks.into_iter().chain(stats);
    contents.metadata = remarks.map(|(k, v)| (k.into(), v.into())).collect();
    destination.write(&contents.serialize()?)?;
    let what = particulars(&case.norm);
    writeln!(
        std::io::stdout(),
        "{destination}: {name} of shape {shape:?}{what}, {mode}, on {adapter}"
    )?;
    Ok(())
}

/// The state dict, by the library's rules.
fn read_state(args: &Args) -> Result<StateDict> {
    let kind = args.norm.norm;
    let Some(params) = &args.params else {
        ensure!(
            matches!(
                kind,
                NormKind::InstanceNorm | NormKind::WeightStandardization
            ),
            "{} has parameters: give --params FILE, a state dict in a .safetensors file (an empty one \
             where affine and track_running_stats are False)",
            kind.name()
        );
        return Ok(StateDict::new());
    };
    let module = args.module.as_deref().unwrap_or_default();
    Ok(checkpoint::load_module(params, module)?)
}

/// The norm that has the entries of a state dict, as PyTorch's arguments `affine` and `track_running_stats` decide
/// them: all of a kind are there, or none. What is there in part is missed when the dict is fitted.
///
/// The speed of the options, or 0, is put into a dict that lacks it.
fn as_stored(args: &Args, mut norm: NormDesc, state: &mut StateDict) -> Result<NormDesc> {
    use NormKind::{BatchNorm, BcNorm, EstBn, InstanceNorm};
    let kind = norm.kind;
    let estimates = matches!(kind, BcNorm | EstBn);
    let tracks = estimates || matches!(kind, BatchNorm | InstanceNorm);
    for (option, given, allowed) in [
        ("--stats batch", args.stats == Some(Stats::Batch), tracks),
        (
            "--stats estimate",
            args.stats == Some(Stats::Estimate),
            estimates,
        ),
        ("--momentum", args.momentum.is_some(), tracks),
        ("--moving-speed", args.moving_speed.is_some(), estimates),
    ] {
        ensure!(
            !given || allowed,
            "{option} is of norms with such statistics: {} has none",
            kind.name()
        );
    }
    let prefix = match kind == NormKind::BcNorm {
        true if state.keys().any(|name| name.starts_with("pbn.")) => "pbn.",
        true => "bn.",
        false => "",
    };
    let has = |prefix: &str, names: &[&str]| {
        names
            .iter()
            .any(|name| state.contains_key(&format!("{prefix}{name}")))
    };
    let weights = ["weight", "bias"];
    let running = has(
        prefix,
        &["running_mean", "running_var", "num_batches_tracked"],
    );
    if kind != NormKind::WeightStandardization {
        let affine = has("", &weights);
        // PyTorch's LayerNorm alone can be without a bias.
        norm = norm
            .with_weight(affine)
            .with_bias(affine && (kind != NormKind::LayerNorm || has("", &["bias"])));
    }
    match kind {
        BcNorm => {
            let bn_affine = has(prefix, &weights);
            let is_per_channel = |name: &str| match state.get(name) {
                Some(StateValue::F32 { values, .. }) => {
                    values.len() == norm.num_channels && values.len() != norm.num_groups
                }
                _ => false,
            };
            let norm = norm
                .with_bn_weight(bn_affine)
                .with_bn_bias(bn_affine)
                .with_track_running_stats(running)
                .with_per_channel_affine(weights.into_iter().any(is_per_channel));
            with_statistics(args, norm, state, &format!("{prefix}estbn_moving_speed"))
        }
        EstBn => with_statistics(args, norm, state, "estbn_moving_speed"),
        _ if tracks => Ok(norm
            .with_track_running_stats(running)
            .with_momentum(args.momentum())),
        _ => Ok(norm),
    }
}

impl Args {
    fn momentum(&self) -> Option<f32> {
        self.momentum
            .map_or(Some(0.1), |Momentum(momentum)| momentum)
    }
}

/// The norm with the statistics that options and parameters ask for, each of which says which kind is meant;
/// `entry` is the speed's name in the dict.
fn with_statistics(
    args: &Args,
    norm: NormDesc,
    state: &mut StateDict,
    entry: &str,
) -> Result<NormDesc> {
    let stored = state.contains_key(entry);
    let speed_given = args.moving_speed.is_some() || stored;
    let stats = match args.stats {
        _ if norm.kind == NormKind::EstBn => Stats::Estimate,
        Some(stats) => stats,
        None if speed_given && args.momentum.is_none() => Stats::Estimate,
        None => Stats::Batch,
    };
    if stats == Stats::Batch {
        ensure!(
            !stored,
            "the parameters' {entry} belongs to EstBN: use --stats estimate, or parameters without it"
        );
        ensure!(
            args.moving_speed.is_none(),
            "--moving-speed belongs to --stats estimate"
        );
        return Ok(norm.with_momentum(args.momentum()));
    }
    ensure!(
        args.momentum.is_none() && args.stats != Some(Stats::Batch),
        "--momentum and --stats batch belong to batch statistics, and these are estimates"
    );
    if args.moving_speed.is_some() || !stored {
        let (dims, values) = (vec![1], vec![args.moving_speed.unwrap_or(0.0)]);
        state.insert(entry.to_owned(), StateValue::F32 { dims, values });
    }
    // The dict's takes its place.
    Ok(norm.with_moving_speed(0.0))
}

/// Everything that keeps a state dict from fitting, and the modules that may have been meant.
fn misfit(args: &Args, norm: &NormDesc, state: &StateDict, mut problems: Vec<String>) -> String {
    /// Enough to see how they are called.
    const SHOWN: usize = 20;
    let parents = state.keys().filter_map(|name| name.rsplit_once('.'));
    let modules = parents.map(|(module, _)| module);
    let modules: BTreeSet<&str> = modules
        .filter(|module| !matches!(*module, "bn" | "pbn"))
        .collect();
    if args.module.is_none() && !modules.is_empty() {
        let shown = modules
            .iter()
            .take(SHOWN)
            .map(|module| module.escape_debug().to_string());
        let shown = shown.collect::<Vec<String>>().join(", ");
        let more = if modules.len() > SHOWN { ", ..." } else { "" };
        problems.push(format!(
            "(if the file is a model's, choose a --module: {shown}{more})"
        ));
    }
    let file = args.params.as_deref().unwrap_or(Path::new("--params"));
    let groups = match is_grouped(norm.kind) {
        true => format!(" in {} groups", norm.num_groups),
        false => String::new(),
    };
    let what = format!(
        "{}: the parameters do not fit {} of {} channels{groups}",
        file.display(),
        norm.kind.name(),
        norm.num_channels
    );
    listed(&what, &problems)
}

/// Refuses finite values that a 16-bit type makes infinite.
fn check_range(path: &Path, dtype: DType, tensor: &Tensor) -> Result<()> {
    if dtype == DType::F32 {
        return Ok(());
    }
    let values = &tensor.values;
    let stored = host::unpack(dtype, &host::pack(dtype, values), values.len());
    let mut pairs = values.iter().zip(&stored);
    if let Some(index) = pairs.position(|(value, stored)| value.is_finite() && stored.is_infinite())
    {
        let (mut rest, mut place) = (index, tensor.dims.clone());
        for size in place.iter_mut().rev() {
            (rest, *size) = (rest / *size, rest % *size);
        }
        bail!(
            "{}: it has {:e} at {place:?}, beyond the largest {}: choose another --dtype",
            path.display(),
            values[index],
            dtype.name()
        );
    }
    Ok(())
}

/// Where the channel statistics come from; none where there are none.
fn stats_name(norm: &NormDesc) -> Option<&'static str> {
    match (norm.kind, norm.stats) {
        (NormKind::BatchNorm | NormKind::EstBn | NormKind::BcNorm, stats) => Some(match stats {
            ChannelStats::Estimate { .. } => "estimate",
            _ => "batch",
        }),
        _ => None,
    }
}

/// What of a norm was read from its parameters, for people.
fn particulars(norm: &NormDesc) -> String {
    let mut text = String::new();
    if is_grouped(norm.kind) {
        text += &format!(", {} groups", norm.num_groups);
    }
    if let Some(stats) = stats_name(norm) {
        text += &format!(", {stats} statistics");
    }
    let both = norm.kind == NormKind::BcNorm;
    let affine = norm.kind != NormKind::WeightStandardization;
    let tracks = stats_name(norm).is_some() || norm.kind == NormKind::InstanceNorm;
    for (is_so, what) in [
        (affine && !norm.weight, ", without weight"),
        (affine && !norm.bias, ", without bias"),
        (both && !norm.bn_weight, ", without bn.weight and bn.bias"),
        (
            tracks && !norm.has_running_stats(),
            ", without running statistics",
        ),
        (both && norm.per_channel_affine, ", affine per channel"),
    ] {
        text += if is_so { what } else { "" };
    }
    text
}

/// The output: state under the names of the norm's state dict, gradients in the shapes of what they
/// belong to.
fn pack(case: &Problem, run: &Run, shape: &[usize], state: &StateDict, count: i64) -> Contents {
    let channels = [case.norm.num_channels];
    let mut contents = Contents::default();
    if let Some(name) = state::batch_count(&case.norm) {
        contents.integer(name, count);
    }
    for (&name, values) in &run.outputs {
        let parameter = name.strip_prefix("grad_").and_then(|name| state.get(name));
        let dims = match parameter {
            _ if is_tensor(name) => shape,
            Some(StateValue::F32 { dims, .. }) => dims,
            _ => &channels,
        };
        let dtype = if is_tensor(name) {
            case.dtype
        } else {
            DType::F32
        };
        // State keeps the names of the parameters' file.
        let name = name.strip_suffix("_after").unwrap_or(name);
        contents.floats(name, dtype, dims, values);
    }
    contents
}
