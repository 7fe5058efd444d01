import { Norm } from "./norm.js";
import type { NormKind, NormOptions } from "./options.js";

type Common = "eps" | "activation" | "tuning";
type Affine = Common | "numChannels" | "weight" | "bias";
type Running = "momentum" | "trackRunningStats";
type With<Names extends keyof NormOptions> = Pick<NormOptions, Names>;

/** A layer class with the kind fixed. */
function of<Options extends NormOptions>(
  kind: NormKind,
): { create(device: GPUDevice, options: Options): Promise<Norm> } {
  return { create: (device, options) => Norm.create(device, kind, options) };
}

/** Batch-Channel Normalization (Qiao et al. 2019): `await BcNorm.create(device, { numChannels: 64, numGroups: 8 })`. */
export const BcNorm = of<NormOptions>("bc_norm");
/** `nn.BatchNorm1d`, `2d`, `3d`. */
export const BatchNorm = of<With<Affine | Running>>("batch_norm");
/** The authors' EstBN alone. */
export const EstBn = of<With<Affine | "movingSpeed">>("est_bn");
/** `nn.GroupNorm`. */
export const GroupNorm = of<With<Affine | "numGroups">>("group_norm");
/** `nn.InstanceNorm1d`, `2d`, `3d`. */
export const InstanceNorm = of<With<Affine | Running>>("instance_norm");
/** Layer normalization over (C, *spatial) with an affine per channel. */
export const LayerNorm = of<With<Affine>>("layer_norm");
/** Weight Standardization; its tensors are filters, (O, *rest). */
export const WeightStandardization = of<With<Common>>("weight_standardization");
