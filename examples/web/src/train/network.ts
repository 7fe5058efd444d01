/**
 * The residual network that is trained, of tf.js's convolutions and bcnorm's norms, with the names, the shapes and the initial
 * weights of its twin in PyTorch (examples/reference/train_digits.py). Activations are channels last.
 */
import type { Tensor2D, Tensor4D, Variable } from "@tensorflow/tfjs-core";
import type { StateDict } from "bcnorm";
import type { Bcnorm } from "bcnorm/tfjs";
import { SplitMix64 } from "./random.js";
import { tf } from "./tf.js";

/** BatchNorm, GroupNorm, BCNorm by the batch's statistics, BCNorm by estimates. */
export type NormName = "bn" | "gn" | "bcn" | "bcn-est";

export interface Architecture {
  readonly norm: NormName;
  /** Weight Standardization of every convolution. */
  readonly ws: boolean;
}

const EPS = 1e-5;
const NUM_GROUPS = 2;
/** Of BatchNorm's running statistics, in PyTorch's sense. */
const MOMENTUM = 0.1;

const [CHANNELS, FEATURES, CLASSES] = [8, 16, 10];
/** In the order of PyTorch's modules: [name, its norm, in channels, out channels, kernel size, stride]. */
const CONVOLUTIONS = [
  ["conv1", "norm1", 1, CHANNELS, 3, 2],
  ["layer1.conv1", "layer1.norm1", CHANNELS, CHANNELS, 3, 1],
  ["layer1.conv2", "layer1.norm2", CHANNELS, CHANNELS, 3, 1],
  ["layer2.conv1", "layer2.norm1", CHANNELS, FEATURES, 3, 2],
  ["layer2.conv2", "layer2.norm2", FEATURES, FEATURES, 3, 1],
  ["layer2.downsample.0", "layer2.downsample.1", CHANNELS, FEATURES, 1, 2],
] as const;
type Convolution = (typeof CONVOLUTIONS)[number];
type Name = Convolution[0];

/** The arguments of a norm beside x. */
interface Around {
  readonly residual?: Tensor4D;
  readonly activation?: "relu";
}

/** How a network is called. */
export interface Mode {
  readonly training: boolean;
  /** Of BCNorm's estimates; evaluation leaves these where they are. */
  readonly movingSpeed: number;
}

export class Network {
  readonly architecture: Architecture;
  /** By the names of the state dict; filters are (h, w, in, out) here. */
  private readonly trained = new Map<string, Variable>();
  private readonly running = new Map<string, Variable>();
  private readonly bcnorm: Bcnorm;

  constructor(bcnorm: Bcnorm, architecture: Architecture, seed: number) {
    this.bcnorm = bcnorm;
    this.architecture = architecture;
    const random = new SplitMix64(BigInt(seed));
    const uniform = (length: number, fanIn: number): Float32Array =>
      Float32Array.from({ length }, () => (2 * random.uniform() - 1) * (1 / Math.sqrt(fanIn)));
    for (const [conv, norm, from, to, size] of CONVOLUTIONS) {
      const weights = uniform(to * from * size * size, from * size * size);
      this.add(`${conv}.weight`, [size, size, from, to], toHwio(weights, to, from, size * size));
      this.addNorm(norm, to);
    }
    this.add("fc.weight", [CLASSES, FEATURES], uniform(CLASSES * FEATURES, FEATURES));
    this.add("fc.bias", [CLASSES], uniform(CLASSES, FEATURES));
  }

  /** What the optimizer moves. */
  get variables(): Variable[] {
    return [...this.trained.values()];
  }

  /** Logits (N, 10) of images (N, 28, 28, 1). */
  forward(images: Tensor4D, mode: Mode): Tensor2D {
    const layer = (name: Name, x: Tensor4D, around: Around): Tensor4D => this.layer(name, x, mode, around);
    const activation = "relu";
    let x = layer("conv1", images, { activation });
    let z = layer("layer1.conv1", x, { activation });
    x = layer("layer1.conv2", z, { residual: x, activation });
    z = layer("layer2.conv1", x, { activation });
    x = layer("layer2.conv2", z, { residual: layer("layer2.downsample.0", x, {}), activation });
    const features = tf.mean<Tensor2D>(x, [1, 2]);
    const logits = tf.matMul(features, this.get("fc.weight") as Tensor2D, false, true);
    return tf.add(logits, this.get("fc.bias"));
  }

