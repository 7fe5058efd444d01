//! `bcnorm run`: normalizes stored activations with stored parameters.

use crate::case::{Problem, Run, run_on_cpu, run_on_gpu};
use crate::device;
use crate::store::{Contents, Destination, Params, Tensor, read_params, read_tensor};
use anyhow::{Context as _, Result, ensure};
use bcnorm::gpu::Pipelines;
use bcnorm::{ChannelStats, Mode, NormDesc, cpu};
use std::io::Write as _;
use std::path::PathBuf;

/// Arguments of `bcnorm run`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
The parameters are a PyTorch state dict of a BCNorm, saved with safetensors:
  weight, bias                       F32 of shape (1, G, 1) or (G)
  bn.weight, bn.bias,
  bn.running_mean, bn.running_var    F32 of shape (C)
  bn.num_batches_tracked             I64, one number
  bn.estbn_moving_speed              F32, one number; for --stats estimate, may be absent
In PyTorch: safetensors.torch.save_file(norm.state_dict(), \"norm.safetensors\")

The output holds y, bn.running_mean, bn.running_var, bn.num_batches_tracked, and with --grad also \
grad_x, grad_bn.weight, grad_bn.bias, grad_weight, grad_bias.

Examples:
  bcnorm run --input x.npy --params norm.safetensors --groups 32 --eval --output y.safetensors
  bcnorm run --input x.safetensors --grad dy.safetensors --params norm.safetensors \\
      --groups 32 --train --output out.safetensors
  bcnorm run --input x.npy --params norm.safetensors --groups 8 --stats estimate \\
      --moving-speed 0.01 --adapter cpu --output out.safetensors")]
pub struct Args {
    /// The input (N, C, *spatial), F32: a .safetensors file (tensor "x", or the only one) or a .npy file
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// Name of the tensor in --input
    #[arg(long, value_name = "NAME")]
    input_name: Option<String>,
    /// Parameters and running statistics, a .safetensors file with PyTorch's names
    #[arg(long, value_name = "FILE")]
    params: PathBuf,
    /// Number of groups, a divisor of the channels
    #[arg(long, value_name = "G")]
    groups: usize,
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
    /// Channel statistics: those of the batch (BatchNorm2d) or running estimates (EstBN).
    /// Without it: estimate where the parameters hold bn.estbn_moving_speed, batch elsewhere
    #[arg(long, value_enum)]
    stats: Option<Stats>,
    /// eps of the group part (the channel part's is 1e-5)
    #[arg(long, default_value_t = 1e-5, allow_negative_numbers = true)]
    eps: f32,
    /// Weight of the batch in the running statistics, 0 to 1, or "none" for a cumulative average [default: 0.1]
    #[arg(long, value_name = "M|none", value_parser = parse_momentum, allow_negative_numbers = true)]
    momentum: Option<Momentum>,
    /// estbn_moving_speed, 0 to 1 [default: bn.estbn_moving_speed of the parameters, or 0]
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

/// A momentum, or none.
#[derive(Debug, Clone, Copy)]
struct Momentum(Option<f32>);

fn parse_momentum(text: &str) -> Result<Momentum, String> {
    if text.eq_ignore_ascii_case("none") {
        return Ok(Momentum(None));
    }
    match text.parse() {
        Ok(momentum) => Ok(Momentum(Some(momentum))),
        Err(_) => Err("expected a number from 0 to 1, or none".to_owned()),
    }
}

/// Runs `bcnorm run`.
pub fn run(args: Args) -> Result<()> {
    let extension = args.output.extension();
    ensure!(
        extension.is_some_and(|end| end.eq_ignore_ascii_case("safetensors")),
        "{}: the output is written as .safetensors, give it a name that ends so",
        args.output.display()
    );
    let destination = Destination::new(&args.output, args.force)?;
    let input = read_tensor(&args.input, args.input_name.as_deref(), "x")?;
    let channels = *input.dims.get(1).with_context(|| {
        format!(
            "{}: a tensor of shape {:?} has no channel dimension, expected (N, C, *spatial)",
            args.input.display(),
            input.dims
        )
    })?;
    // A mistake here would show as misshapen parameters.
    NormDesc::bc_norm(channels, args.groups).validate()?;
    let params = read_params(&args.params, channels, args.groups)?;
    let grad = match &args.grad {
        None => None,
        Some(path) => {
            let grad = read_tensor(path, args.grad_name.as_deref(), "grad_y")?;
            ensure!(
                grad.dims == input.dims,
                "{}: grad_y has shape {:?}, expected that of the input, {:?}",
                path.display(),
                grad.dims,
                input.dims
            );
            Some(grad)
        }
    };
    let stats = channel_stats(&args, &params)?;
    let mode = if args.eval { Mode::Eval } else { Mode::Train };
    let (weight_dims, bias_dims) = (params.weight.dims.clone(), params.bias.dims.clone());
    let case = make_case(&args, input, params, grad, stats, mode);
    case.check()?;

    let (outputs, adapter) = execute(&case, args.adapter.as_deref())?;
    let mut contents = pack(&case, &outputs, &weight_dims, &bias_dims);
    contents.remark("adapter", &adapter);
    contents.remark("bcnorm", env!("CARGO_PKG_VERSION"));
    contents.remark("mode", if args.eval { "eval" } else { "train" });
    contents.remark("stats", stats_name(stats));
    destination.write(&contents.serialize()?)?;

    writeln!(
        std::io::stdout(),
        "{}: shape {:?}, {} groups, {} statistics, {}, on {adapter}",
        args.output.display(),
        case.dims,
        case.norm.num_groups,
        stats_name(stats),
        if args.eval { "eval" } else { "train" },
    )?;
    Ok(())
}

fn channel_stats(args: &Args, params: &Params) -> Result<ChannelStats> {
    // Each option says which kind is meant, as the parameters do.
    let speed_given = args.moving_speed.is_some() || params.moving_speed.is_some();
    let stats = match args.stats {
        Some(stats) => stats,
        None if speed_given && args.momentum.is_none() => Stats::Estimate,
        None => Stats::Batch,
    };
    match stats {
        Stats::Batch => {
            ensure!(
                params.moving_speed.is_none(),
                "{}: bn.estbn_moving_speed belongs to EstBN: use --stats estimate, or parameters \
                 without it",
                args.params.display()
            );
            ensure!(
                args.moving_speed.is_none(),
                "--moving-speed belongs to --stats estimate"
            );
            let Momentum(momentum) = args.momentum.unwrap_or(Momentum(Some(0.1)));
            Ok(ChannelStats::Batch { momentum })
        }
        Stats::Estimate => {
            ensure!(
                args.momentum.is_none(),
                "--momentum belongs to --stats batch"
            );
            let moving_speed = args.moving_speed.or(params.moving_speed).unwrap_or(0.0);
            Ok(ChannelStats::Estimate { moving_speed })
        }
    }
}

fn stats_name(stats: ChannelStats) -> &'static str {
    match stats {
        ChannelStats::Estimate { .. } => "estimate",
        _ => "batch",
    }
}

fn make_case(
    args: &Args,
    input: Tensor,
    params: Params,
    grad: Option<Tensor>,
    stats: ChannelStats,
    mode: Mode,
) -> Problem {
    let channels = params.bn_weight.len();
    let norm = NormDesc::bc_norm(channels, args.groups)
        .with_eps(args.eps)
        .with_stats(stats);
    let problem = Problem::new(norm, &input.dims, input.values).with_mode(mode);
    let problem = match grad {
        Some(grad) => problem.with_grad_y(grad.values),
        None => problem,
    };
    Problem {
        bn_weight: params.bn_weight,
        bn_bias: params.bn_bias,
        weight: params.weight.values,
        bias: params.bias.values,
        running_mean: params.running_mean,
        running_var: params.running_var,
        num_batches_tracked: params.num_batches_tracked,
        ..problem
    }
}

/// Runs the case, and says where.
fn execute(case: &Problem, adapter: Option<&str>) -> Result<(Run, String)> {
    if adapter.is_some_and(|name| name.eq_ignore_ascii_case("cpu")) {
        let outputs = run_on_cpu(case, &cpu::Executor::new())?;
        return Ok((outputs, "CPU executor".to_owned()));
    }
    let gpu = device::open_best(adapter)?;
    let outputs = run_on_gpu(case, &gpu, &Pipelines::new(&gpu.device))?;
    Ok((outputs, gpu.describe()))
}

fn pack(case: &Problem, run: &Run, weight_dims: &[usize], bias_dims: &[usize]) -> Contents {
    let channels = [case.num_channels()];
    let mut contents = Contents::default();
    contents.integer("bn.num_batches_tracked", i64::from(run.num_batches_tracked));
    for (&name, values) in &run.outputs {
        let (name, dims) = match name {
            // State keeps the names of the parameters' file.
            "bn.running_mean_after" => ("bn.running_mean", &channels[..]),
            "bn.running_var_after" => ("bn.running_var", &channels[..]),
            "y" | "grad_x" => (name, &case.dims[..]),
            "grad_weight" => (name, weight_dims),
            "grad_bias" => (name, bias_dims),
            _ => (name, &channels[..]),
        };
        contents.floats(name, dims, values);
    }
    contents
}
