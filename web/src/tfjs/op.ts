/** A norm as an operation of tf.js, with its gradient. */
import type { Tensor, Variable } from "@tensorflow/tfjs-core";
import { BcNormError } from "../errors.js";
import type { Activation, NormKind, NormOptions } from "../options.js";
import { backwardOf, type Pass, type Prepared, type Slot } from "../plans.js";
import type { Shape } from "../shape.js";
import type { Bridge } from "./bridge.js";

/** A norm with its tensors, as the planner has them. @internal */
export interface Call {
  readonly kind: NormKind;
  readonly options: NormOptions;
  /** x, as the planner sees it. */
  readonly shape: Shape;
  readonly training: boolean;
  /** Trainable parameters by role. */
  readonly parameters: ReadonlyMap<string, Tensor>;
  /** Running statistics, which training moves. */
  readonly running: { readonly mean: Variable; readonly variance: Variable } | undefined;
}

function passOf({ shape, training, options }: Call, residual: boolean, inference: boolean): Pass {
  return { x: shape, training, residual, inPlace: false, inference, accumulate: false, options };
}

function activationOf({ options }: Call): Activation {
  return options.activation ?? "none";
}

/** Compiles what training and evaluation need, without holding up the page. @internal */
export async function prepare(bridge: Bridge, call: Call, residual: boolean): Promise<void> {
  bridge.check();
  const plans = bridge.plansOf(call.kind, call.options);
  const training = passOf({ ...call, training: true }, residual, false);
  const evaluation = passOf({ ...call, training: false }, residual, true);
  await plans.compile([
    plans.prepared("forward", training),
    plans.prepared("backward", backwardOf(training, activationOf(call))),
    plans.prepared("forward", evaluation),
  ]);
}

/** Records the dispatches of a plan. Tables that are not given are made, and are the scope's. */
function dispatch(
  bridge: Bridge,
  call: Call,
  prepared: Prepared,
  given: ReadonlyMap<string, Tensor>,
): ReadonlyMap<string, Tensor> {
  const tensors = new Map(given);
  const slots = new Map<string, Slot>();
  for (const { role, bytes, kind } of prepared.data.needs) {
    let buffer: GPUBuffer;
    if (role === "bn.num_batches_tracked") {
      buffer = bridge.count;
    } else if (call.running !== undefined && (role === "bn.running_mean" || role === "bn.running_var")) {
      const variable = role === "bn.running_mean" ? call.running.mean : call.running.variance;
      buffer = call.training ? bridge.writable(variable) : bridge.buffer(variable);
      tensors.set(role, variable);
    } else {
      let tensor = tensors.get(role);
      if (tensor === undefined && kind !== "caller") {
        tensor = bridge.make([Math.ceil(bytes / 4)]);
        tensors.set(role, tensor);
      }
      if (tensor === undefined) {
        throw new BcNormError("buffer", `the plan needs a tensor that the call has none for: ${role}`);
      }
      buffer = bridge.buffer(tensor);
    }
    slots.set(role, { buffer, offset: 0 });
  }
  const dispatches = bridge.plansOf(call.kind, call.options).bind(prepared, slots);
  bridge.record(dispatches, tensors.values());
  return tensors;
}

/** y = activation(norm(x) + residual), recorded in order with tf.js's own work. @internal */
export function run(bridge: Bridge, call: Call, x: Tensor, residual: Tensor | undefined): Tensor {
  bridge.check();
  const { tf } = bridge;
  const plans = bridge.plansOf(call.kind, call.options);
  const taped = bridge.taped();
  const pass = passOf(call, residual !== undefined, !taped);
  const forward = plans.prepared("forward", pass);
  const backward = taped ? plans.prepared("backward", backwardOf(pass, activationOf(call))) : undefined;
  const inputs = new Map([["x", x], ...call.parameters]);
  if (residual !== undefined) {
    inputs.set("residual", residual);
  }
  const op = tf.customGrad((...args) => {
    const save = args.pop() as (tensors: Tensor[]) => void;
    const tensors = dispatch(bridge, call, forward, new Map([...inputs, ["y", bridge.make(x.shape)]]));
    // What backward reads: of the inputs, and of the tables of forward.
    const kept = (backward?.data.needs ?? []).map(({ role }) => role).filter((role) => tensors.has(role));
    save(kept.map((role) => tensors.get(role) as Tensor));
    const gradFunc = (gradY: Tensor, saved: Tensor[]): Tensor[] => {
      bridge.check();
      if (bridge.higherOrder()) {
        throw new BcNormError("order", "bcnorm has no gradients of gradients: take first derivatives only");
      }
      const given = new Map(kept.map((role, index) => [role, saved[index] as Tensor]));
      return tf.tidy(() => gradients(bridge, call, pass, given.set("grad_y", gradY), inputs));
    };
    return { value: tensors.get("y") as Tensor, gradFunc };
  });
  return op(...inputs.values());
}

/** The gradients of the inputs, in their order. */
function gradients(
  bridge: Bridge,
  call: Call,
  pass: Pass,
  given: Map<string, Tensor>,
  inputs: ReadonlyMap<string, Tensor>,
): Tensor[] {
  const prepared = bridge.plansOf(call.kind, call.options).prepared("backward", backwardOf(pass, activationOf(call)));
  const needed = new Set(prepared.data.needs.map(({ role }) => role));
  for (const [role, { shape }] of inputs) {
    if (needed.has(`grad_${role}`)) {
      given.set(`grad_${role}`, bridge.make(shape));
    }
  }
  const tensors = dispatch(bridge, call, prepared, given);
  // Without an activation the residual's gradient is that of y.
  return [...inputs.keys()].map((role) => tensors.get(`grad_${role}`) ?? (tensors.get("grad_y") as Tensor).clone());
}
