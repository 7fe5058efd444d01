import { BYTES, check, TEXT } from "./check.js";
import { BcNormError } from "./errors.js";
import { planner } from "./planner.js";
import { checkState, type StateDict } from "./state.js";

/** An entry of a safetensors file. */
export interface SafeTensor {
  /** `F16`, `BF16`, `F32`, `F64`, or `I64`. */
  readonly dtype: string;
  readonly dims: readonly number[];
  /** 16-bit floats are widened. */
  readonly values: Float32Array | Float64Array | BigInt64Array;
}

/** Bits of an element, of every type that the format's own library knows. */
const BITS: Readonly<Record<string, number>> = {
  BOOL: 8, F4: 4, F6_E2M3: 6, F6_E3M2: 6, U8: 8, I8: 8, F8_E5M2: 8, F8_E4M3: 8, F8_E8M0: 8, I16: 16, U16: 16, F16: 16,
  BF16: 16, I32: 32, U32: 32, F32: 32, C64: 64, F64: 64, I64: 64, U64: 64,
};

/** Those whose values are read. */
const READ: readonly string[] = ["F16", "BF16", "F32", "F64", "I64"];

/** What the format's own library reads: of bytes of a header, and of values within values in it. */
const MAX_HEADER = 100_000_000;
const MAX_DEPTH = 127;

/** What a header says of an entry; the range is of bytes of the data. */
interface Entry {
  dtype: string;
  shape: number[];
  data_offsets: [number, number];
}

function fail(problem: string): never {
  throw new BcNormError("state-dict", `not a safetensors file: ${problem}`);
}

/** A JSON object, of which JSON.parse hides the keys that are there twice. */
class Pairs {
  constructor(readonly list: readonly (readonly [string, Json])[]) {}
}
/** A JSON value; numbers as they are written. */
type Json = null | boolean | string | { readonly number: string } | readonly Json[] | Pairs;

/** Reads JSON as the format's own library does, which refuses keys that are there twice, and more. */
function parse(text: string): Json {
  try {
    // Where it is JSON, the tokens alone say the rest: commas and colons are where they belong.
    JSON.parse(text);
  } catch (cause) {
    fail(`the header is no JSON (${cause instanceof Error ? cause.message : String(cause)})`);
  }
  const tokens = text.match(/"(?:[^"\\]|\\.)*"|[[\]{}]|[^\s[\]{},:"]+/g) ?? [];
  let at = 0;
  const string = (token = ""): string => {
    const value: string = JSON.parse(token);
    // Half of a surrogate pair.
    return /\p{Surrogate}/u.test(value) ? fail(`${token} is no Unicode`) : value;
  };
  const value = (depth: number): Json => {
    const token = tokens[at++] ?? "";
    if (depth >= MAX_DEPTH && (token === "[" || token === "{")) {
      fail(`the header has values in more than ${MAX_DEPTH} others`);
    }
    if (token === "[") {
      const items: Json[] = [];
      while (tokens[at] !== "]") {
        items.push(value(depth + 1));
      }
      at++;
      return items;
    }
    if (token === "{") {
      const list: [string, Json][] = [];
      while (tokens[at] !== "}") {
        list.push([string(tokens[at++]), value(depth + 1)]);
      }
      at++;
      return new Pairs(list);
    }
    if (token.startsWith('"')) {
      return string(token);
    }
    if (/^[-\d]/.test(token)) {
      return Number.isFinite(Number(token)) ? { number: token } : fail(`${token} is no number`);
    }
    return JSON.parse(token);
  };
  return value(0);
}

/** The members of a struct, each of which is there once; an entry may be a list of them, too. */
function members(what: string, value: Json, names: readonly string[]): (Json | undefined)[] {
  if (Array.isArray(value) && value.length === names.length && names.length > 1) {
    return value as Json[];
  }
  if (!(value instanceof Pairs)) {
    return fail(`${what} is no JSON object`);
  }
  return names.map((name) => {
    const found = value.list.filter(([key]) => key === name);
    return found.length > 1 ? fail(`${what} has "${name}" twice`) : found[0]?.[1];
  });
}

