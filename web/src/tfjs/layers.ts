/** Layers in the manner of tf.layers. */
import type { serialization, Tensor } from "@tensorflow/tfjs-core";
import type * as keras from "@tensorflow/tfjs-layers";
import { ANY, BOOLEAN, checkOptions, NUMBER, oneOf, type Want } from "../check.js";
import { BcNormError } from "../errors.js";
import type { Activation } from "../options.js";
import type { Bridge } from "./bridge.js";
import { checkResidual, checkX, FAMILY, NUM_GROUPS } from "./family.js";
import { prepare, run, type Call } from "./op.js";
import {
  optionsOf,
  partOf,
  type Constraint,
  type Initialized,
  type Initializer,
  type Part,
  type Regularized,
  type Regularizer,
} from "./parts.js";

type Layer = keras.layers.Layer;
type LayerConfig = ConstructorParameters<typeof keras.layers.Layer>[0];

/** What all layers are configured by; gammaInitializer, gammaRegularizer, gammaConstraint and beta's are as in tf.layers. */
export type NormConfig = NonNullable<LayerConfig> & Initialized<"gamma" | "beta"> & Regularized<"gamma" | "beta"> & {
  /** Default 1e-3, as Keras has it. */
  epsilon?: number;
  /** Whether there is an offset, beta; default true. */
  center?: boolean;
  /** Whether there is a scale, gamma; default true. */
  scale?: boolean;
  /** What is applied to the norm, and to the residual that is added to it; default "none". */
  activation?: Activation;
};

/** Of norms with running statistics. */
type RunningConfig = NormConfig & Initialized<"movingMean" | "movingVariance">;

export type BatchNormConfig = RunningConfig & {
  /** The share of the running statistics that stays at a batch, as in Keras; default 0.99. */
  momentum?: number;
};

export type EstBnConfig = RunningConfig & {
  /** The weight of a batch in the estimates, 0 to 1. */
  movingSpeed: number;
};

export type GroupNormConfig = NormConfig & {
  /** A divisor of C; default 32, as in Keras. */
  groups?: number;
};

export type BcNormConfig = GroupNormConfig &
  BatchNormConfig &
  Initialized<"channelGamma" | "channelBeta"> &
  Regularized<"channelGamma" | "channelBeta"> & {
    /** Estimated statistics of the channels with this moving speed, instead of the batch's with a momentum. */
    movingSpeed?: number;
    /** Whether the channel part has an offset and a scale; default true. */
    channelCenter?: boolean;
    channelScale?: boolean;
    /** gamma and beta per channel, rather than per group as in the paper; default false. */
    perChannelAffine?: boolean;
  };

/** A layer of bcnorm's: of x, or of [x, residual]. */
export type NormLayer = Layer & {
  /** Compiles what calls with such an x need, without holding up the page: `await layer.prepare([8, 56, 56, 64])`. */
  prepare(inputShape: readonly number[], options?: { residual?: boolean }): Promise<void>;
};

/** The layers by their names. */
export interface NormLayers {
  batchNorm(config?: BatchNormConfig): NormLayer;
  estBn(config: EstBnConfig): NormLayer;
  groupNorm(config?: GroupNormConfig): NormLayer;
  instanceNorm(config?: NormConfig): NormLayer;
  layerNorm(config?: NormConfig): NormLayer;
  bcNorm(config?: BcNormConfig): NormLayer;
}

/** What tf.layers' own constructor takes; loading a model adds `customObjects`. */
const LAYER = Object.fromEntries(
  ["inputShape", "batchInputShape", "batchSize", "dtype", "name", "trainable", "weights", "inputDType", "customObjects"].map(
    (name) => [name, ANY],
  ),
);
const COMMON = { epsilon: NUMBER, center: BOOLEAN, scale: BOOLEAN, activation: oneOf("none", "relu", "silu") };
const MOMENTUM = { momentum: NUMBER };
const SPEED = { movingSpeed: NUMBER };
const GROUPS = { groups: NUMBER };
const CHANNEL = { channelCenter: BOOLEAN, channelScale: BOOLEAN, perChannelAffine: BOOLEAN };
/** What a layer's weights say, so that functions have no such arguments. */
const SHAPING = ["center", "scale", ...Object.keys(CHANNEL)];

