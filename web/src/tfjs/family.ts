/** The family in Keras's terms: channels last, gamma and beta, epsilon 1e-3, momentum as the share that is kept. */
import type { Tensor, Variable } from "@tensorflow/tfjs-core";
import { BOOLEAN, check, checkOptions, NUMBER, oneOf, type Want } from "../check.js";
import { BcNormError } from "../errors.js";
import type { Activation, NormKind, NormOptions } from "../options.js";
import type { Shape } from "../shape.js";
import type { Call } from "./op.js";

/** What all norms have. */
export interface AffineArgs {
  /** Scale, (C); default: none. */
  readonly gamma?: Tensor | undefined;
  /** Offset, (C); default: none. */
  readonly beta?: Tensor | undefined;
  /** Default 1e-3, as Keras has it. */
  readonly epsilon?: number;
  /** Added before the activation, of x's shape. */
  readonly residual?: Tensor | undefined;
  /** Default "none". */
  readonly activation?: Activation;
}

/** Statistics that move. */
export interface RunningArgs {
  /** Running mean, (C): evaluation reads it, training moves it. Without it, the batch's statistics count in evaluation, too. */
  readonly movingMean?: Variable | undefined;
  /** Running variance, (C). Training moves it by the unbiased variance, as TensorFlow's fused kernel and PyTorch do. */
  readonly movingVariance?: Variable | undefined;
  /** The share of the running statistics that stays at a batch, as in Keras; default 0.99. */
  readonly momentum?: number;
  /** Default false. */
  readonly training?: boolean;
}

/** Estimated statistics (the authors' EstBN). */
export interface EstimateArgs extends Omit<RunningArgs, "momentum"> {
  /** The weight of a batch in the estimates, 0 to 1. */
  readonly movingSpeed: number;
}

export interface BatchNormArgs extends AffineArgs, RunningArgs {}
export interface EstBnArgs extends AffineArgs, EstimateArgs {}

export interface GroupNormArgs extends AffineArgs {
  /** A divisor of C; default 32, as in Keras. */
  readonly groups?: number;
}

/** Batch-Channel Normalization. `epsilon` is the group part's; the channel part has 1e-5. */
export interface BcNormArgs extends GroupNormArgs, RunningArgs {
  /** The channel part's scale and offset, (C). `gamma` and `beta` are the group part's: (groups), as in the paper, or (C). */
  readonly channelGamma?: Tensor | undefined;
  readonly channelBeta?: Tensor | undefined;
  /** Estimated statistics of the channels with this moving speed, instead of the batch's with a momentum. */
  readonly movingSpeed?: number | undefined;
}

const TENSOR: Want = ["a tensor of tf.js's", (value) => typeof (value as Tensor | undefined)?.dataId === "object"];
const VARIABLE: Want = [
  "a tf.variable",
  (value) => TENSOR[1](value) && typeof (value as Variable | undefined)?.assign === "function",
];
const AFFINE = { gamma: TENSOR, beta: TENSOR, epsilon: NUMBER, residual: TENSOR, activation: oneOf("none", "relu", "silu") };
const MOVED = { movingMean: VARIABLE, movingVariance: VARIABLE, training: BOOLEAN };
const GROUPS = { ...AFFINE, groups: NUMBER };

const EPSILON = 1e-3;
const MOMENTUM = 0.99;
/** @internal */
export const NUM_GROUPS = 32;

const shown = (shape: readonly number[]): string => `[${shape.join(", ")}]`;

/** Refuses a tensor of another shape or type. */
function like(name: string, tensor: Tensor | undefined, ...shapes: readonly (readonly number[])[]): void {
  if (tensor === undefined) {
    return;
  }
  if (!shapes.some((shape) => shown(shape) === shown(tensor.shape))) {
    throw new BcNormError("tensor", `${name} has shape ${shown(tensor.shape)}, expected ${shapes.map(shown).join(" or ")}`);
  }
  float(name, tensor);
}

