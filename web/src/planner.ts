import initModule, * as module from "./planner/bcnorm_planner.js";
import { BcNormError, text } from "./errors.js";

/** Where a WebAssembly module is: an URL, a Response, its bytes, or the compiled module. */
export type WasmSource = URL | string | Response | BufferSource | WebAssembly.Module;

/** The planner's classes and functions. The module of the CPU executor has them, too. @internal */
export type Module = typeof module;

async function compiled(wasm: WasmSource): Promise<WebAssembly.Module> {
  const source = typeof wasm === "string" || wasm instanceof URL ? await fetch(wasm) : wasm;
  if (source instanceof Response) {
    if (!source.ok) {
      throw new TypeError(`HTTP status ${source.status}`);
    }
    return WebAssembly.compile(await source.arrayBuffer());
  }
  return source instanceof WebAssembly.Module ? source : WebAssembly.compile(source as BufferSource);
}

/** Loads a module once, however often it is asked to; `what` it is, and where. @internal */
export function once(
  what: string,
  address: URL,
  load: typeof initModule,
): {
  load: (wasm?: WasmSource) => Promise<void>;
  isLoaded: () => boolean;
} {
  let loading: Promise<void> | undefined;
  let loaded = false;
  const start = async (wasm: WasmSource): Promise<void> => {
    try {
      const module = await compiled(wasm);
      if (!WebAssembly.Module.exports(module).some(({ name }) => name === "norm_new")) {
        throw new TypeError("the module is another one");
      }
      await load({ module_or_path: module });
      loaded = true;
    } catch (cause) {
      // The next call may try again, with another address for instance.
      loading = undefined;
      const from = wasm instanceof Response ? wasm.url : String(wasm);
      const name = address.pathname.split("/").at(-1);
      throw new BcNormError(
        "not-initialized",
        `${what} could not be loaded from ${from}: ${text(cause)}: give the address of ${name}, its bytes, or the ` +
          "compiled module",
        { cause },
      );
    }
  };
  return {
    isLoaded: () => loaded,
    load: (wasm) => (loading ??= start(wasm ?? address)),
  };
}

const loader = once(
  "the planner",
  new URL("./planner/bcnorm_planner_bg.wasm", import.meta.url),
  initModule,
);

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
