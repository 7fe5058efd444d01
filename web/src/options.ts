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

/** A norm, in PyTorch's terms; the defaults are those of the `torch.nn` module of the name. */
export interface NormOptions {
  /** C. (Weight Standardization has none.) */
  numChannels?: number;
  /** G of GroupNorm and BCNorm, a divisor of C; default 1. */
  numGroups?: number;
  /** Default 1e-5. With BCNorm, the group part's (the channel part's is 1e-5). */
  eps?: number;
  /** Weight of a batch in the running statistics, default 0.1; null: the cumulative average. */
  momentum?: number | null;
  /** Estimated channel statistics (the authors' EstBN, `BCNorm(estimate=True)`) with this moving speed, 0 to 1. */
  movingSpeed?: number;
  weight?: boolean;
  bias?: boolean;
  /** BCNorm: whether there are `bn.weight` and `bn.bias`. */
  bnWeight?: boolean;
  bnBias?: boolean;
  /** BCNorm: `weight` and `bias` per channel, rather than per group as in the paper. */
  perChannelAffine?: boolean;
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

/** The planner's norm of such options. @internal */
export function normOf(
  { Norm }: Pick<Module, "Norm">,
  kind: NormKind,
  options: NormOptions,
): PlannedNorm {
  const channels = kind === "weight_standardization" ? 1 : whole("numChannels", options.numChannels);
  const groups = options.numGroups === undefined ? undefined : whole("numGroups", options.numGroups);
  if (options.momentum !== undefined && options.movingSpeed !== undefined) {
    throw new BcNormError("norm", "momentum is of batch statistics, movingSpeed of estimates: give one of them");
  }
  return guarded(() => {
    const norm = new Norm(kind, channels, groups);
    if (options.eps !== undefined) {
      norm.setEps(options.eps);
    }
    if (options.momentum !== undefined) {
      norm.setMomentum(options.momentum);
    }
    if (options.movingSpeed !== undefined) {
      norm.setMovingSpeed(options.movingSpeed);
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
