import { Norm } from "./norm.js";
import type { NormKind, NormOptions } from "./options.js";

type Common = "eps" | "activation" | "tuning";
type Affine = Common | "numChannels" | "weight" | "bias";
type Running = "momentum" | "trackRunningStats";
type With<Names extends keyof NormOptions> = Pick<NormOptions, Names>;

/** A layer class with the kind fixed. Its name is the type of its layers, too. */
function of<Options extends NormOptions>(
  kind: NormKind,
): { create(device: GPUDevice, options: Options): Promise<Norm> } {
  return { create: (device, options) => Norm.create(device, kind, options) };
}

/** Batch-Channel Normalization (Qiao et al. 2019): `await BcNorm.create(device, { numChannels: 64, numGroups: 8 })`. */
export const BcNorm = of<NormOptions>("bc_norm");
export type BcNorm = Norm;
/** `nn.BatchNorm1d`, `2d`, `3d`. */
export const BatchNorm = of<With<Affine | Running>>("batch_norm");
export type BatchNorm = Norm;
/** The authors' EstBN alone. */
export const EstBn = of<With<Affine | "movingSpeed">>("est_bn");
export type EstBn = Norm;
/** `nn.GroupNorm`. */
export const GroupNorm = of<With<Affine | "numGroups">>("group_norm");
export type GroupNorm = Norm;
/** `nn.InstanceNorm1d`, `2d`, `3d`. */
export const InstanceNorm = of<With<Affine | Running>>("instance_norm");
export type InstanceNorm = Norm;
/** Layer normalization over (C, *spatial) with an affine per channel. */
export const LayerNorm = of<With<Affine>>("layer_norm");
export type LayerNorm = Norm;
/** Weight Standardization; its tensors are filters, (O, *rest). */
export const WeightStandardization = of<With<Common>>("weight_standardization");
export type WeightStandardization = Norm;
