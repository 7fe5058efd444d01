import type { NormKind, NormOptions, StateDict } from "bcnorm";
import { initCpu, runOnCpu } from "bcnorm/cpu";
import { CHANNELS } from "./bank.js";
import { featuresOnCpu } from "./cpu-features.js";
import { breathe } from "./dom.js";
import { BINS, COLUMNS, GAP, OUTPUTS, part, pixelsAcross } from "./engine.js";
import type { Engine, Layer, MapStats, Picture, Range, View, Which, Work } from "./engine.js";

/** What lies between two maps of a mosaic, as in draw.ts. */
const GROUND = [31, 33, 36] as const;

/** The page's work on the CPU, by the package's CPU module in WebAssembly: for browsers without WebGPU. */
export class CpuEngine implements Engine {
  private size = 0;
  private samples = 0;
  /** Maps by their photographs, of one size. */
  private held = { size: 0, maps: new Map<object, Float32Array>() };
  private values = new Map<Which, Float32Array>();

  /** @throws {BcNormError} `not-initialized`, where the module cannot be loaded. */
  static async create(): Promise<CpuEngine> {
    await initCpu();
    return new CpuEngine();
  }

  async compute(pictures: readonly Picture[], size: number, layers: readonly Layer[], work: Work): Promise<number[]> {
    const before = await this.load(pictures, size, part(work, 0, 0.7));
    const dims = [pictures.length, CHANNELS, size, size];
    const next = new Map<Which, Float32Array>([["before", before]]);
    const took: number[] = [];
    for (const [index, layer] of layers.entries()) {
      const share = part(work, 0.7 + (0.3 * index) / layers.length, 0.7 + (0.3 * (index + 1)) / layers.length);
      const { y, ms } = await normalize(before, dims, layer, share);
      next.set(OUTPUTS[index] ?? "after", y);
      took.push(ms);
    }
    [this.size, this.samples, this.values] = [size, pictures.length, next];
    return took;
  }

  /** The maps of photographs, one after the other. */
  private async load(pictures: readonly Picture[], size: number, work: Work): Promise<Float32Array> {
    if (this.held.size !== size) {
      this.held = { size, maps: new Map() };
    }
    const each = CHANNELS * size * size;
    const all = new Float32Array(pictures.length * each);
    const used = new Map<object, Float32Array>();
    for (const [n, { key, name, pixels }] of pictures.entries()) {
      const share = part(work, n / pictures.length, (n + 1) / pictures.length);
      const maps = this.held.maps.get(key) ?? (await featuresOnCpu(pixels(size), name, share));
      this.held.maps.set(key, maps);
      used.set(key, maps);
      all.set(maps, n * each);
    }
    this.held.maps = used;
    return all;
  }

  private maps(which: Which): Float32Array {
    const found = this.values.get(which);
    if (found === undefined) {
      throw new Error(`there are no maps "${which}" yet`);
    }
    return found;
  }

  async measure(which: Which, range?: Range): Promise<MapStats[]> {
    const maps = this.maps(which);
    const area = this.size * this.size;
    return Array.from({ length: CHANNELS }, (_, channel) => {
      const planes = Array.from({ length: this.samples }, (_, photo) => {
        const first = (photo * CHANNELS + channel) * area;
        return maps.subarray(first, first + area);
      });
      return measured(planes, range);
    });
  }

