/** Measures BCNorm in training against a copy kernel and the op-by-op composition, on one device in one run. */
import { BcNorm, Tensor, type Saved } from "bcnorm";
import { composition } from "./composition.js";
import { dispatch, shader, type Dispatch } from "./kernels.js";
import { problem, reference, worst } from "./reference.js";

export interface Measured {
  readonly dims: readonly number[];
  readonly forwardMs: number;
  readonly backwardMs: number;
  /** Evaluation with the running statistics, without a backward to follow. */
  readonly evalMs: number;
  /** Of the fastest copy kernel. */
  readonly copyMs: number;
  readonly compositionForwardMs: number;
  readonly compositionBackwardMs: number;
  /** Largest error of any output against f64. */
  readonly error: number;
}

export interface Options {
  readonly dims: readonly number[];
  readonly groups: number;
  /** Rounds whose median counts. */
  readonly repeats?: number;
  readonly signal?: AbortSignal;
}

/** A result further from f64 than this is not timed: the library's bar, and what f32 sums of squares allow. */
const [BAR, COMPOSITION_BAR] = [5e-6, 1e-3];

/** Milliseconds that a timed submission should take: clocks of browsers are coarse. */
const BATCH_MS = 60;

/** Something that is timed. */
interface Candidate {
  readonly name: string;
  readonly record: (encoder: GPUCommandEncoder) => void;
}

const COPIES = [8, 32, 64, 128, 256];

export function isSoftware(device: GPUDevice): boolean {
  const { architecture = "", isFallbackAdapter = false } = device.adapterInfo ?? {};
  return isFallbackAdapter || architecture.includes("swiftshader");
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return ((sorted[middle] ?? 0) + (sorted[Math.ceil(sorted.length / 2) - 1] ?? 0)) / 2;
}

/** Wall time of one run, of so many in one submission. */
async function time(device: GPUDevice, { record }: Candidate, count: number): Promise<number> {
  const encoder = device.createCommandEncoder();
  for (let i = 0; i < count; i++) {
    record(encoder);
  }
  const commands = encoder.finish();
  await device.queue.onSubmittedWorkDone();
  const start = performance.now();
  device.queue.submit([commands]);
  await device.queue.onSubmittedWorkDone();
  return (performance.now() - start) / count;
}

/** Medians of candidates that take turns, so that what disturbs one disturbs all. */
async function medians(
  device: GPUDevice,
  candidates: readonly Candidate[],
  rounds: number,
  signal?: AbortSignal,
): Promise<Map<string, number>> {
  const counts = new Map<string, number>();
  for (const candidate of candidates) {
    // The first run warms up.
    await time(device, candidate, 1);
    const once = await time(device, candidate, 2);
    counts.set(candidate.name, Math.max(1, Math.min(200, Math.ceil(BATCH_MS / Math.max(once, 0.05)))));
  }
  const times = new Map<string, number[]>(candidates.map(({ name }) => [name, []]));
  for (let round = 0; round < rounds; round++) {
    for (const candidate of candidates) {
      signal?.throwIfAborted();
      times.get(candidate.name)?.push(await time(device, candidate, counts.get(candidate.name) ?? 1));
    }
  }
  return new Map([...times].map(([name, all]) => [name, median(all)]));
}

async function read(device: GPUDevice, buffer: GPUBuffer, len: number): Promise<Float32Array> {
  return new Tensor(buffer, [len]).read(device);
}

/** Frees what it takes, also where it is stopped. */
export async function measure(device: GPUDevice, options: Options): Promise<Measured> {
  const owned: { destroy(): void }[] = [];
  try {
    return await measured(device, options, owned);
  } finally {
    owned.forEach((one) => one.destroy());
  }
}

