import { BOOLEAN, checkOptions, NUMBER, oneOf, TEXT, type Want } from "./check.js";
import { BcNormError, guarded } from "./errors.js";
import type { Module } from "./planner.js";
import type { Norm as PlannedNorm } from "./planner/bcnorm_planner.js";

/** Which norm. */
export type NormKind =
  | "batch_norm"
  | "est_bn"
  | "group_norm"
  | "instance_norm"
  | "layer_norm"
  | "bc_norm"
  | "weight_standardization";

/** What is applied to norm(x) + residual. */
export type Activation = "none" | "relu" | "silu";

/**
 * A norm, in PyTorch's terms; the defaults are those of the `torch.nn` module of the name. An option that a norm
 * does not have is an error.
 */
export interface NormOptions {
  /** C. (Weight Standardization has none.) */
  numChannels?: number;
  /** G of GroupNorm and BCNorm, a divisor of C; default 1. */
  numGroups?: number;
  /** Default 1e-5. With BCNorm, the group part's (the channel part's is 1e-5). */
  eps?: number;
  /**
   * BatchNorm, InstanceNorm and BCNorm: weight of a batch in the running statistics, default 0.1; null: the cumulative
   * average.
   */
  momentum?: number | null;
  /**
   * EstBN and BCNorm: estimated channel statistics (the authors' EstBN, `BCNorm(estimate=True)`) with this moving
   * speed, 0 to 1.
   */
  movingSpeed?: number;
  weight?: boolean;
  bias?: boolean;
  /** BCNorm: whether there are `bn.weight` and `bn.bias`. */
  bnWeight?: boolean;
  bnBias?: boolean;
  /** BCNorm: `weight` and `bias` per channel, rather than per group as in the paper. */
  perChannelAffine?: boolean;
  /** BatchNorm, InstanceNorm and BCNorm. */
  trackRunningStats?: boolean;
  activation?: Activation;
  /** Text of a tuning, as `bcnorm tune --save` writes it; default: what suits the device's adapter. */
  tuning?: string;
}

const FLAGS = [
  "weight",
  "bias",
  "bnWeight",
  "bnBias",
  "perChannelAffine",
  "trackRunningStats",
] as const;

const MOMENTUM: Want = ["a number or null", (value) => value === null || typeof value === "number"];

const COMMON = { eps: NUMBER, activation: oneOf("none", "relu", "silu"), tuning: TEXT };
const CHANNELS = { numChannels: NUMBER, weight: BOOLEAN, bias: BOOLEAN, ...COMMON };
const GROUPS = { numGroups: NUMBER, ...CHANNELS };
const RUNNING = { momentum: MOMENTUM, trackRunningStats: BOOLEAN };
const ESTIMATE = { movingSpeed: NUMBER };
const BN_AFFINE = { bnWeight: BOOLEAN, bnBias: BOOLEAN, perChannelAffine: BOOLEAN };

/** What each norm has. */
const OPTIONS: Readonly<Record<NormKind, Readonly<Record<string, Want>>>> = {
  bc_norm: { ...GROUPS, ...BN_AFFINE, ...RUNNING, ...ESTIMATE },
  batch_norm: { ...CHANNELS, ...RUNNING },
  est_bn: { ...CHANNELS, ...ESTIMATE },
  group_norm: GROUPS,
  instance_norm: { ...CHANNELS, ...RUNNING },
  layer_norm: CHANNELS,
  weight_standardization: COMMON,
};

/** A new momentum, or the next moving speed. */
export type StatsOptions =
  | { readonly momentum: number | null; readonly movingSpeed?: never }
  | { readonly movingSpeed: number; readonly momentum?: never };

function checkOne({ momentum, movingSpeed }: Partial<StatsOptions>): void {
  if (momentum !== undefined && movingSpeed !== undefined) {
    throw new BcNormError("norm", "momentum is of batch statistics, movingSpeed of estimates: give one of them");
  }
}

/** Refuses settings of statistics that a norm does not have. @internal */
export function checkStats(kind: NormKind, stats: StatsOptions): void {
  const names = ["momentum", "movingSpeed"].filter((name) => name in OPTIONS[kind]);
  if (names.length === 0) {
    throw new BcNormError("norm", `a ${kind} keeps no statistics, so that there are none to set`);
  }
  const known = names.map((name) => [name, OPTIONS[kind][name] as Want] as const);
  checkOptions(`setStats of a ${kind}`, stats, Object.fromEntries(known));
  checkOne(stats);
  if (stats.momentum === undefined && stats.movingSpeed === undefined) {
    throw new BcNormError("norm", `setStats without a setting: give ${names.join(" or ")}`);
  }
}

/** The planner's norm of such options. @internal */
export function normOf(
  { Norm }: Pick<Module, "Norm">,
  kind: NormKind,
  options: NormOptions,
): PlannedNorm {
  if (!Object.hasOwn(OPTIONS, kind)) {
    const known = Object.keys(OPTIONS).join(", ");
    throw new BcNormError("norm", `there is no norm ${JSON.stringify(kind)}; there are ${known}`);
  }
  checkOptions(`a ${kind}`, options, OPTIONS[kind]);
  checkOne(options as Partial<StatsOptions>);
  const channels = kind === "weight_standardization" ? 1 : whole("numChannels", options.numChannels);
  const groups = options.numGroups === undefined ? undefined : whole("numGroups", options.numGroups);
  return guarded(() => {
    const norm = new Norm(kind, channels, groups);
    if (options.eps !== undefined) {
      norm.setEps(options.eps);
    }
    if (options.movingSpeed !== undefined) {
      norm.setMovingSpeed(options.movingSpeed);
    } else if (options.momentum !== undefined) {
      norm.setMomentum(options.momentum);
    }
    for (const name of FLAGS) {
      const value = options[name];
      if (value !== undefined) {
        norm.setFlag(name, value);
      }
    }
    norm.validate();
    return norm;
  });
}

function whole(name: string, value: number | undefined): number {
  if (value === undefined || !Number.isInteger(value) || value < 0 || value > 0xffffffff) {
    throw new BcNormError("norm", `${name} = ${value}: it must be a whole number from 1`);
  }
  return value;
}