  /** Parameters and statistics as PyTorch has them, read back. `steps`: how many batches the statistics have seen. */
  async stateDict(steps: number, movingSpeed: number): Promise<StateDict> {
    // All of one step, though others may follow while they are read.
    const kept = [...this.trained, ...this.running].map(([name, variable]) => [name, variable.clone()] as const);
    const read = await Promise.all(kept.map(([, tensor]) => tensor.data()));
    const dict: StateDict = {};
    for (const [i, [name, tensor]] of kept.entries()) {
      const values = Float32Array.from(read[i] ?? []);
      const { shape } = tensor;
      tensor.dispose();
      const [h, w, from, to] = shape;
      if (h !== undefined && w !== undefined && from !== undefined && to !== undefined) {
        dict[name] = { dims: [to, from, h, w], values: toOihw(values, to, from, h * w) };
      } else {
        const perGroup = shape.length === 1 && shape[0] === NUM_GROUPS;
        dict[name] = { dims: perGroup ? [1, NUM_GROUPS, 1] : shape, values };
      }
    }
    for (const [, norm] of this.architecture.norm === "gn" ? [] : CONVOLUTIONS) {
      const batch = this.architecture.norm === "bn" ? norm : `${norm}.bn`;
      dict[`${batch}.num_batches_tracked`] = BigInt(steps);
      if (this.architecture.norm === "bcn-est") {
        dict[`${batch}.estbn_moving_speed`] = { dims: [1], values: Float32Array.of(movingSpeed) };
      }
    }
    return dict;
  }

  dispose(): void {
    tf.dispose([...this.trained.values(), ...this.running.values()]);
  }

  private add(name: string, shape: number[], values: Float32Array, trainable = true): void {
    const made = tf.tidy(() => tf.variable(tf.tensor(values, shape), trainable));
    (trainable ? this.trained : this.running).set(name, made);
  }

  private addNorm(name: string, channels: number): void {
    const { norm } = this.architecture;
    const ones = (length: number): Float32Array => new Float32Array(length).fill(1);
    const affine = (of: string, length: number): void => {
      this.add(`${of}.weight`, [length], ones(length));
      this.add(`${of}.bias`, [length], new Float32Array(length));
    };
    const grouped = norm === "bcn" || norm === "bcn-est";
    affine(name, grouped ? NUM_GROUPS : channels);
    const batch = grouped ? `${name}.bn` : name;
    if (grouped) {
      affine(batch, channels);
    }
    if (norm !== "gn") {
      this.add(`${batch}.running_mean`, [channels], new Float32Array(channels), false);
      this.add(`${batch}.running_var`, [channels], ones(channels), false);
    }
  }

  private get(name: string): Variable {
    const found = this.trained.get(name) ?? this.running.get(name);
    if (found === undefined) {
      throw new Error(`the network has no ${name}`);
    }
    return found;
  }

  /** activation(norm(conv(x)) + residual), padded as by PyTorch: by half the kernel on every side. */
  private layer(name: Name, x: Tensor4D, mode: Mode, around: Around): Tensor4D {
    const [, norm, , , size, stride] = CONVOLUTIONS.find(([conv]) => conv === name) as Convolution;
    const weight = this.get(`${name}.weight`);
    const filters = (this.architecture.ws ? this.bcnorm.weightStandardization(weight) : weight) as Tensor4D;
    return this.norm(norm, tf.conv2d(x, filters, stride, Math.floor(size / 2)), mode, around);
  }

  private norm(name: string, x: Tensor4D, { training, movingSpeed }: Mode, around: Around): Tensor4D {
    const { bcnorm } = this;
    const { norm } = this.architecture;
    const args = { gamma: this.get(`${name}.weight`), beta: this.get(`${name}.bias`), epsilon: EPS, ...around };
    const stats = (of: string) => ({
      movingMean: this.get(`${of}.running_mean`),
      movingVariance: this.get(`${of}.running_var`),
      training,
    });
    const momentum = 1 - MOMENTUM;
    switch (norm) {
      case "bn":
        return bcnorm.batchNorm(x, { ...args, ...stats(name), momentum }) as Tensor4D;
      case "gn":
        return bcnorm.groupNorm(x, { ...args, groups: NUM_GROUPS }) as Tensor4D;
      default: {
        const of = `${name}.bn`;
        const channel = { channelGamma: this.get(`${of}.weight`), channelBeta: this.get(`${of}.bias`), ...stats(of) };
        const moves = norm === "bcn" ? { momentum } : { movingSpeed };
        return bcnorm.bcNorm(x, { ...args, ...channel, ...moves, groups: NUM_GROUPS }) as Tensor4D;
      }
    }
  }
}

/** PyTorch's filters (out, in, h w) as tf.js's (h w, in, out). */
function toHwio(values: Float32Array, to: number, from: number, area: number): Float32Array {
  return values.map((_, at) => {
    const [o, i, k] = [at % to, Math.floor(at / to) % from, Math.floor(at / to / from)];
    return values[(o * from + i) * area + k] as number;
  });
}

/** The other way. */
function toOihw(values: Float32Array, to: number, from: number, area: number): Float32Array {
  return values.map((_, at) => {
    const [k, i, o] = [at % area, Math.floor(at / area) % from, Math.floor(at / area / from)];
    return values[(k * from + i) * to + o] as number;
  });
}
