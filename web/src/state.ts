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

/** The planner's. It takes the values over by copy. @internal */
export function stateOf({ State }: Pick<Module, "State">, dict: StateDict): State {
  const state = new State();
  for (const [name, value] of Object.entries(dict)) {
    if (typeof value === "bigint") {
      state.setCount(name, value);
    } else {
      state.set(name, Uint32Array.from(value.dims), value.values);
    }
  }
  return state;
}
