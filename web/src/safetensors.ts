import { BcNormError } from "./errors.js";
import { planner } from "./planner.js";
import type { StateDict } from "./state.js";

/** An entry of a safetensors file. */
export interface SafeTensor {
  /** `F16`, `BF16`, `F32`, `F64`, or `I64`. */
  readonly dtype: string;
  readonly dims: readonly number[];
  /** 16-bit floats are widened. */
  readonly values: Float32Array | Float64Array | BigInt64Array;
}

const BYTES: Readonly<Record<string, number>> = { F16: 2, BF16: 2, F32: 4, F64: 8, I64: 8 };

/** The largest header that the format's own library reads. */
const MAX_HEADER = 100_000_000;

/** What a header may say of an entry. */
interface Entry {
  dtype: string;
  shape: number[];
  data_offsets: [number, number];
}

function fail(problem: string): never {
  throw new BcNormError("state-dict", `not a safetensors file: ${problem}`);
}

/** The header: its entries, checked against the bytes, and where these begin. */
function header(bytes: Uint8Array): {
  entries: [string, Entry][];
  metadata: Record<string, string>;
  data: number;
} {
  if (bytes.byteLength < 8) {
    fail(`${bytes.byteLength} bytes, of which the first 8 should be the header's length`);
  }
  const length = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  const data = 8 + length;
  if (length > MAX_HEADER || data > bytes.byteLength) {
    fail(`a header of ${length} bytes, in ${bytes.byteLength} bytes in all`);
  }
  let parsed: unknown;
  try {
    parsed = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes.subarray(8, data)));
  } catch (cause) {
    fail(`the header is no JSON (${cause instanceof Error ? cause.message : String(cause)})`);
  }
  if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed)) {
    fail("the header is no JSON object");
  }
  const { __metadata__: metadata = {}, ...rest } = parsed as Record<string, unknown>;
  const size = bytes.byteLength - data;
  const entries = Object.entries(rest).map(([name, entry]): [string, Entry] => {
    const { dtype, shape, data_offsets } = (entry ?? {}) as Partial<Entry>;
    const whole = (value: unknown): boolean => Number.isSafeInteger(value) && (value as number) >= 0;
    const wellFormed =
      typeof dtype === "string" &&
      Array.isArray(shape) &&
      shape.every(whole) &&
      Array.isArray(data_offsets) &&
      data_offsets.length === 2 &&
      data_offsets.every(whole);
    if (!wellFormed) {
      fail(`${name} has no dtype, shape and data_offsets`);
    }
    const [begin, end] = data_offsets;
    if (begin > end || end > size) {
      fail(`${name} lies at bytes ${begin} to ${end} of ${size}`);
    }
    const width = BYTES[dtype];
    const elements = shape.reduce((product, dim) => product * dim, 1);
    if (width !== undefined && elements * width !== end - begin) {
      fail(`${name} is ${dtype} of shape [${shape.join(", ")}], but has ${end - begin} bytes`);
    }
    return [name, { dtype, shape, data_offsets }];
  });
  return { entries, metadata: metadata as Record<string, string>, data };
}

/** Reads a safetensors file of floats and i64. (State dicts have `Norm.loadSafetensors`.) */
export function readSafetensors(bytes: Uint8Array): {
  tensors: Record<string, SafeTensor>;
  metadata: Record<string, string>;
} {
  const { entries, metadata, data } = header(bytes);
  const tensors = entries.map(([name, entry]): [string, SafeTensor] => {
    const { dtype, shape: dims } = entry;
    return [name, { dtype, dims, values: values(bytes, data, name, entry) }];
  });
  return { tensors: Object.fromEntries(tensors), metadata };
}

function values(bytes: Uint8Array, data: number, name: string, entry: Entry): SafeTensor["values"] {
  const { dtype, data_offsets: [begin, end] } = entry;
  // A copy: in the file, the data need not be aligned.
  const { buffer } = Uint8Array.from(bytes.subarray(data + begin, data + end));
  switch (dtype) {
    case "F32":
      return new Float32Array(buffer);
    case "F64":
      return new Float64Array(buffer);
    case "I64":
      return new BigInt64Array(buffer);
    case "F16":
    case "BF16": {
      const len = buffer.byteLength / 2;
      const words = new Uint32Array(Math.ceil(len / 2));
      new Uint8Array(words.buffer).set(new Uint8Array(buffer));
      return planner().unpack(dtype.toLowerCase(), words, len);
    }
    default:
      throw new BcNormError("state-dict", `${name} is ${dtype}, expected F16, BF16, F32, F64 or I64`);
  }
}

/**
 * The entries of one module of a model's file (`layer1.0.bn1`, as `Module.get_submodule` takes it; empty: all),
 * under the names that they have within it. Those of other modules may be of any type.
 */
export function readStateDict(bytes: Uint8Array, module = ""): StateDict {
  const { entries, data } = header(bytes);
  const path = module.replace(/\.+$/, "");
  const prefix = path === "" ? "" : `${path}.`;
  const dict: StateDict = {};
  const problems: string[] = [];
  for (const [name, entry] of entries.sort(([a], [b]) => (a < b ? -1 : 1))) {
    if (!name.startsWith(prefix)) {
      continue;
    }
    const key = name.slice(prefix.length);
    if (!(entry.dtype in BYTES)) {
      problems.push(`${name} is ${entry.dtype}, expected F16, BF16, F32, F64 or one I64`);
      continue;
    }
    const found = values(bytes, data, name, entry);
    if (found instanceof BigInt64Array) {
      const [count] = found;
      if (count === undefined || found.length !== 1) {
        const dims = entry.shape.join(", ");
        problems.push(`${name} is i64 of shape [${dims}], expected a single value`);
      } else {
        dict[key] = count;
      }
    } else {
      dict[key] = { dims: entry.shape, values: Float32Array.from(found) };
    }
  }
  if (problems.length > 0) {
    throw new BcNormError("state-dict", `the safetensors data: ${problems.join("; ")}`);
  }
  return dict;
}

/** A state dict as a safetensors file: what `safetensors.torch.load_file` reads. */
export function writeStateDict(dict: StateDict): Uint8Array {
  const entries: Record<string, Entry> = {};
  const parts: Uint8Array[] = [];
  let at = 0;
  // The format's own library puts wider types first, so that all are aligned.
  const names = Object.keys(dict).sort();
  const counts = names.filter((name) => typeof dict[name] === "bigint");
  for (const name of [...counts, ...names.filter((name) => !counts.includes(name))]) {
    const value = dict[name];
    if (value === undefined) {
      continue;
    }
    const count = typeof value === "bigint";
    const data = count ? BigInt64Array.of(value) : value.values;
    const part = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    entries[name] = {
      dtype: count ? "I64" : "F32",
      shape: count ? [] : [...value.dims],
      data_offsets: [at, at + part.byteLength],
    };
    parts.push(part);
    at += part.byteLength;
  }
  const text = JSON.stringify(entries);
  // Padded with spaces to a multiple of 8.
  const head = new TextEncoder().encode(text.padEnd(Math.ceil(text.length / 8) * 8));
  const file = new Uint8Array(8 + head.byteLength + at);
  new DataView(file.buffer).setBigUint64(0, BigInt(head.byteLength), true);
  file.set(head, 8);
  let to = 8 + head.byteLength;
  for (const part of parts) {
    file.set(part, to);
    to += part.byteLength;
  }
  return file;
}