function float(name: string, { dtype }: Tensor): void {
  if (dtype !== "float32") {
    throw new BcNormError("tensor", `${name} is ${dtype}, expected float32: cast it with tf.cast`);
  }
}

/** Channels of [N, ...spatial, C], and how the planner sees it. `last`: every position by itself, as Keras's layer norm. */
function view(of: string, dims: readonly number[], last = false): { channels: number; shape: Shape } {
  const channels = dims.at(-1) ?? 0;
  const size = dims.reduce((product, length) => product * length, 1);
  if (dims.length < 2 || size === 0) {
    throw new BcNormError("tensor", `the x of ${of} has shape ${shown(dims)}, expected [N, ...spatial, C] of 1 and more`);
  }
  const samples = last ? size / channels : (dims[0] as number);
  const len = size / samples / channels;
  const seen = dims.length === 2 || last ? [samples, channels] : [samples, channels, len];
  return { channels, shape: { dims: seen, dtype: "f32", layout: "channels_last" } };
}

/** Parameters by role, as far as they are given. */
function parameters(given: Readonly<Record<string, Tensor | undefined>>): ReadonlyMap<string, Tensor> {
  return new Map(Object.entries(given).flatMap(([role, tensor]) => (tensor === undefined ? [] : [[role, tensor]])));
}

function affine({ gamma, beta, epsilon, activation }: AffineArgs): Pick<NormOptions, "weight" | "bias" | "eps" | "activation"> {
  const flags = { weight: gamma !== undefined, bias: beta !== undefined };
  return { ...flags, eps: epsilon ?? EPSILON, activation: activation ?? "none" };
}

/** Running statistics, both or none. */
function runningOf(of: string, channels: number, { movingMean, movingVariance }: RunningArgs): Call["running"] {
  like("movingMean", movingMean, [channels]);
  like("movingVariance", movingVariance, [channels]);
  if ((movingMean === undefined) !== (movingVariance === undefined)) {
    throw new BcNormError("argument", `${of} has one of movingMean and movingVariance: give both, or none`);
  }
  return movingMean === undefined || movingVariance === undefined
    ? new Map()
    : new Map([
        ["bn.running_mean", movingMean],
        ["bn.running_var", movingVariance],
      ]);
}

function batchStats(running: Call["running"], { momentum }: RunningArgs): NormOptions {
  return { trackRunningStats: running.size > 0, momentum: 1 - (momentum ?? MOMENTUM) };
}

function estimates(of: string, channels: number, args: RunningArgs): Call["running"] {
  const running = runningOf(of, channels, args);
  if (running.size === 0) {
    throw new BcNormError("argument", `the estimates of ${of} are its movingMean and movingVariance: give both`);
  }
  return running;
}

