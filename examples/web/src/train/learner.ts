/** One of the two networks with its optimizer. Nothing here waits for the GPU but what says so. */
import type { Scalar, Tensor2D } from "@tensorflow/tfjs-core";
import { writeStateDict } from "bcnorm";
import type { Bcnorm } from "bcnorm/tfjs";
import { batchOf, SIZE, standardize, type Digits } from "./digits.js";
import { Network, type Architecture } from "./network.js";
import { tf } from "./tf.js";

/** Test digits that are evaluated at once. */
const TESTED = 50;

export class Learner {
  readonly architecture: Architecture;
  private readonly network: Network;
  private readonly optimizer = tf.train.sgd(0);
  /** The sum of the losses since they were last taken. */
  private losses: Scalar = tf.scalar(0);
  private summed = 0;
  private steps = 0;
  private lr = 0;

  constructor(bcnorm: Bcnorm, architecture: Architecture, seed: number) {
    this.architecture = architecture;
    this.network = new Network(bcnorm, architecture, seed);
  }

  /** A step of SGD on some digits: recorded, not waited for. */
  step(digits: Digits, indices: ArrayLike<number>, lr: number): void {
    const { images, labels } = batchOf(digits, indices);
    this.lr = lr;
    // EstBN's moving speed is the learning rate, as in the authors' training.
    const mode = { training: true, movingSpeed: lr };
    this.optimizer.setLearningRate(lr);
    const sum = tf.tidy(() => {
      const x = tf.tensor4d(images, [indices.length, SIZE, SIZE, 1]);
      const wanted = tf.tensor2d(labels, [indices.length, 10]);
      const loss = (): Scalar => crossEntropy(this.network.forward(x, mode), wanted);
      const value = this.optimizer.minimize(loss, true, this.network.variables) as Scalar;
      return tf.add<Scalar>(this.losses, value);
    });
    this.losses.dispose();
    this.losses = sum;
    this.summed += 1;
    this.steps += 1;
  }

  /** The mean loss of the steps since it was last taken, once they are done. */
  async takeLoss(): Promise<number> {
    const { losses, summed } = this;
    [this.losses, this.summed] = [tf.scalar(0), 0];
    const [sum = NaN] = await losses.data();
    losses.dispose();
    return sum / summed;
  }

  /** The share of some digits that the network in evaluation knows; undefined where `signal` ended that early. */
  async accuracy(digits: Digits, signal: AbortSignal): Promise<number | undefined> {
    let right = 0;
    for (let first = 0; first < digits.count; first += TESTED) {
      const indices = Array.from({ length: Math.min(TESTED, digits.count - first) }, (_, i) => first + i);
      const { images } = batchOf(digits, indices);
      const found = tf.tidy(() => tf.argMax(this.evaluate(images), 1));
      const said = await found.data();
      found.dispose();
      right += indices.filter((index, i) => said[i] === digits.labels[index]).length;
      if (signal.aborted) {
        return undefined;
      }
    }
    return right / digits.count;
  }

  /** The probabilities of the ten digits, of one image. */
  async probabilities(pixels: Uint8Array): Promise<Float32Array> {
    const image = new Float32Array(pixels.length);
    standardize(pixels, image);
    const found = tf.tidy(() => tf.softmax(this.evaluate(image)));
    const values = Float32Array.from(await found.data());
    found.dispose();
    return values;
  }

  /** The weights as a safetensors file by PyTorch's names: (out, in, h, w), and the norm in its metadata. */
  async file(): Promise<Uint8Array> {
    const { norm, ws } = this.architecture;
    return writeStateDict(await this.network.stateDict(this.steps, this.lr), { norm, ws: ws ? "1" : "0" });
  }

  dispose(): void {
    this.network.dispose();
    this.losses.dispose();
    this.optimizer.dispose();
  }

  private evaluate(images: Float32Array): Tensor2D {
    const x = tf.tensor4d(images, [images.length / SIZE / SIZE, SIZE, SIZE, 1]);
    return this.network.forward(x, { training: false, movingSpeed: 0 });
  }
}

/** The mean of -log softmax(logits) of what is wanted. */
function crossEntropy(logits: Tensor2D, wanted: Tensor2D): Scalar {
  return tf.neg(tf.div(tf.sum(tf.mul(tf.logSoftmax(logits), wanted)), logits.shape[0]));
}
