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
  /** `init()` was not awaited, or could not load the planner. */
  | "not-initialized"
  /** A value of the wrong type, or an option that there is not. */
  | "argument"
  /** A shape, a type, a layout, or data of the wrong length. */
  | "tensor"
  /** Unknown norm, or a parameter out of range. */
  | "norm"
  /**
   * A buffer that is missing, too small, misaligned, without a usage, destroyed, of another device, or shared with
   * one that is written.
   */
  | "buffer"
  /** More than the device grants or has memory for. */
  | "limit"
  /** Calls in an order that makes no sense: a backward without its forward, for instance. */
  | "order"
  /** A state dict or a safetensors file that does not fit. */
  | "state-dict"
  /** The text of a tuning. */
  | "tuning"
  /** tf.js without its WebGPU backend, or of a version that `bcnorm/tfjs` does not know. */
  | "tfjs";

/** Everything that this package throws; the message names the value, the limit and the way out. */
export class BcNormError extends Error {
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "BcNormError";
    this.code = code;
  }
}

/** The message of whatever was thrown. @internal */
export function text(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Runs what calls the planner, whose errors have the code as their name (`web/planner/src/error.rs`). @internal */
export function guarded<T>(run: () => T): T {
  try {
    return run();
  } catch (error) {
    if (error instanceof Error && !(error instanceof BcNormError) && CODES.has(error.name)) {
      const code = error.name as ErrorCode;
      throw new BcNormError(code, inJavaScript(code, error.message));
    }
    throw error;
  }
}

/** A message of the planner's, which calls things as Rust does, with the names of this package. @internal */
export function inJavaScript(code: ErrorCode, message: string): string {
  const text = message
    // What a builder of Rust's does.
    .replace(/ \(with_\w+[^)]*\)/g, "")
    .replace(/\bplan with Tuning::for_device of this device\b/g, "create the layer without a tuning of its own")
    .replace(/\bBufferUsages::/g, "GPUBufferUsage.")
    .replace(/\bChannelStats::Estimate\b/g, "movingSpeed")
    .replace(/\bChannelStats::Batch\b/g, "momentum");
  // These name what is in a file.
  if (code === "state-dict" || code === "tuning") {
    return text;
  }
  const named = text.replace(/\bestbn_moving_speed\b/g, "movingSpeed").replace(/\bwgpu::Device\b/g, "GPUDevice");
  return named.replace(/\b(?:num|max_(?:buffer|compute|storage)|min_(?:storage|uniform))_[a-z_]+/g, (name) =>
    name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase()),
  );
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
