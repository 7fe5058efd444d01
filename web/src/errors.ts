/** What kind of thing went wrong. */
export type ErrorCode =
  /** The browser has no WebGPU, or the page is no secure context. */
  | "no-webgpu"
  /** WebGPU found no adapter. */
  | "no-adapter"
  /** The device was lost: make a new one, and layers on it (save their state dicts in time). */
  | "device-lost"
  /** The browser refused a device or a pipeline. */
  | "device"
  /** `init()` was not awaited. */
  | "not-initialized"
  /** A shape, a type, a layout, or data of the wrong length. */
  | "tensor"
  /** A norm that there is not, or a number out of its range. */
  | "norm"
  /** A buffer that is missing, too small, misaligned, without STORAGE, or shared with one that is written. */
  | "buffer"
  /** More than the device grants. */
  | "limit"
  /** Calls in an order that makes no sense: a backward without its forward, for instance. */
  | "order"
  /** A state dict or a safetensors file that does not fit. */
  | "state-dict"
  /** The text of a tuning. */
  | "tuning";

/** Everything that this package throws; the message names the value, the limit and the way out. */
export class BcNormError extends Error {
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "BcNormError";
    this.code = code;
  }
}

/** Runs what calls the planner, whose errors have the code as their name (`web/planner/src/error.rs`). */
export function guarded<T>(run: () => T): T {
  try {
    return run();
  } catch (error) {
    if (error instanceof Error && !(error instanceof BcNormError) && CODES.has(error.name)) {
      throw new BcNormError(error.name as ErrorCode, error.message);
    }
    throw error;
  }
}

const CODES: ReadonlySet<string> = new Set<ErrorCode>([
  "no-adapter",
  "device-lost",
  "tensor",
  "norm",
  "buffer",
  "limit",
  "order",
  "state-dict",
  "tuning",
]);
