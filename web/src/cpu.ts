/**
 * The CPU executor in WebAssembly, as `bcnorm/cpu`: a module of its own, for it is larger than all else.
 */
import initModule, * as module from "./cpu/bcnorm_cpu.js";
import { ANY, BOOLEAN, check, checkOptions, FLOATS, SIZES } from "./check.js";
import { BcNormError, guarded } from "./errors.js";
import { normOf, type NormKind, type NormOptions } from "./options.js";
import { once, type WasmSource } from "./planner.js";
import { stateOf, type StateDict, type StateLayout } from "./state.js";
import { shapeOf, TENSOR_OPTIONS, type DType, type Layout } from "./shape.js";

const loader = once(
  "the CPU executor",
  new URL("./cpu/bcnorm_cpu_bg.wasm", import.meta.url),
  initModule,
);

/**
 * Loads the CPU executor, once; await it before {@link runOnCpu}.
 *
 * @throws {BcNormError} `not-initialized`, where it cannot be loaded; a later call may try again.
 */
export async function initCpu(wasm?: WasmSource): Promise<void> {
  await loader.load(wasm);
}

const CALL = {
  dims: SIZES,
  ...TENSOR_OPTIONS,
  training: BOOLEAN,
  x: FLOATS,
  residual: FLOATS,
  gradY: FLOATS,
  state: ANY,
};

/** A call for {@link runOnCpu}. */
export interface CpuCall {
  readonly dims: readonly number[];
  readonly dtype?: DType;
  readonly layout?: Layout;
  readonly training: boolean;
  readonly x: Float32Array;
  readonly residual?: Float32Array;
  /** The upstream gradient; with it, backward runs too. */
  readonly gradY?: Float32Array;
  /** Parameters and running state; default: a new layer's. */
  readonly state?: StateDict;
}

/**
 * Runs one call of a norm on the CPU: a second opinion on a GPU, or a way out without one. On the calling thread.
 *
 * @returns `y`, with `gradY` also `grad_x`, `grad_residual` and the parameters' gradients (`grad_weight`, ...), and
 * the running statistics after the call, under their names in the state dict.
 * @throws {BcNormError} `not-initialized`, `argument`, `norm`, `tensor`, `state-dict`.
 */
export function runOnCpu(
  kind: NormKind,
  options: NormOptions,
  call: CpuCall,
): Record<string, Float32Array> {
  if (!loader.isLoaded()) {
    throw new BcNormError("not-initialized", "the CPU executor is not loaded: await initCpu() first");
  }
  checkOptions("the call", call, CALL);
  check("training", call.training, BOOLEAN);
  check("x", call.x, FLOATS);
  const norm = normOf(module, kind, options);
  const tensor = shapeOf(module, call.dims, call, kind === "weight_standardization");
  return guarded(() => {
    const activation = options.activation ?? "none";
    const planned = new module.Options(call.training, activation, call.residual !== undefined);
    const state = call.state === undefined ? undefined : stateOf(module, call.state);
    const run = new module.CpuCall(norm, tensor, planned, state);
    run.set("x", call.x);
    if (call.residual !== undefined) {
      run.set("residual", call.residual);
    }
    if (call.gradY !== undefined) {
      run.set("grad_y", call.gradY);
    }
    run.run(call.gradY !== undefined);
    const layout: StateLayout = JSON.parse(norm.stateLayout());
    const outputs: Record<string, Float32Array> = {};
    const take = (role: string, name = role): void => {
      const values = run.get(role);
      if (values !== undefined) {
        outputs[name] = values;
      }
    };
    take("y");
    if (call.gradY !== undefined) {
      take("grad_x");
      take("grad_residual");
    }
    for (const { role, name, gradient } of layout.entries) {
      if (gradient === null) {
        take(role, name);
      } else if (call.gradY !== undefined) {
        take(gradient);
      }
    }
    for (const owned of [run, planned, tensor, norm]) {
      owned.free();
    }
    return outputs;
  });
}
