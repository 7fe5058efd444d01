/**
 * BCNorm as an eager framework dispatches it, op by op, each a pass of its own over tensor-sized data: the baseline
 * for what fusing them gains. The ops are those of cli/src/bench/composition.rs, in the same texts.
 */
import { dispatch, shader, upload, type Dispatch } from "./kernels.js";
import { EPS, type Problem } from "./reference.js";

/** A tensor seen as rows: `channels` of them a sample. */
interface View {
  readonly samples: number;
  readonly channels: number;
  readonly len: number;
}

/** How an op's rows are shared out. */
interface Split {
  readonly lanes: number;
  readonly parts: number;
  readonly words: number;
}

type Bound = readonly (readonly [number, GPUBuffer])[];

/** The ops: their kernels, and what they bind of the tables, by number. */
const OPS: Record<string, readonly ["reduce" | "fold" | "map", readonly number[]]> = {
  statistics: ["reduce", []],
  products: ["reduce", [3]],
  sum: ["reduce", []],
  fold_statistics: ["fold", []],
  fold_products: ["fold", [3, 9]],
  fold_sum: ["fold", []],
  normalize: ["map", [3, 4, 5]],
  normalize_plain: ["map", [3]],
  scale: ["map", [4]],
  shift: ["map", [5]],
  multiply: ["map", []],
  gradient: ["map", [3, 4, 6]],
  gradient_plain: ["map", [3, 6]],
};

export interface Composition {
  readonly forward: Dispatch;
  readonly backward: Dispatch;
  /** What it leaves, by the names of {@link reference}. */
  readonly outputs: Record<string, { buffer: GPUBuffer; stride: 1 | 2; first: 0 | 1; len: number }>;
  readonly buffers: readonly GPUBuffer[];
}