interface Kind {
  readonly className: string;
  /** What its configuration has beside what all have. */
  readonly options: Readonly<Record<string, Want>>;
  readonly weights: readonly string[];
}

const AFFINE = ["gamma", "beta"];
const RUNNING = ["movingMean", "movingVariance"];

/** The class names are those in a saved model's topology; none is one of tf.js's own. */
const KINDS: Readonly<Record<keyof NormLayers, Kind>> = {
  batchNorm: { className: "BatchNorm", options: MOMENTUM, weights: [...AFFINE, ...RUNNING] },
  estBn: { className: "EstBn", options: SPEED, weights: [...AFFINE, ...RUNNING] },
  groupNorm: { className: "GroupNorm", options: GROUPS, weights: AFFINE },
  instanceNorm: { className: "InstanceNorm", options: {}, weights: AFFINE },
  layerNorm: { className: "LayerNorm", options: {}, weights: AFFINE },
  bcNorm: {
    className: "BcNorm",
    options: { ...GROUPS, ...MOMENTUM, ...SPEED, ...CHANNEL },
    weights: [...AFFINE, "channelGamma", "channelBeta", ...RUNNING],
  },
};

type Settings = Readonly<Record<string, unknown>>;
type Shapes = keras.Shape | keras.Shape[];

/** The first of some shapes: x's. */
const first = (shapes: Shapes): keras.Shape => (Array.isArray(shapes[0]) ? shapes[0] : shapes) as keras.Shape;

/** Whether a layer has a weight, its length, and what it begins with. */
type Weight = readonly [there: boolean, length: number, initial: "ones" | "zeros"];

/** The weights that a layer may have, in Keras's order. */
function weightsOf(name: keyof NormLayers, settings: BcNormConfig, channels: number): Record<string, Weight> {
  const { center = true, scale = true, channelCenter = true, channelScale = true } = settings;
  const perGroup = name === "bcNorm" && settings.perChannelAffine !== true;
  const affine = perGroup ? (settings.groups ?? NUM_GROUPS) : channels;
  return {
    gamma: [scale, affine, "ones"],
    beta: [center, affine, "zeros"],
    channelGamma: [channelScale, channels, "ones"],
    channelBeta: [channelCenter, channels, "zeros"],
    movingMean: [true, channels, "zeros"],
    movingVariance: [true, channels, "ones"],
  };
}

/** Whether a weight is trainable. */
const trainable = (weight: string): boolean => !weight.startsWith("moving");
/** Its name in files. */
const inFiles = (weight: string): string => weight.replace(/[A-Z]/, (letter) => `_${letter.toLowerCase()}`);

const made = new WeakSet<object>();

/** Whether a layer is one of bcnorm's. @internal */
export function isNormLayer(layer: object): layer is NormLayer {
  return made.has(layer);
}