  async draw(views: readonly View[]): Promise<void> {
    for (const { canvas, which, photo, ranges, only } of views) {
      const side = pixelsAcross(canvas);
      const picture = new ImageData(side, side);
      const maps = this.maps(which);
      const columns = only === undefined ? COLUMNS : 1;
      const gap = only === undefined ? GAP : 0;
      const { size } = this;
      // Where a pixel's column lies: in which map of a row of maps, and where in that; the same for rows.
      const places = Array.from({ length: side }, (_, i) => {
        const cell = ((i + 0.5) / side) * columns;
        const inner = ((cell % 1) - gap) / (1 - 2 * gap);
        return { cell: Math.floor(cell), at: inner < 0 || inner >= 1 ? -1 : Math.floor(inner * size) };
      });
      places.forEach((row, y) => {
        places.forEach((column, x) => {
          const channel = only ?? row.cell * columns + column.cell;
          const [low = 0, high = 0] = ranges[channel] ?? [];
          let color: readonly number[] = GROUND;
          if (channel < CHANNELS && row.at >= 0 && column.at >= 0) {
            const value = maps[((photo * CHANNELS + channel) * size + row.at) * size + column.at] ?? 0;
            const gray = high > low ? Math.round((255 * (value - low)) / (high - low)) : 128;
            color = [gray, gray, gray];
          }
          picture.data.set([...color, 255], 4 * (y * side + x));
        });
      });
      canvas.width = side;
      canvas.height = side;
      canvas.getContext("2d")?.putImageData(picture, 0, 0);
    }
  }

  async read(which: Which): Promise<Float32Array> {
    return this.maps(which).slice();
  }
}

/** What layers without parameters are told: those of a new one are 1 and 0, which change nothing. */
export function withoutParameters(kind: NormKind): NormOptions {
  const one = { weight: false, bias: false };
  return kind === "bc_norm" ? { ...one, bnWeight: false, bnBias: false } : one;
}

async function normalize(
  x: Float32Array,
  dims: readonly number[],
  layer: Layer,
  { signal, at }: Work,
): Promise<{ y: Float32Array; ms: number }> {
  const { kind, before, training } = layer;
  const options = { ...layer.options, ...withoutParameters(kind) };
  let state: StateDict | undefined;
  let ms = 0;
  const forward = async (training: boolean): Promise<Record<string, Float32Array>> => {
    await breathe();
    signal.throwIfAborted();
    const start = performance.now();
    const outputs = runOnCpu(kind, options, { dims, x, training, ...(state === undefined ? {} : { state }) });
    ms = performance.now() - start;
    return outputs;
  };
  for (let step = 0; step < before; step++) {
    at(`Training step ${step + 1} of ${before}`, step / before);
    state = stateAfter(layer, await forward(true));
  }
  const { y = new Float32Array(0) } = await forward(training);
  return { y, ms };
}

/** The state of a layer without parameters, of what a call of it left. */
function stateAfter({ options: { movingSpeed } }: Layer, outputs: Record<string, Float32Array>): StateDict {
  const prefix = "bn.running_mean" in outputs ? "bn." : "";
  const state: StateDict = { [`${prefix}num_batches_tracked`]: 0n };
  for (const name of [`${prefix}running_mean`, `${prefix}running_var`]) {
    const values = outputs[name] ?? new Float32Array(0);
    state[name] = { dims: [values.length], values };
  }
  if (movingSpeed !== undefined) {
    state[`${prefix}estbn_moving_speed`] = { dims: [1], values: Float32Array.of(movingSpeed) };
  }
  return state;
}

/** Of the planes of one map. */
function measured(planes: readonly Float32Array[], range?: Range): MapStats {
  const count = planes.reduce((sum, { length }) => sum + length, 0);
  let [sum, min, max] = [0, Infinity, -Infinity];
  for (const plane of planes) {
    for (const value of plane) {
      sum += value;
      min = Math.min(min, value);
      max = Math.max(max, value);
    }
  }
  const mean = sum / count;
  const [low, high] = range ?? [min, max];
  const bins = new Uint32Array(BINS);
  let spread = 0;
  for (const plane of planes) {
    for (const value of plane) {
      spread += (value - mean) ** 2;
      const bin = high > low ? Math.floor(((value - low) / (high - low)) * BINS) : 0;
      const within = Math.min(BINS - 1, Math.max(0, bin));
      bins[within] = (bins[within] ?? 0) + 1;
    }
  }
  return { mean, variance: spread / count, min, max, bins };
}
