/**
 * bcnorm in tf.js: layers and operations on the device, the buffers and the command encoder of tf.js's own WebGPU backend,
 * with gradients. Nothing is read back, and no tensor is copied.
 *
 * ```js
 * import * as tf from "@tensorflow/tfjs";
 * import "@tensorflow/tfjs-backend-webgpu";
 * import { attach } from "bcnorm/tfjs";
 *
 * await tf.setBackend("webgpu");
 * const bcnorm = await attach(tf);
 * const model = tf.sequential();
 * model.add(tf.layers.conv2d({ inputShape: [28, 28, 1], filters: 32, kernelSize: 3, useBias: false }));
 * model.add(bcnorm.layers.bcNorm({ groups: 8, activation: "relu" }));
 * await bcnorm.prepare(model, 64); // compiles asynchronously, for batches of 64
 * ```
 */
import type { Tensor } from "@tensorflow/tfjs-core";
import type { layers, LayersModel } from "@tensorflow/tfjs-layers";
import { ANY, check, checkOptions, NUMBER, type Want } from "../check.js";
import { BcNormError } from "../errors.js";
import { init, type WasmSource } from "../planner.js";
import { Bridge, type Tf } from "./bridge.js";
import {
  checkResidual,
  checkX,
  FAMILY,
  standardization,
  type AffineArgs,
  type BatchNormArgs,
  type BcNormArgs,
  type EstBnArgs,
  type GroupNormArgs,
} from "./family.js";
import { isNormLayer, layersOf, type NormLayer, type NormLayers } from "./layers.js";
import { run, type Call } from "./op.js";

export type { Tf } from "./bridge.js";
export type { AffineArgs, BatchNormArgs, BcNormArgs, EstBnArgs, EstimateArgs, GroupNormArgs, RunningArgs } from "./family.js";
export type {
  BatchNormConfig,
  BcNormConfig,
  EstBnConfig,
  GroupNormConfig,
  NormConfig,
  NormLayer,
  NormLayers,
} from "./layers.js";

/**
 * The family in a tf.js. x is float32, [N, ...spatial, C]; so is what is returned, which is tf.js's to track and to dispose
 * of, as its own operations' results. Everything has first derivatives. The bits are the same on every run.
 *
 * Each function throws a BcNormError: `argument` for an argument that is none, `tensor` for a shape or a type, `norm` for a
 * parameter out of range, `limit` for what the device does not grant, `order` for a gradient of a gradient, `tfjs` where
 * tf.js has another backend by now, `device-lost`.
 */
export interface Bcnorm {
  /** Layers for `tf.sequential` and `tf.model`; they save, load, and train as tf.layers' own do. */
  readonly layers: NormLayers;
  /** Over N and space, of each channel. With `training` it moves the running statistics, and without it takes them. */
  batchNorm(x: Tensor, args?: BatchNormArgs): Tensor;
  /** The authors' EstBN: by estimates, which `training` moves first. */
  estBn(x: Tensor, args: EstBnArgs): Tensor;
  /** Over space and the channels of a group, of each sample. */
  groupNorm(x: Tensor, args?: GroupNormArgs): Tensor;
  /** Over space, of each channel of each sample. */
  instanceNorm(x: Tensor, args?: AffineArgs): Tensor;
  /** Over C, at each position of each sample, as tf.layers.layerNormalization: gamma and beta are (C). */
  layerNorm(x: Tensor, args?: AffineArgs): Tensor;
  /** Batch-Channel Normalization (Qiao et al. 2019): a batch norm, or an EstBN, and a group norm of its output. */
  bcNorm(x: Tensor, args?: BcNormArgs): Tensor;
  /**
   * Weight Standardization (Qiao et al. 2019): each of the filters [...rest, O] less its mean, divided by the square root
   * of its unbiased variance + `epsilon`, 1e-5 by default.
   */
  weightStandardization(filters: Tensor, args?: { epsilon?: number }): Tensor;
  /**
   * Compiles what the bcnorm layers of a model need for batches of such a size, in training and evaluation, without
   * holding up the page; else the first step waits for it.
   */
  prepare(model: LayersModel, batchSize: number): Promise<void>;
}

/**
 * Attaches bcnorm to tf.js with its WebGPU backend set, and loads the planner.
 *
 * @param tf tf.js's namespace.
 * @param options `wasm`: where the planner is, as `init` of `bcnorm` takes it.
 * @throws {BcNormError} `tfjs` for another backend, or a version whose inside is not known (4.22 is); `not-initialized`,
 * `device-lost`.
 */
export async function attach(tf: Tf, options: { wasm?: WasmSource } = {}): Promise<Bcnorm> {
  checkOptions("attach", options, { wasm: ANY });
  await init(options.wasm);
  const bridge = await Bridge.open(tf);
  const layers = layersOf(bridge);
  const op =
    <Args extends AffineArgs>(describe: (dims: readonly number[], args: Args) => Call) =>
    (x: Tensor, args: Args = {} as Args): Tensor => {
      checkX(x);
      const call = describe(x.shape, args);
      checkResidual(args.residual, x);
      return run(bridge, call, x, args.residual);
    };
  const instanceNorm = op(FAMILY.instanceNorm);
  return {
    get layers() {
      if (layers === undefined) {
        throw new BcNormError("tfjs", "this tf.js has no layers: attach to @tensorflow/tfjs, or to its core and layers together");
      }
      return layers;
    },
    batchNorm: op(FAMILY.batchNorm),
    estBn: op(FAMILY.estBn),
    groupNorm: op(FAMILY.groupNorm),
    instanceNorm,
    layerNorm: op(FAMILY.layerNorm),
    bcNorm: op(FAMILY.bcNorm),
    weightStandardization(filters, args = {}) {
      checkOptions("weightStandardization", args, { epsilon: NUMBER });
      checkX(filters);
      const { epsilon, scale, seen } = standardization(filters.shape, args.epsilon ?? 1e-5);
      return tf.tidy(() => {
        const gamma = tf.fill([filters.shape.at(-1) as number], scale);
        return tf.reshape(instanceNorm(tf.reshape(filters, seen), { gamma, epsilon }), filters.shape);
      });
    },
    async prepare(model, batchSize) {
      check("model", model, MODEL);
      check("batchSize", batchSize, NUMBER);
      await Promise.all(layersIn(model.layers).map(([layer, shapes]) => prepareOne(layer, shapes, batchSize)));
    },
  };
}

const MODEL: Want = ["a model of tf.layers'", (value) => Array.isArray((value as Partial<LayersModel> | undefined)?.layers)];

/** bcnorm's layers among some, those of models among them too, each with the shapes of its inputs wherever it stands. */
function layersIn(all: readonly layers.Layer[]): [NormLayer, (number | null)[][]][] {
  return all.flatMap((layer) => {
    if ("layers" in layer) {
      return layersIn((layer as unknown as LayersModel).layers);
    }
    if (!isNormLayer(layer)) {
      return [];
    }
    return layer.inboundNodes.map(({ inputTensors }): [NormLayer, (number | null)[][]] => [
      layer,
      inputTensors.map(({ shape }) => shape),
    ]);
  });
}

async function prepareOne(layer: NormLayer, [x, residual]: (number | null)[][], batchSize: number): Promise<void> {
  const [, ...sizes] = x ?? [];
  if (sizes.includes(null)) {
    throw new BcNormError(
      "tensor",
      `${layer.name} has an input of shape [${x?.join(", ")}]: prepare it by itself, with all sizes (layer.prepare)`,
    );
  }
  await layer.prepare([batchSize, ...(sizes as number[])], { residual: residual !== undefined });
}
