/** Layers in the manner of tf.layers. */
import type { serialization, Tensor } from "@tensorflow/tfjs-core";
import type * as keras from "@tensorflow/tfjs-layers";
import { ANY, BOOLEAN, checkOptions, NUMBER, oneOf, type Want } from "../check.js";
import { BcNormError } from "../errors.js";
import type { Activation } from "../options.js";
import type { Bridge } from "./bridge.js";
import { checkInputs, FAMILY, NUM_GROUPS } from "./family.js";
import { prepare, run, type Call } from "./op.js";

type Layer = keras.layers.Layer;
type LayerConfig = ConstructorParameters<typeof keras.layers.Layer>[0];

/** What all layers are configured by. */
export type NormConfig = NonNullable<LayerConfig> & {
  /** Default 1e-3, as Keras has it. */
  epsilon?: number;
  /** Whether there is an offset, beta; default true. */
  center?: boolean;
  /** Whether there is a scale, gamma; default true. */
  scale?: boolean;
  /** What is applied to the norm, and to the residual that is added to it; default "none". */
  activation?: Activation;
};

export type BatchNormConfig = NormConfig & {
  /** The share of the running statistics that a batch leaves, as in Keras; default 0.99. */
  momentum?: number;
};

export type EstBnConfig = NormConfig & {
  /** The weight of a batch in the estimates, 0 to 1. */
  movingSpeed: number;
};

export type GroupNormConfig = NormConfig & {
  /** A divisor of C; default 32, as in Keras. */
  groups?: number;
};

export type BcNormConfig = GroupNormConfig &
  BatchNormConfig & {
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

interface Kind {
  readonly className: string;
  /** What its configuration has beside what all have. */
  readonly options: Readonly<Record<string, Want>>;
  readonly running: boolean;
}

/** The class names are those in a saved model's topology; none is one of tf.js's own. */
const KINDS: Readonly<Record<keyof NormLayers, Kind>> = {
  batchNorm: { className: "BatchNorm", options: MOMENTUM, running: true },
  estBn: { className: "EstBn", options: SPEED, running: true },
  groupNorm: { className: "GroupNorm", options: GROUPS, running: false },
  instanceNorm: { className: "InstanceNorm", options: {}, running: false },
  layerNorm: { className: "LayerNorm", options: {}, running: false },
  bcNorm: { className: "BcNorm", options: { ...GROUPS, ...MOMENTUM, ...SPEED, ...CHANNEL }, running: true },
};

type Shapes = keras.Shape | keras.Shape[];

/** The first of some shapes: x's. */
const first = (shapes: Shapes): keras.Shape => (Array.isArray(shapes[0]) ? shapes[0] : shapes) as keras.Shape;

/** A weight: the name that functions know it by, the one in files, its length, its initial value, whether it is trainable. */
type Weight = readonly [arg: string, name: string, length: number, initial: 0 | 1, trainable: boolean];

/** The weights of a layer, in Keras's order. */
function weightsOf(name: keyof NormLayers, settings: BcNormConfig, channels: number): Weight[] {
  const { center = true, scale = true, channelCenter = true, channelScale = true, perChannelAffine = false, groups = NUM_GROUPS } = settings;
  const inner = name === "bcNorm";
  const affine = inner && !perChannelAffine ? groups : channels;
  const all: (readonly [boolean, ...Weight])[] = [
    [scale, "gamma", "gamma", affine, 1, true],
    [center, "beta", "beta", affine, 0, true],
    [inner && channelScale, "channelGamma", "channel_gamma", channels, 1, true],
    [inner && channelCenter, "channelBeta", "channel_beta", channels, 0, true],
    [KINDS[name].running, "movingMean", "moving_mean", channels, 0, false],
    [KINDS[name].running, "movingVariance", "moving_variance", channels, 1, false],
  ];
  return all.flatMap(([there, ...weight]) => (there ? [weight] : []));
}

/** The layers of a tf.js, whose classes are registered for the models that it loads. @internal */
export function layersOf(bridge: Bridge): NormLayers | undefined {
  const { layers, initializers, serialization } = bridge.tf;
  if (layers === undefined || initializers === undefined) {
    return undefined;
  }
  const of = (name: keyof NormLayers): ((config?: BcNormConfig) => NormLayer) => {
    const { className, options, running } = KINDS[name];
    class Norm extends layers.Layer implements NormLayer {
      static readonly className = className;
      private readonly settings: BcNormConfig;
      private readonly variables = new Map<string, keras.LayerVariable>();

      constructor(config: BcNormConfig = {}) {
        checkOptions(`the layer ${name}`, config, { ...LAYER, ...COMMON, ...options });
        super(config);
        this.supportsMasking = true;
        const own = Object.entries(config).filter(([key, value]) => !(key in LAYER) && value !== undefined);
        this.settings = Object.fromEntries(own);
      }

      override build(inputShape: Shapes): void {
        const channels = first(inputShape).at(-1);
        if (typeof channels !== "number") {
          throw new BcNormError("tensor", `${this.name} does not know its number of channels: give x's last size`);
        }
        for (const [arg, weight, length, initial, trainable] of weightsOf(name, this.settings, channels)) {
          const initializer = initial === 1 ? initializers!.ones() : initializers!.zeros();
          this.variables.set(arg, this.addWeight(weight, [length], "float32", initializer, undefined, trainable));
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
        const { center: _, scale: __, channelCenter: ___, channelScale: ____, perChannelAffine: _____, ...settings } = this.settings;
        const weights = Object.fromEntries([...this.variables].map(([arg, variable]) => [arg, variable.read()]));
        const describe = FAMILY[name] as (dims: readonly number[], args: object) => Call;
        return describe(dims, { ...settings, ...weights, ...(running ? { training } : {}) });
      }

      override call(inputs: Tensor | Tensor[], kwargs: { training?: boolean }): Tensor {
        this.invokeCallHook(inputs, kwargs);
        const [x, residual, ...more] = Array.isArray(inputs) ? inputs : [inputs];
        if (x === undefined || more.length > 0) {
          throw new BcNormError("argument", `${this.name} takes x, or [x, residual], not ${more.length + 2} tensors`);
        }
        checkInputs(x, residual);
        return run(bridge, this.describe(x.shape, kwargs?.training === true), x, residual);
      }

      async prepare(inputShape: readonly number[], { residual = false }: { residual?: boolean } = {}): Promise<void> {
        if (!this.built) {
          this.build([...inputShape]);
        }
        await prepare(bridge, this.describe(inputShape, true), residual);
      }

      override getConfig(): serialization.ConfigDict {
        return { ...(this.settings as serialization.ConfigDict), ...super.getConfig() };
      }
    }
    serialization.registerClass(Norm);
    return (config) => new Norm(config);
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
