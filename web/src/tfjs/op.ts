/** A norm as an operation of tf.js, with its gradient. */
import type { Tensor, Variable } from "@tensorflow/tfjs-core";
import { BcNormError } from "../errors.js";
import type { NormKind, NormOptions } from "../options.js";
import type { Pass, Plans, Prepared, Slot } from "../plans.js";
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
  /** Running statistics by role, which training moves; none, where there are none. */
  readonly running: ReadonlyMap<string, Variable>;
}

/** What training needs of a call, or evaluation without gradients. */
function passOf({ shape, options }: Call, training: boolean, residual: boolean, inference: boolean): Pass {
  return { x: shape, training, residual, inPlace: false, inference, accumulate: false, options };
}

/** Compiles what training and evaluation need, without holding up the page. @internal */
export async function prepare(bridge: Bridge, call: Call, residual: boolean): Promise<void> {
  bridge.check();
  const plans = bridge.plansOf(call.kind, call.options);
  const training = passOf(call, true, residual, false);
  // Without running statistics both are the same.
  const evaluation = passOf(call, call.running.size === 0, residual, true);
  await plans.compile([
    plans.prepared("forward", training),
    plans.prepared("backward", plans.backwardOf(training)),
    plans.prepared("forward", evaluation),
  ]);
}

/** y = activation(norm(x) + residual), recorded in order with tf.js's own work. @internal */
export function run(bridge: Bridge, call: Call, x: Tensor, residual: Tensor | undefined): Tensor {
  bridge.check();
  const plans = bridge.plansOf(call.kind, call.options);
  const taped = bridge.taped();
  const pass = passOf(call, call.training, residual !== undefined, !taped);
  const back = plans.backwardOf(pass);
  // A plan that a device refuses is refused before anything is recorded.
  const forward = plans.prepared("forward", pass);
  const reads = taped ? plans.prepared("backward", back).data.needs.map(({ role }) => role) : [];
  const inputs = new Map([["x", x], ...call.parameters]);
  if (residual !== undefined) {
    inputs.set("residual", residual);
  }
  const op = bridge.tf.customGrad((...args) => {
    const save = args.pop() as (tensors: Tensor[]) => void;
    const tensors = record(bridge, call, plans, forward, new Map([...inputs, ["y", bridge.make(x.shape)]]));
    const kept = reads.filter((role) => tensors.has(role));
    save(kept.map((role) => tensors.get(role) as Tensor));
    const gradFunc = (gradY: Tensor, saved: Tensor[]): Tensor[] => {
      bridge.check();
      if (bridge.higherOrder()) {
        throw new BcNormError("order", "bcnorm has no gradients of gradients: take first derivatives only");
      }
      return bridge.tf.tidy(() => {
        const given = new Map(kept.map((role, index) => [role, saved[index] as Tensor]));
        given.set("grad_y", gradY);
        for (const [role, { shape }] of inputs) {
          if (reads.includes(`grad_${role}`)) {
            given.set(`grad_${role}`, bridge.make(shape));
          }
        }
        record(bridge, call, plans, plans.prepared("backward", back), given);
        // Without an activation the residual's gradient is that of y.
        return [...inputs.keys()].map((role) => given.get(`grad_${role}`) ?? gradY.clone());
      });
    };
    return { value: tensors.get("y") as Tensor, gradFunc };
  });
  return op(...inputs.values());
}

/** Records a plan with some tensors, and the tables that it needs beside them, which are the scope's; returns all. */
function record(
  bridge: Bridge,
  call: Call,
  plans: Plans,
  prepared: Prepared,
  given: ReadonlyMap<string, Tensor>,
): ReadonlyMap<string, Tensor> {
  const tensors = new Map(given);
  const slots = new Map<string, Slot>();
  for (const { role, bytes, kind } of prepared.data.needs) {
    const variable = call.running.get(role);
    if (variable !== undefined) {
      tensors.set(role, variable);
    } else if (kind !== "caller" && !tensors.has(role)) {
      tensors.set(role, bridge.make([Math.ceil(bytes / 4)]));
    }
    const tensor = tensors.get(role);
    if (tensor !== undefined) {
      const written = variable !== undefined && call.training;
      slots.set(role, { buffer: written ? bridge.writable(variable) : bridge.buffer(tensor), offset: 0 });
    } else if (role === COUNT) {
      slots.set(role, { buffer: bridge.count, offset: 0 });
    }
  }
  bridge.record(plans.bind(prepared, slots), tensors.values());
  return tensors;
}

/** The counter's role. */
const COUNT = "bn.num_batches_tracked";