/** A whole number of 64 bits. */
function whole(value: Json | undefined): bigint | undefined {
  if (typeof value !== "object" || value === null || !("number" in value) || !/^\d+$/.test(value.number)) {
    return undefined;
  }
  const number = BigInt(value.number);
  return number < 1n << 64n ? number : undefined;
}

function wholes(value: Json | undefined): bigint[] | undefined {
  const all = Array.isArray(value) ? (value as readonly Json[]).map(whole) : undefined;
  return all?.every((number) => number !== undefined) ? (all as bigint[]) : undefined;
}

function entryOf(name: string, value: Json): Entry {
  const [type, sizes, range] = members(`the entry ${name}`, value, ["dtype", "shape", "data_offsets"]);
  const [shape, offsets] = [wholes(sizes), wholes(range)];
  // As the format's own library has it: "F32", or {"F32": null}.
  const [only, ...more] = type instanceof Pairs ? type.list : [];
  const dtype = only?.[1] === null && more.length === 0 ? only[0] : type;
  if (typeof dtype !== "string" || shape === undefined || offsets?.length !== 2) {
    return fail(`${name} has no dtype, shape and data_offsets`);
  }
  if (!Object.hasOwn(BITS, dtype)) {
    return fail(`${name} is ${dtype}, which there is not; there are ${Object.keys(BITS).join(", ")}`);
  }
  const [begin, end] = offsets.map(Number) as [number, number];
  const product = (sum: bigint, size: bigint): bigint => {
    const result = sum * size;
    return result < 1n << 64n ? result : fail(`${name} has more elements than 64 bits count`);
  };
  const bits = product(shape.reduce(product, 1n), BigInt(BITS[dtype] ?? 0));
  if (bits !== 8n * BigInt(end - begin)) {
    fail(`${name} is ${dtype} of shape [${shape.join(", ")}], but has ${end - begin} bytes`);
  }
  return { dtype, shape: shape.map(Number), data_offsets: [begin, end] };
}

/** The header: its entries, checked against the bytes, and where these begin. @internal */
export function readHeader(bytes: Uint8Array): {
  entries: [string, Entry][];
  metadata: Record<string, string>;
  data: number;
} {
  check("a safetensors file", bytes, BYTES);
  if (bytes.byteLength < 8) {
    fail(`${bytes.byteLength} bytes, of which the first 8 should be the header's length`);
  }
  const length = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  const data = 8 + length;
  if (length > MAX_HEADER || data > bytes.byteLength) {
    fail(`a header of ${length} bytes, in ${bytes.byteLength} bytes in all`);
  }
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes.subarray(8, data));
  } catch {
    return fail("the header is no UTF-8");
  }
  const parsed = parse(text);
  const meta = members("the header", parsed, ["__metadata__"])[0] ?? new Pairs([]);
  const metadata = meta instanceof Pairs ? meta.list : fail("__metadata__ is no object");
  for (const [name, value] of metadata) {
    if (typeof value !== "string") {
      fail(`${name} of __metadata__ is no text`);
    }
  }
  // Of entries of one name the last counts, but each must be one.
  const all = (parsed as Pairs).list.filter(([name]) => name !== "__metadata__");
  const entries = [...new Map(all.map(([name, value]) => [name, entryOf(name, value)]))];
  let at = 0;
  const offsets = ([, { data_offsets }]: [string, Entry]): [number, number] => data_offsets;
  for (const entry of [...entries].sort((a, b) => offsets(a)[0] - offsets(b)[0] || offsets(a)[1] - offsets(b)[1])) {
    const [begin, end] = offsets(entry);
    if (begin !== at) {
      fail(`${entry[0]} begins at byte ${begin} of the data, expected ${at}: entries follow on each other`);
    }
    at = end;
  }
  if (at !== bytes.byteLength - data) {
    fail(`the entries end at byte ${at} of the data, which has ${bytes.byteLength - data}`);
  }
  return { entries, metadata: Object.fromEntries(metadata) as Record<string, string>, data };
}

/**
 * Reads a safetensors file of floats and i64. (State dicts have `Norm.loadSafetensors`.)
 *
 * @throws {BcNormError} `state-dict` for what the format's own library refuses, and for entries of other types.
 */