/** The layers of a tf.js, whose classes are registered for the models that it loads. @internal */
export function layersOf(bridge: Bridge): NormLayers | undefined {
  const { tf } = bridge;
  const { layers, initializers, serialization } = tf;
  if (layers === undefined || initializers === undefined) {
    return undefined;
  }
  const { ones, zeros } = initializers;
  const begin = { ones, zeros };
  const of = (name: keyof NormLayers): ((config?: BcNormConfig) => NormLayer) => {
    const { className, options, weights } = KINDS[name];
    const partNames = weights.flatMap((weight) => optionsOf(weight, trainable(weight)));
    const partsKnown = Object.fromEntries(partNames.map((option) => [option, ANY]));
    class FusedNorm extends layers.Layer implements NormLayer {
      static readonly className = className;
      private readonly settings: BcNormConfig;
      private readonly parts: ReadonlyMap<string, Part | undefined>;
      private readonly variables = new Map<string, keras.LayerVariable>();

      constructor(config: BcNormConfig = {}) {
        checkOptions(`the layer ${name}`, config, { ...LAYER, ...COMMON, ...options, ...partsKnown });
        super(config);
        made.add(this);
        this.supportsMasking = true;
        const given = Object.entries(config).filter(([, value]) => value !== undefined);
        this.settings = Object.fromEntries(given.filter(([key]) => key in COMMON || key in options));
        this.parts = new Map(partNames.map((option) => [option, partOf(tf, option, (config as Settings)[option])]));
      }

      override build(inputShape: Shapes): void {
        const channels = first(inputShape).at(-1);
        if (typeof channels !== "number") {
          throw new BcNormError("tensor", `${this.name} does not know its number of channels: give x's last size`);
        }
        const all = weightsOf(name, this.settings, channels);
        for (const weight of weights) {
          const [there, length, initial] = all[weight] as Weight;
          if (there) {
            const [initializer, regularizer, constraint] = optionsOf(weight, true).map((option) => this.parts.get(option));
            const variable = this.addWeight(
              inFiles(weight),
              [length],
              "float32",
              (initializer as Initializer | undefined) ?? begin[initial](),
              regularizer as Regularizer | undefined,
              trainable(weight),
              constraint as Constraint | undefined,
            );
            this.variables.set(weight, variable);
          }
        }
        super.build(inputShape);
      }

      override computeOutputShape(inputShape: Shapes): keras.Shape {
        return first(inputShape);
      }

      override computeMask(_: Tensor | Tensor[], mask?: Tensor | Tensor[]): Tensor {
        return (Array.isArray(mask) ? mask[0] : mask) as Tensor;
      }

      /** The call of functions that an x of such a shape is. */
      private describe(dims: readonly number[], training: boolean): Call {
        const settings = Object.entries(this.settings).filter(([key]) => !SHAPING.includes(key));
        const values = [...this.variables].map(([arg, variable]) => [arg, variable.read()]);
        const mode = this.variables.has("movingMean") ? { training } : {};
        const describe = FAMILY[name] as (dims: readonly number[], args: object) => Call;
        return describe(dims, { ...Object.fromEntries([...settings, ...values]), ...mode });
      }

      override call(inputs: Tensor | Tensor[], kwargs: { training?: boolean }): Tensor {
        this.invokeCallHook(inputs, kwargs);
        const [x, residual, ...more] = Array.isArray(inputs) ? inputs : [inputs];
        if (x === undefined || more.length > 0) {
          throw new BcNormError("argument", `${this.name} takes x, or [x, residual], not ${more.length + 2} tensors`);
        }
        checkX(x);
        checkResidual(residual, x);
        return run(bridge, this.describe(x.shape, kwargs?.training === true), x, residual);
      }

      async prepare(inputShape: readonly number[], { residual = false }: { residual?: boolean } = {}): Promise<void> {
        if (!this.built) {
          this.build([...inputShape]);
        }
        await prepare(bridge, this.describe(inputShape, true), residual);
      }

      override getConfig(): serialization.ConfigDict {
        const saved = [...this.parts].map(([option, part]) => [
          option,
          part === undefined ? null : { className: part.getClassName(), config: part.getConfig() },
        ]);
        return { ...this.settings, ...Object.fromEntries(saved), ...super.getConfig() } as serialization.ConfigDict;
      }
    }
    serialization.registerClass(FusedNorm);
    return (config) => new FusedNorm(config);
  };
  return {
    batchNorm: of("batchNorm"),
    estBn: of("estBn"),
    groupNorm: of("groupNorm"),
    instanceNorm: of("instanceNorm"),
    layerNorm: of("layerNorm"),
    bcNorm: of("bcNorm"),
  };
}
