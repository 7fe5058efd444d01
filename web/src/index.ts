/**
 * Batch-Channel Normalization and its family on WebGPU, forward and backward, on the page's own GPUDevice and
 * GPUBuffers.
 *
 * ```js
 * import { BcNorm, init, requestDevice, Tensor } from "bcnorm";
 *
 * await init();
 * const device = await requestDevice(); // or your own
 * const norm = await BcNorm.create(device, { numChannels: 64, numGroups: 8 });
 * const x = Tensor.from(device, [2, 64, 28, 28], values);
 * const { y, saved } = await norm.forward({ x });
 * const { gradX } = await norm.backward(saved, { gradY });
 * y.destroy(); // Tensors hold GPU memory until then.
 * ```
 */
export { requestDevice, type DeviceOptions } from "./device.js";
export { BcNormError, type ErrorCode } from "./errors.js";
export {
  BatchNorm,
  BcNorm,
  EstBn,
  GroupNorm,
  InstanceNorm,
  LayerNorm,
  WeightStandardization,
} from "./family.js";
export {
  Norm,
  type BackwardArgs,
  type ForwardArgs,
  type ForwardResult,
  type Gradients,
  type Memory,
} from "./norm.js";
export type { Activation, NormKind, NormOptions, StatsOptions } from "./options.js";
export type { Target } from "./plans.js";
export { init, type WasmSource } from "./planner.js";
export { readSafetensors, readStateDict, writeStateDict, type SafeTensor } from "./safetensors.js";
export { Saved } from "./saved.js";
export type { DType, Layout, TensorOptions } from "./shape.js";
export type { StateDict } from "./state.js";
export { Tensor } from "./tensor.js";