/** Each norm of the family: what a call with an x of such a shape is. @internal */
export const FAMILY = {
  batchNorm(dims: readonly number[], args: BatchNormArgs): Call {
    checkOptions("batchNorm", args, { ...AFFINE, ...MOVED, momentum: NUMBER });
    const { channels, shape } = view("batchNorm", dims);
    const running = runningOf("batchNorm", channels, args);
    const call = plain("batch_norm", channels, shape, args, batchStats(running, args));
    return { ...call, training: args.training === true, running };
  },

  estBn(dims: readonly number[], args: EstBnArgs): Call {
    checkOptions("estBn", args, { ...AFFINE, ...MOVED, movingSpeed: NUMBER });
    const { channels, shape } = view("estBn", dims);
    check("movingSpeed", args.movingSpeed, NUMBER);
    const call = plain("est_bn", channels, shape, args, { movingSpeed: args.movingSpeed });
    return { ...call, training: args.training === true, running: estimates("estBn", channels, args) };
  },

  groupNorm(dims: readonly number[], args: GroupNormArgs): Call {
    checkOptions("groupNorm", args, GROUPS);
    const { channels, shape } = view("groupNorm", dims);
    return plain("group_norm", channels, shape, args, { numGroups: args.groups ?? NUM_GROUPS });
  },

  instanceNorm(dims: readonly number[], args: AffineArgs): Call {
    checkOptions("instanceNorm", args, AFFINE);
    const { channels, shape } = view("instanceNorm", dims);
    return plain("instance_norm", channels, shape, args, {});
  },

  layerNorm(dims: readonly number[], args: AffineArgs): Call {
    checkOptions("layerNorm", args, AFFINE);
    const { channels, shape } = view("layerNorm", dims, true);
    return plain("layer_norm", channels, shape, args, {});
  },

  bcNorm(dims: readonly number[], args: BcNormArgs): Call {
    const known = { channelGamma: TENSOR, channelBeta: TENSOR, momentum: NUMBER, movingSpeed: NUMBER };
    checkOptions("bcNorm", args, { ...GROUPS, ...MOVED, ...known });
    const { gamma, beta, channelGamma, channelBeta, movingSpeed } = args;
    const { channels, shape } = view("bcNorm", dims);
    const groups = args.groups ?? NUM_GROUPS;
    like("gamma", gamma, [groups], [channels]);
    like("beta", beta, gamma?.shape ?? [groups], gamma?.shape ?? [channels]);
    like("channelGamma", channelGamma, [channels]);
    like("channelBeta", channelBeta, [channels]);
    const estimated = movingSpeed !== undefined;
    const running = estimated ? estimates("bcNorm", channels, args) : runningOf("bcNorm", channels, args);
    const stats = estimated ? { movingSpeed } : batchStats(running, args);
    const options = {
      numChannels: channels,
      numGroups: groups,
      ...affine(args),
      bnWeight: channelGamma !== undefined,
      bnBias: channelBeta !== undefined,
      perChannelAffine: (gamma ?? beta)?.shape[0] === channels,
      ...stats,
    };
    return {
      kind: "bc_norm",
      options,
      shape,
      training: args.training === true,
      parameters: parameters({ weight: gamma, bias: beta, "bn.weight": channelGamma, "bn.bias": channelBeta }),
      running,
    };
  },
} as const;

/** A norm with an affine per channel, and no statistics that move. */
function plain(
  kind: NormKind,
  channels: number,
  shape: Shape,
  args: AffineArgs,
  options: NormOptions,
): Call {
  const { gamma, beta } = args;
  like("gamma", gamma, [channels]);
  like("beta", beta, [channels]);
  return {
    kind,
    options: { numChannels: channels, ...options, ...affine(args) },
    shape,
    training: true,
    parameters: parameters({ weight: gamma, bias: beta }),
    running: new Map(),
  };
}

/** Refuses an x that is no float32 tensor. @internal */
export function checkX(x: Tensor): void {
  check("x", x, TENSOR);
  float("x", x);
}

/** Refuses a residual that is not as x. @internal */
export function checkResidual(residual: Tensor | undefined, x: Tensor): void {
  like("the residual", residual, x.shape);
}

/**
 * Weight Standardization of filters [...rest, O]: the unbiased variance of n values is n / (n - 1) of the biased one, so it
 * is an instance norm of one sample with another epsilon and a constant scale. @internal
 */
export function standardization(dims: readonly number[], epsilon: number): { epsilon: number; scale: number; seen: number[] } {
  const filters = dims.at(-1) ?? 0;
  const len = dims.reduce((product, length) => product * length, 1) / filters;
  if (dims.length < 2 || !(len >= 2)) {
    const expected = "[...rest, O] with 2 and more values of each";
    throw new BcNormError("tensor", `the filters have shape ${shown(dims)}, expected ${expected}`);
  }
  return { epsilon: (epsilon * (len - 1)) / len, scale: Math.sqrt((len - 1) / len), seen: [1, len, filters] };
}