export function readSafetensors(bytes: Uint8Array): {
  tensors: Record<string, SafeTensor>;
  metadata: Record<string, string>;
} {
  const { entries, metadata, data } = readHeader(bytes);
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
  check("module", module, TEXT);
  const { entries, data } = readHeader(bytes);
  const path = module.replace(/\.+$/, "");
  const prefix = path === "" ? "" : `${path}.`;
  const own = entries.filter(([name]) => name.startsWith(prefix)).sort(([a], [b]) => (a < b ? -1 : 1));
  if (own.length === 0 && path !== "") {
    const modules = new Set(entries.map(([name]) => name.slice(0, Math.max(0, name.lastIndexOf(".")))));
    throw new BcNormError("state-dict", `there is no module "${path}"; there are ${[...modules].sort().join(", ")}`);
  }
  const problems: string[] = [];
  const value = ([name, entry]: [string, Entry]): StateDict[string] | undefined => {
    const { dtype, shape } = entry;
    if (!READ.includes(dtype)) {
      problems.push(`${name} is ${dtype}, expected F16, BF16, F32, F64 or one I64`);
      return undefined;
    }
    const found = values(bytes, data, name, entry);
    if (found instanceof BigInt64Array) {
      if (found.length !== 1) {
        problems.push(`${name} is i64 of shape [${shape.join(", ")}], expected a single value`);
      }
      return found[0];
    }
    const floats = Float32Array.from(found);
    const lost = floats.findIndex((float, index) => !Number.isFinite(float) && Number.isFinite(found[index]));
    if (lost >= 0) {
      problems.push(`${name} has ${found[lost]}, which f32 does not hold`);
    }
    return { dims: shape, values: floats };
  };
  // By pairs: an entry may be called __proto__.
  const dict = own.map((entry) => [entry[0].slice(prefix.length), value(entry)]);
  if (problems.length > 0) {
    throw new BcNormError("state-dict", `the safetensors data: ${problems.join("; ")}`);
  }
  return Object.fromEntries(dict);
}

/**
 * A state dict as a safetensors file: what `safetensors.torch.load_file` reads.
 *
 * @param metadata What the file says of itself, as `save_file` takes it.
 * @throws {BcNormError} `state-dict` for entries whose values do not fill their shape, names that a file cannot hold, and
 * metadata that are no text.
 */
export function writeStateDict(dict: StateDict, metadata: Readonly<Record<string, string>> = {}): Uint8Array {
  checkState(dict);
  for (const [key, value] of Object.entries(metadata)) {
    if (typeof value !== "string" || /\p{Surrogate}/u.test(key + value)) {
      throw new BcNormError("state-dict", `the metadata's ${JSON.stringify(key)} is ${JSON.stringify(value)}, expected text`);
    }
  }
  const parts: Uint8Array[] = [];
  let at = 0;
  // The format's own library puts wider types first, so that all are aligned.
  const names = Object.keys(dict).sort();
  const counts = names.filter((name) => typeof dict[name] === "bigint");
  const entries = [...counts, ...names.filter((name) => !counts.includes(name))].map((name): [string, Entry] => {
    if (name === "__metadata__" || /\p{Surrogate}/u.test(name)) {
      throw new BcNormError("state-dict", `a safetensors file has no entry called ${JSON.stringify(name)}`);
    }
    const value = dict[name] as StateDict[string];
    const count = typeof value === "bigint";
    const data = count ? BigInt64Array.of(value) : value.values;
    const part = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    parts.push(part);
    at += part.byteLength;
    const data_offsets: [number, number] = [at - part.byteLength, at];
    return [name, { dtype: count ? "I64" : "F32", shape: count ? [] : [...value.dims], data_offsets }];
  });
  const meta = Object.keys(metadata).length === 0 ? {} : { __metadata__: metadata };
  const text = new TextEncoder().encode(JSON.stringify({ ...meta, ...Object.fromEntries(entries) }));
  // Padded with spaces to a multiple of 8.
  const head = new Uint8Array(Math.ceil(text.byteLength / 8) * 8).fill(0x20);
  head.set(text);
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
