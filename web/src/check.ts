/** Arguments as they come from JavaScript, where no compiler has looked at them. */
import { BcNormError } from "./errors.js";

/** What an argument must be: in words, and as a test. @internal */
export type Want = readonly [words: string, fits: (value: unknown) => boolean];

const typed = (words: string, type: string): Want => [words, (value) => typeof value === type];
const method = (value: unknown, name: string): boolean =>
  typeof (value as Record<string, unknown> | null | undefined)?.[name] === "function";

/** @internal */
export const BOOLEAN = typed("true or false", "boolean");
/** @internal */
export const NUMBER = typed("a number", "number");
/** @internal */
export const TEXT = typed("a string", "string");
/** One of some names. @internal */
export const oneOf = (...names: readonly unknown[]): Want => [
  names.join(" or "),
  (value) => names.includes(value),
];
/** @internal */
export const ANY: Want = ["anything", () => true];
/** @internal */
export const SIZES: Want = ["an array of numbers", Array.isArray];
/** @internal */
export const FLOATS: Want = ["a Float32Array", (value) => value instanceof Float32Array];
/** @internal */
export const BYTES: Want = ["a Uint8Array", (value) => value instanceof Uint8Array];
// By what they do: those of another frame are of another class.
/** @internal */
export const DEVICE: Want = [
  "a GPUDevice, the page's own or that of requestDevice()",
  (value) => method(value, "createComputePipelineAsync"),
];
/** @internal */
export const ENCODER: Want = ["a GPUCommandEncoder", (value) => method(value, "clearBuffer")];
/** @internal */
export const BUFFER: Want = ["a GPUBuffer", (value) => method(value, "mapAsync")];
/** @internal */
export const TARGET: Want = [
  "a GPUCommandEncoder or a GPUComputePassEncoder",
  (value) => method(value, "beginComputePass") || method(value, "dispatchWorkgroups"),
];

function described(value: unknown): string {
  if (typeof value === "string") {
    return JSON.stringify(value.slice(0, 40));
  }
  const isObject = (typeof value === "object" && value !== null) || typeof value === "function";
  return isObject ? `of type ${value.constructor?.name ?? "Object"}` : String(value);
}

/** Refuses a value that is not what it must be. @internal */
export function check(name: string, value: unknown, [words, fits]: Want): void {
  if (!fits(value)) {
    throw new BcNormError("argument", `${name} is ${described(value)}, expected ${words}`);
  }
}

/**
 * Refuses options that there are not, which would be ignored in silence, and values that are not what they must be;
 * undefined is as good as none. @internal
 */
export function checkOptions(of: string, options: unknown, known: Readonly<Record<string, Want>>): void {
  if (typeof options !== "object" || options === null) {
    throw new BcNormError("argument", `the options of ${of} are ${described(options)}, expected an object`);
  }
  for (const [name, value] of Object.entries(options)) {
    const want = Object.hasOwn(known, name) ? known[name] : undefined;
    if (want === undefined) {
      const names = Object.keys(known).join(", ");
      throw new BcNormError("argument", `${of} has no option ${JSON.stringify(name)}; it has ${names}`);
    }
    if (value !== undefined) {
      check(name, value, want);
    }
  }
}
