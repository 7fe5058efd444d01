import type { Want } from "./check.js";
import { BcNormError } from "./errors.js";
import type { Dispatch, Pass } from "./plans.js";
import type { Tensor } from "./tensor.js";

/** A forward that backward may go back through. @internal */
export interface Call {
  readonly pass: Pass;
  readonly x: Tensor;
  readonly residual: Tensor | undefined;
  /** Why it can no longer go back, where the layer wrote over what backward reads. */
  spoiled: string | undefined;
}

/** A set of tables of a layer's pool, and what is bound to it. @internal */
export interface Workspace {
  /** The forward whose tables these are; undefined: they are idle. */
  call: Call | undefined;
  readonly tables: Map<string, GPUBuffer>;
  readonly bound: Map<string, Dispatch[]>;
}

interface Held {
  readonly workspace: Workspace;
  readonly call: Call;
}

function giveBack({ workspace, call }: Held): void {
  if (workspace.call === call) {
    workspace.call = undefined;
  }
}

/** Gives back what was never disposed of, some time after the page let go of it. */
const collected = new FinalizationRegistry<Held>(giveBack);

/**
 * What a forward saved for its backward: x, the residual, what the layer was set to, and tables of the layer's pool. The
 * tables return to the pool when backward takes it, or by `dispose`.
 *
 * A forward without gradients or in place saves nothing: its `Saved` holds no memory, and backward says why it cannot go
 * back.
 */
export class Saved {
  private readonly layer: object;
  /** What it holds, or why nothing was saved. */
  private readonly held: Held | string;

  /** @internal */
  constructor(layer: object, held: Held | string) {
    this.layer = layer;
    this.held = held;
    if (typeof held !== "string") {
      collected.register(this, held);
    }
  }

  /** Gives the tables back, where no backward follows. It may be called any number of times. */
  dispose(): void {
    if (typeof this.held !== "string") {
      giveBack(this.held);
    }
  }

  /** What a layer's backward goes back through. @internal */
  of(layer: object): Held {
    const refuse = (why: string): never => {
      throw new BcNormError("order", why);
    };
    const { held } = this;
    if (this.layer !== layer) {
      return refuse("this Saved is another layer's: give it to the layer whose forward returned it");
    }
    if (typeof held === "string") {
      return refuse(`backward of a forward ${held}`);
    }
    if (held.workspace.call !== held.call) {
      return refuse("this Saved was used by a backward or disposed of: call forward again");
    }
    if (held.call.spoiled !== undefined) {
      return refuse(`backward of a forward ${held.call.spoiled}`);
    }
    return held;
  }
}

/** What an argument must be to be one. @internal */
export const SAVED: Want = ["a Saved, as forward returns it", (value) => value instanceof Saved];
