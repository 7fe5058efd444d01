import { BcNormError, guarded } from "./errors.js";
import type { Module } from "./planner.js";
import type { State } from "./planner/bcnorm_planner.js";

/** Parameters and running statistics by PyTorch's names; `num_batches_tracked` is a bigint. */
export type StateDict = Record<string, { dims: readonly number[]; values: Float32Array } | bigint>;

/** What `Norm.stateLayout` says (`web/planner/src/norm.rs`). @internal */
export interface StateLayout {
  readonly entries: readonly {
    readonly role: string;
    readonly name: string;
    readonly dims: readonly number[];
    readonly initial: number;
    readonly gradient: string | null;
  }[];
  readonly batchCount: string | null;
  readonly movingSpeed: { readonly name: string; readonly value: number } | null;
}

/** What is wrong with an entry by itself; nothing where it is fine. */
function problem(value: StateDict[string] | undefined): string | undefined {
  if (typeof value === "bigint") {
    return BigInt.asIntN(64, value) === value ? undefined : `is ${value}, which 64 bits do not hold`;
  }
  if (typeof value !== "object" || value === null || !("dims" in value) || !("values" in value)) {
    return "is neither { dims, values } nor a bigint";
  }
  const { dims, values } = value;
  if (!Array.isArray(dims) || !dims.every((size) => Number.isInteger(size) && size >= 0 && size <= 0xffffffff)) {
    return "has dims that are no array of sizes";
  }
  if (!(values instanceof Float32Array)) {
    return "has values that are no Float32Array";
  }
  const len = dims.reduce((product: number, size: number) => product * size, 1);
  return len === values.length ? undefined : `has ${values.length} values, its shape [${dims.join(", ")}] ${len}`;
}

/** Refuses what is no state dict, whatever norm it may be for. @internal */
export function checkState(dict: StateDict): void {
  if (typeof dict !== "object" || dict === null) {
    throw new BcNormError("state-dict", `${dict} is no state dict, an object of { dims, values } and bigints by name`);
  }
  const problems = Object.entries(dict).flatMap(([name, value]) => {
    const found = problem(value);
    return found === undefined ? [] : [`${name} ${found}`];
  });
  if (problems.length > 0) {
    throw new BcNormError("state-dict", `no state dict: ${problems.join("; ")}`);
  }
}

/** The planner's. It takes the values over by copy. @internal */
export function stateOf({ State }: Pick<Module, "State">, dict: StateDict): State {
  checkState(dict);
  return guarded(() => {
    const state = new State();
    for (const [name, value] of Object.entries(dict)) {
      if (typeof value === "bigint") {
        state.setCount(name, value);
      } else {
        state.set(name, Uint32Array.from(value.dims), value.values);
      }
    }
    return state;
  });
}