async function measured(device: GPUDevice, options: Options, owned: { destroy(): void }[]): Promise<Measured> {
  const { dims, groups, repeats = 7, signal } = options;
  const [, channels = 1] = dims;
  const p = problem(dims, groups);
  const expected = reference(p);
  const software = isSoftware(device);

  const norm = await BcNorm.create(device, { numChannels: channels, numGroups: groups });
  owned.push(norm);
  const one = { dims: [channels] };
  norm.loadStateDict({
    weight: { dims: [groups], values: p.weight },
    bias: { dims: [groups], values: p.bias },
    "bn.weight": { ...one, values: p.bnWeight },
    "bn.bias": { ...one, values: p.bnBias },
    "bn.running_mean": { ...one, values: new Float32Array(channels) },
    "bn.running_var": { ...one, values: new Float32Array(channels).fill(1) },
    "bn.num_batches_tracked": 0n,
  });
  const [x, gradY] = [Tensor.from(device, dims, p.x), Tensor.from(device, dims, p.gradY)];
  const [y, gradX, evalY] = [Tensor.zeros(device, dims), Tensor.zeros(device, dims), Tensor.zeros(device, dims)];
  owned.push(x, gradY, y, gradX, evalY);
  await norm.prepare(x);
  let saved: Saved | undefined;
  const forward = (encoder: GPUCommandEncoder): void => {
    saved?.dispose();
    ({ saved } = norm.recordForward(encoder, { x, y }));
  };
  const backward = (encoder: GPUCommandEncoder): void => {
    if (saved !== undefined) {
      norm.recordBackward(encoder, saved, { gradY, gradX });
    }
  };
  const backwardAlone = (encoder: GPUCommandEncoder): void => {
    // Its forward is never submitted: an earlier one left the same in the same tables.
    forward(device.createCommandEncoder());
    backward(encoder);
  };
  const submit = (...records: ((encoder: GPUCommandEncoder) => void)[]): void => {
    const encoder = device.createCommandEncoder();
    records.forEach((record) => record(encoder));
    device.queue.submit([encoder.finish()]);
  };
  const pass = (work: Dispatch) => (encoder: GPUCommandEncoder) => {
    const into = encoder.beginComputePass();
    work(into);
    into.end();
  };

  submit(forward, backward);
  const got: Record<string, Float32Array> = { y: await y.read(device), grad_x: await gradX.read(device) };
  for (const [name, len] of [["weight", groups], ["bias", groups], ["bn.weight", channels], ["bn.bias", channels]] as const) {
    const buffer = norm.buffer(`grad_${name}`);
    if (buffer !== undefined) {
      got[`grad_${name}`] = await read(device, buffer, len);
    }
  }
  const error = worst(expected, got);
  if (!(error <= BAR)) {
    throw new Error(`bcnorm's results for [${dims.join(", ")}] are off by ${error.toExponential(1)}, so they are not timed`);
  }

  const ops = await composition(device, p, software);
  owned.push(...ops.buffers);
  submit(pass(ops.forward), pass(ops.backward));
  const others: Record<string, Float32Array> = {};
  for (const [name, { buffer, stride, first, len }] of Object.entries(ops.outputs)) {
    const values = await read(device, buffer, len * stride);
    others[name] = values.filter((_, i) => i % stride === first);
  }
  const otherError = worst(expected, others);
  if (!(otherError <= COMPOSITION_BAR)) {
    throw new Error(`the composition's results for [${dims.join(", ")}] are off by ${otherError.toExponential(1)}`);
  }

  const copy = await shader("copy");
  const copies = COPIES.map((size): Candidate => {
    const words = Math.ceil(p.x.length / 4);
    const code = `const WORKGROUP_SIZE: u32 = ${size}u;\n${copy}`;
    const buffers = [[0, x.buffer], [1, evalY.buffer]] as const;
    const work = dispatch(device, "copy", code, buffers, Math.ceil(words / size));
    return { name: `copy ${size}`, record: pass(work) };
  });
  submit(...copies.map(({ record }) => record));
  if (!(await evalY.read(device)).every((value, i) => value === p.x[i])) {
    throw new Error("a copy kernel does not copy, so it is not timed");
  }

  const training: Candidate[] = [
    { name: "forward", record: forward },
    { name: "backward", record: backwardAlone },
    { name: "composition forward", record: pass(ops.forward) },
    { name: "composition backward", record: pass(ops.backward) },
  ];
  const found = await medians(device, [...copies, ...training], repeats, signal);
  norm.eval();
  norm.setGradEnabled(false);
  const evaluation = { name: "eval", record: (encoder: GPUCommandEncoder): void => void norm.recordForward(encoder, { x, y: evalY }) };
  const evaluated = await medians(device, [evaluation], repeats, signal);
  const of = (name: string): number => found.get(name) ?? Number.NaN;
  return {
    dims,
    forwardMs: of("forward"),
    backwardMs: of("backward"),
    evalMs: evaluated.get("eval") ?? Number.NaN,
    copyMs: Math.min(...copies.map(({ name }) => of(name))),
    compositionForwardMs: of("composition forward"),
    compositionBackwardMs: of("composition backward"),
    error,
  };
}
