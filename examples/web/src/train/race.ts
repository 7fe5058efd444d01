/** Two learners on the same digits in the same order, which take short turns. */
import type { Bcnorm } from "bcnorm/tfjs";
import type { Digits } from "./digits.js";
import { Learner } from "./learner.js";
import type { Architecture } from "./network.js";
import { order } from "./random.js";

export interface Settings {
  /** The norms of the two. */
  readonly sides: readonly [Architecture, Architecture];
  /** Digits a step. */
  readonly batch: number;
  /** The learning rate at the beginning; a cosine takes it to 0. */
  readonly lr: number;
  /** Times that each digit is seen. */
  readonly epochs: number;
  readonly seed: number;
}

/** [steps done, value]. */
export type Point = readonly [step: number, value: number];

/** What is known of one of the two. */
export interface Side {
  readonly learner: Learner;
  /** The mean loss of about the last hundred steps. */
  readonly losses: Point[];
  /** The share of test digits that it knows. */
  readonly accuracies: Point[];
  /** Images a second of training, of late. */
  rate: number;
}

/** Steps over which losses are averaged. */
const SMOOTH = 100;
/** What a turn of one side should take: long enough to be timed, short enough for both to seem to move at once. */
const TURN_MS = 150;
/** How long the page may be kept from answering. */
const HELD_MS = 12;
/** Tests come after so many steps at the earliest, and take this share of the time at most. */
const [TEST_STEPS, TEST_SHARE] = [50, 0.2];

/** Lets the page draw and answer. */
function breathe(): Promise<void> {
  const { port1, port2 } = new MessageChannel();
  // Unlike a timer of 0 ms it does not wait for 4.
  return new Promise((resolve) => {
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });
}

export class Race {
  readonly settings: Settings;
  readonly sides: readonly [Side, Side];
  readonly total: number;
  step = 0;
  private readonly train: Digits;
  private readonly test: Digits;
  private epoch = -1;
  private order: Uint32Array = new Uint32Array(0);
  private turnSteps = 1;
  private testedAt = 0;
  private trainedMs = 0;
  private testMs = 0;

  constructor(bcnorm: Bcnorm, settings: Settings, train: Digits, test: Digits) {
    const { sides, seed, epochs, batch } = settings;
    const side = (architecture: Architecture): Side => ({
      learner: new Learner(bcnorm, architecture, seed),
      losses: [],
      accuracies: [],
      rate: NaN,
    });
    this.settings = settings;
    this.train = train;
    this.test = test;
    this.sides = [side(sides[0]), side(sides[1])];
    this.total = epochs * Math.floor(train.count / batch);
  }

  get done(): boolean {
    return this.step === this.total;
  }

  /** Some steps of the one, then the same of the other. */
  async turn(): Promise<void> {
    const steps = Math.min(this.turnSteps, this.total - this.step);
    let slowest = 0;
    for (const side of this.sides) {
      const start = performance.now();
      let held = start;
      for (let step = this.step; step < this.step + steps; step++) {
        side.learner.step(this.train, this.indices(step), this.lr(step));
        if (performance.now() - held > HELD_MS) {
          await breathe();
          held = performance.now();
        }
      }
      const loss = await side.learner.takeLoss();
      const ms = performance.now() - start;
      const rate = (1000 * steps * this.settings.batch) / ms;
      // The first step compiles kernels.
      side.rate = this.step < 2 ? rate : side.rate + 0.3 * (rate - side.rate);
      const last = side.losses.at(-1);
      // By so much the new ones count; in the beginning all count the same.
      const share = steps / Math.min(SMOOTH, this.step + steps);
      const smooth = last === undefined ? loss : last[1] + Math.min(1, share) * (loss - last[1]);
      side.losses.push([this.step + steps, smooth]);
      slowest = Math.max(slowest, ms);
      this.trainedMs += ms;
    }
    this.step += steps;
    const fitting = Math.floor((steps * TURN_MS) / slowest);
    this.turnSteps = Math.max(1, Math.min(fitting, 2 * this.turnSteps));
  }

  /** Whether to test now. */
  get due(): boolean {
    const since = this.step - this.testedAt;
    const affordable = this.testMs * (1 - TEST_SHARE) <= this.trainedMs * TEST_SHARE;
    return since > 0 && (this.done || (since >= TEST_STEPS && affordable));
  }

  /** Tests both; false where `signal` ended that early. */
  async evaluate(signal: AbortSignal): Promise<boolean> {
    const start = performance.now();
    const found: number[] = [];
    for (const { learner } of this.sides) {
      const accuracy = await learner.accuracy(this.test, signal);
      if (accuracy === undefined) {
        return false;
      }
      found.push(accuracy);
    }
    this.sides.forEach((side, i) => side.accuracies.push([this.step, found[i] as number]));
    this.testedAt = this.step;
    this.trainedMs = 0;
    this.testMs = performance.now() - start;
    return true;
  }

  dispose(): void {
    this.sides.forEach(({ learner }) => learner.dispose());
  }

  private lr(step: number): number {
    return this.settings.lr * 0.5 * (1 + Math.cos((Math.PI * step) / this.total));
  }

  /** The digits of a step; an incomplete last batch of an epoch is left out. */
  private indices(step: number): Uint32Array {
    const { batch, seed } = this.settings;
    const perEpoch = Math.floor(this.train.count / batch);
    const epoch = Math.floor(step / perEpoch);
    if (epoch !== this.epoch) {
      this.epoch = epoch;
      this.order = order(seed, epoch, this.train.count);
    }
    const first = (step % perEpoch) * batch;
    return this.order.subarray(first, first + batch);
  }
}