/** Makes both directions of a problem. */
export async function composition(device: GPUDevice, p: Problem, software: boolean): Promise<Composition> {
  const names = ["common", "reduce", "fold", "map", "tree", "alone", "ops"];
  const texts = await Promise.all(names.map((name) => shader(`composition/${name}`)));
  const [common = "", reduceMain = "", foldMain = "", mapMain = "", tree = "", alone = "", ops = ""] = texts;
  const sections = new Map(
    ops.split("//! ").map((section): [string, string] => {
      const end = section.indexOf("\n");
      return [section.slice(0, end), section.slice(end)];
    }),
  );
  const size = software ? 32 : 128;
  const [samples = 1, channels = 1] = p.dims;
  const len = p.x.length / samples / channels;
  const whole: View = { samples, channels, len };
  const grouped: View = { samples: 1, channels: samples * p.groups, len: (len * channels) / p.groups };
  const affine: View = { ...grouped, samples, channels: p.groups };

  const owned: GPUBuffer[] = [];
  const own = (values: Float32Array | Uint32Array, usage = 0): GPUBuffer => {
    const buffer = upload(device, values, usage);
    owned.push(buffer);
    return buffer;
  };
  const made = (): GPUBuffer => own(new Float32Array(p.x.length));
  const table = (entries: number): GPUBuffer => own(new Float32Array(2 * entries));

  const split = (view: View, reduces: boolean): Split => {
    const words = Math.max(1, Math.floor(view.len / 4));
    const power = 2 ** Math.ceil(Math.log2(Math.max(1, Math.ceil(words / 2))));
    const [wanted, least, lanes] = software ? [512, 64, 1] : [1 << 17, 4, Math.min(power, size)];
    const most = reduces ? 1024 : least;
    const parts = Math.ceil(wanted / lanes / (view.samples * view.channels));
    const perPart = Math.min(most * lanes, Math.max(least * lanes, Math.ceil(words / parts)));
    return { lanes, parts: Math.ceil(words / perPart), words: perPart };
  };

  let sequence: Dispatch[] = [];
  const op = (name: string, view: View, shared: Split, tensors: Bound, tables: Bound): void => {
    const [kernel, numbers] = OPS[name] ?? ["map", []];
    const folds = kernel === "fold";
    const entries = view.samples * shared.parts;
    const lanes = !folds ? shared.lanes : software ? 1 : Math.min(size, 2 ** Math.ceil(Math.log2(entries)));
    const items = folds ? view.channels : view.samples * view.channels * shared.parts;
    const gather = kernel === "map" ? "" : lanes === 1 ? alone : tree;
    const main = { reduce: reduceMain, fold: foldMain, map: mapMain }[kernel];
    const code =
      `const WORKGROUP_SIZE: u32 = ${size}u;\nconst LANES: u32 = ${lanes}u;\n${common}\n` +
      `struct Terms { first: vec4<f32>, second: vec4<f32> }\n${gather}\n${sections.get(name) ?? ""}\n${main}`;
    const numbers32 = new Uint32Array(8);
    const { samples: n, channels: c } = view;
    numbers32.set([n * c, view.len, c, n, shared.parts, shared.words]);
    new Float32Array(numbers32.buffer).set([n * view.len, EPS], 6);
    const uniform = own(numbers32, GPUBufferUsage.UNIFORM);
    const bound = tables.filter(([number]) => numbers.includes(number) || number === 8 || (folds && number === 7));
    const buffers: Bound = [[0, uniform], ...tensors, ...bound];
    sequence.push(dispatch(device, kernel, code, buffers, Math.ceil((items * lanes) / size)));
  };
  const reduce = (
    first: string,
    then: string,
    view: View,
    tensors: Bound,
    tables: Bound,
    results: Bound,
  ): void => {
    const shared = split(view, true);
    const parts = table(view.samples * view.channels * shared.parts);
    op(first, view, shared, tensors, [...tables, [8, parts]]);
    op(then, view, shared, [], [...tables, [7, parts], ...results]);
  };
  const map = (name: string, view: View, tensors: Bound, tables: Bound): void =>
    op(name, view, split(view, false), tensors, tables);
  const take = (): Dispatch => {
    const dispatches = sequence;
    sequence = [];
    return (pass) => dispatches.forEach((one) => one(pass));
  };

  const [x, dy] = [own(p.x), own(p.gradY)];
  const [z, zHat, scratch, y, dx] = [made(), made(), made(), made(), made()];
  const [bnWeight, bnBias, weight, bias] = [own(p.bnWeight), own(p.bnBias), own(p.weight), own(p.bias)];
  const [batch, group] = [table(channels), table(samples * p.groups)];
  const [channelMeans, groupMeans, unused] = [table(channels), table(samples * p.groups), table(samples * p.groups)];
  const [ofChannel, ofBias, ofWeight] = [table(channels), table(p.groups), table(p.groups)];

  // out = batch_norm(x): 3 transfers.
  reduce("statistics", "fold_statistics", whole, [[1, x]], [], [[8, batch]]);
  map("normalize", whole, [[1, x], [10, z]], [[3, batch], [4, bnWeight], [5, bnBias]]);
  // out = batch_norm(out, groups as channels): 3; out = weight * out: 2; out = out + bias: 2.
  reduce("statistics", "fold_statistics", grouped, [[1, z]], [], [[8, group]]);
  map("normalize_plain", grouped, [[1, z], [10, zHat]], [[3, group]]);
  map("scale", affine, [[1, zHat], [10, scratch]], [[4, weight]]);
  map("shift", affine, [[1, scratch], [10, y]], [[5, bias]]);
  const forward = take();

  // Backward overwrites what lies in y, as an allocator that reuses memory would.
  const dz = made();
  // Of + bias: 1. Of weight * out: dy * weight, 2; dy * out, 3, and its sum, 1.
  reduce("sum", "fold_sum", affine, [[1, dy]], [], [[8, ofBias]]);
  map("scale", affine, [[1, dy], [10, scratch]], [[4, weight]]);
  map("multiply", affine, [[1, zHat], [2, dy], [10, dx]], []);
  reduce("sum", "fold_sum", affine, [[1, dx]], [], [[8, ofWeight]]);
  // Of each batch norm: a reduction over dy and x, 2, and the gradient, 3.
  reduce("products", "fold_products", grouped, [[1, z], [2, scratch]], [[3, group]], [[8, groupMeans], [9, unused]]);
  map("gradient_plain", grouped, [[1, z], [2, scratch], [10, dz]], [[3, group], [6, groupMeans]]);
  reduce("products", "fold_products", whole, [[1, x], [2, dz]], [[3, batch]], [[8, channelMeans], [9, ofChannel]]);
  map("gradient", whole, [[1, x], [2, dz], [10, dx]], [[3, batch], [4, bnWeight], [6, channelMeans]]);
  const backward = take();

  const count = p.x.length;
  return {
    forward,
    backward,
    outputs: {
      y: { buffer: y, stride: 1, first: 0, len: count },
      grad_x: { buffer: dx, stride: 1, first: 0, len: count },
      "grad_bn.bias": { buffer: ofChannel, stride: 2, first: 0, len: channels },
      "grad_bn.weight": { buffer: ofChannel, stride: 2, first: 1, len: channels },
      grad_bias: { buffer: ofBias, stride: 2, first: 0, len: p.groups },
      grad_weight: { buffer: ofWeight, stride: 2, first: 0, len: p.groups },
    },
    buffers: owned,
  };
}
