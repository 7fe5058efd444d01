import initModule, * as module from "./planner/bcnorm_planner.js";
import { BcNormError, text } from "./errors.js";

/** Where a WebAssembly module is: an URL, a Response, its bytes, or the compiled module. */
export type WasmSource = URL | string | Response | BufferSource | WebAssembly.Module;

/** The planner's classes and functions. The module of the CPU executor has them, too. @internal */
export type Module = typeof module;

/** Loads a module once, however often it is asked to; `what` it is, in the file of that `name`. @internal */
export function once(
  what: string,
  name: string,
  load: typeof initModule,
): {
  load: (wasm?: WasmSource) => Promise<void>;
  isLoaded: () => boolean;
} {
  let loading: Promise<unknown> | undefined;
  let loaded = false;
  return {
    isLoaded: () => loaded,
    load: async (wasm) => {
      try {
        loading ??= load(wasm === undefined ? undefined : { module_or_path: wasm });
        // A module that is none of ours is kept by what loads it, and given again.
        if (!("norm_new" in ((await loading) as object))) {
          throw new TypeError("the module is another one");
        }
        loaded = true;
      } catch (cause) {
        // The next call may try again, with another address for instance.
        loading = undefined;
        const from = wasm === undefined ? "beside this module" : wasm instanceof Response ? wasm.url : String(wasm);
        throw new BcNormError(
          "not-initialized",
          `${what} could not be loaded (${from}): ${text(cause)}: give the address of ${name}, its bytes or the ` +
            "compiled module",
          { cause },
        );
      }
    },
  };
}

const loader = once("the planner", "bcnorm_planner_bg.wasm", initModule);

/**
 * Loads the planner (WebAssembly, some 240 kB), once; await it before anything else.
 *
 * @param wasm default: `planner/bcnorm_planner_bg.wasm` beside this module.
 * @throws {BcNormError} `not-initialized`, where it cannot be loaded; a later call may try again.
 */
export async function init(wasm?: WasmSource): Promise<void> {
  await loader.load(wasm);
}

/** The planner, which must be there. @internal */
export function planner(): Module {
  if (!loader.isLoaded()) {
    throw new BcNormError("not-initialized", "the planner is not loaded: await init() first");
  }
  return module;
}

/** What `Plan.describe` says (`web/planner/src/plan.rs`). @internal */
export interface PlanData {
  readonly steps: readonly StepData[];
  readonly needs: readonly Need[];
  /** Bytes of tensor-sized data that it moves. */
  readonly tensorBytes: number;
}

/** A dispatch. @internal */
export interface StepData {
  readonly kernel: string;
  /** Equal keys have equal texts and layouts. */
  readonly key: string;
  readonly bindings: readonly {
    readonly binding: number;
    readonly role: string;
    readonly write: boolean;
    readonly tensor: boolean;
    readonly minBytes: number;
  }[];
  /** Offset and bytes of what it binds of tensors; null: all. */
  readonly window: readonly [number, number] | null;
  readonly workgroups: readonly [number, number];
}

/** A buffer of a plan. @internal */
export interface Need {
  readonly role: string;
  readonly bytes: number;
  readonly kind: "caller" | "saved" | "scratch";
}
