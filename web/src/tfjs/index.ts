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
import { ANY, check, checkOptions, NUMBER } from "../check.js";
import { BcNormError } from "../errors.js";
import { init, type WasmSource } from "../planner.js";
import { Bridge, type Tf } from "./bridge.js";
import {
  checkInputs,
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
 * The family in a tf.js. Tensors are float32, [N, ...spatial, C], in tf.js's own buffers; what is returned is tf.js's to
 * track and to dispose of. Everything has gradients (first derivatives).
 */
export interface Bcnorm {
  /** Layers for `tf.sequential` and `tf.model`; they save, load, and train as tf.layers' own do. */
  readonly layers: NormLayers;
  batchNorm(x: Tensor, args?: BatchNormArgs): Tensor;
  estBn(x: Tensor, args: EstBnArgs): Tensor;
  groupNorm(x: Tensor, args?: GroupNormArgs): Tensor;
  instanceNorm(x: Tensor, args?: AffineArgs): Tensor;
  /** Over C at each position, as tf.layers.layerNormalization: (gamma and beta have C values). */
  layerNorm(x: Tensor, args?: AffineArgs): Tensor;
  bcNorm(x: Tensor, args?: BcNormArgs): Tensor;
  /** Filters [...rest, O] with mean 0 and variance 1 each; epsilon is 1e-5 by default, as in the paper's code. */
  weightStandardization(filters: Tensor, args?: { epsilon?: number }): Tensor;
  /**
   * Compiles what the bcnorm layers of a model need for batches of such a size, in training and evaluation, without
   * holding up the page; else the first step compiles while the page waits.
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
      checkInputs(x, args.residual);
      return run(bridge, describe(x.shape, args), x, args.residual);
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
      checkInputs(filters, undefined);
      const { epsilon, scale, seen } = standardization(filters.shape, args.epsilon ?? 1e-5);
      return tf.tidy(() => {
        const gamma = tf.fill([filters.shape.at(-1) as number], scale);
        return tf.reshape(instanceNorm(tf.reshape(filters, seen), { gamma, epsilon }), filters.shape);
      });
    },
    async prepare(model, batchSize) {
      check("batchSize", batchSize, NUMBER);
      await Promise.all(layersIn(model.layers).map(([layer, shapes]) => prepareOne(layer, shapes, batchSize)));
    },
  };
}

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
