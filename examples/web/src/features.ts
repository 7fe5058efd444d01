import { Tensor } from "bcnorm";
import { gabor, gaussian, sobel, type Taps, type Term } from "./taps.js";

/** Feature maps of a photograph: the bank of `bcnorm demo`, whose scales differ as much as raw features' do. */
export const NAMES = [
  "red", "green", "blue", "luma",
  "red-green", "yellow-blue", "chroma", "colour edge",
  "blur 1 px", "blur 2 px", "blur 4 px", "blur 8 px",
  "band 1-2 px", "band 2-4 px", "band 4-8 px", "band 8-16 px",
  "Sobel 0°", "Sobel 45°", "Sobel 90°", "Sobel 135°",
  "line 6 px 0°", "line 6 px 45°", "line 6 px 90°", "line 6 px 135°",
  "edge 14 px 0°", "edge 14 px 45°", "edge 14 px 90°", "edge 14 px 135°",
  "Laplacian", "gradient", "variance 2 px", "variance 6 px",
] as const;

export const CHANNELS = NAMES.length;

/** Planes behind the maps, for what comes in between. */
const SCRATCH = 4;
/** Most taps of a filter: of the blur of 16 pixels. */
const MAX_TAPS = 97;
/** Bytes of an operation: ten numbers and its taps, at a multiple of what uniforms lie at. */
const STRIDE = 512;

// One operation on planes of one photograph, one invocation a pixel. Beyond the edge the picture is mirrored.
const WGSL = `
struct Operation {
  kind: u32, first: u32, second: u32, result: u32,
  p: f32, q: f32, radius: u32, size: u32,
  photo: u32, scratch: u32, keep: f32, unused: f32,
  taps: array<vec4<f32>, ${Math.ceil(MAX_TAPS / 4)}>,
}
@group(0) @binding(0) var<uniform> op: Operation;
@group(0) @binding(1) var<storage, read> pixels: array<u32>;
@group(0) @binding(2) var<storage, read_write> planes: array<f32>;

fn plane(index: u32) -> u32 {
  let maps = op.photo * ${CHANNELS}u + index;
  let place = select(maps, op.scratch + index - ${CHANNELS}u, index >= ${CHANNELS}u);
  return place * op.size * op.size;
}

fn mirrored(at: i32) -> u32 {
  let size = i32(op.size);
  var to = at;
  // As often as a filter is wider than the picture.
  for (var i = 0; i < 4; i++) {
    if (to < 0) { to = -1 - to; }
    if (to >= size) { to = 2 * size - 1 - to; }
  }
  return u32(clamp(to, 0, size - 1));
}

@compute @workgroup_size(8, 8) fn operation(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= op.size || id.y >= op.size) { return; }
  let i = id.y * op.size + id.x;
  let result = plane(op.result) + i;
  let a = planes[plane(op.first) + i];
  let b = planes[plane(op.second) + i];
  var value = 0.0;
  switch op.kind {
    case 0u: {
      let rgba = unpack4x8unorm(pixels[op.photo * op.size * op.size + i]);
      value = 255.0 * rgba[op.first];
    }
    case 1u, 2u: {
      for (var k = 0u; k <= 2u * op.radius; k++) {
        let offset = i32(k) - i32(op.radius);
        var at = vec2(mirrored(i32(id.x) + offset), id.y);
        if (op.kind == 2u) { at = vec2(id.x, mirrored(i32(id.y) + offset)); }
        value += op.taps[k / 4u][k % 4u] * planes[plane(op.first) + at.y * op.size + at.x];
      }
    }
    case 3u: { value = op.p * a + op.q * b; }
    case 4u: { value = length(vec2(a, b)); }
    default: { value = (a - b) * (a - b); }
  }
  if (op.keep != 0.0) { value += planes[result]; }
  planes[result] = value;
}`;

const enum Kind { Pixel, Rows, Columns, Linear, Length, Square }

interface Operation {
  kind: Kind;
  first: number;
  second?: number;
  result: number;
  p?: number;
  q?: number;
  taps?: Taps;
  /** Adds to what is there. */
  add?: boolean;
}

/** The bank as operations on planes: maps by their number, scratch planes behind them. */
function bank(): Operation[] {
  const [s0, s1, s2, s3] = [CHANNELS, CHANNELS + 1, CHANNELS + 2, CHANNELS + 3];
  const luma = 3;
  const list: Operation[] = [];
  const linear = (first: number, second: number, result: number, p: number, q: number): void => {
    list.push({ kind: Kind.Linear, first, second, result, p, q });
  };
  const filter = (first: number, terms: readonly Term[], result: number): void => {
    terms.forEach(({ row, column }, index) => {
      list.push({ kind: Kind.Rows, first, result: s0, taps: row });
      list.push({ kind: Kind.Columns, first: s0, result, taps: column, add: index > 0 });
    });
  };
  const blur = (first: number, sigma: number, result: number): void => {
    filter(first, [{ row: gaussian(sigma), column: gaussian(sigma) }], result);
  };
  const gradient = (first: number, result: number): void => {
    filter(first, sobel(0), s1);
    filter(first, sobel(90), s2);
    list.push({ kind: Kind.Length, first: s1, second: s2, result });
  };
  for (const channel of [0, 1, 2]) {
    list.push({ kind: Kind.Pixel, first: channel, result: channel });
  }
  // Rec. 601.
  linear(0, 1, luma, 0.299, 0.587);
  linear(luma, 2, luma, 1, 0.114);
  linear(0, 1, 4, 1, -1);
  linear(0, 1, 5, 0.5, 0.5);
  linear(5, 2, 5, 1, -1);
  list.push({ kind: Kind.Length, first: 4, second: 5, result: 6 });
  gradient(4, s3);
  gradient(5, 7);
  list.push({ kind: Kind.Length, first: s3, second: 7, result: 7 });
  [1, 2, 4, 8].forEach((sigma, i) => blur(luma, sigma, 8 + i));
  blur(luma, 16, s1);
  [0, 1, 2, 3].forEach((i) => linear(8 + i, i === 3 ? s1 : 9 + i, 12 + i, 1, -1));
  [0, 45, 90, 135].forEach((degrees, i) => {
    filter(luma, sobel(degrees), 16 + i);
    filter(luma, gabor(6, degrees, "line"), 20 + i);
    filter(luma, gabor(14, degrees, "edge"), 24 + i);
  });
  const second = [1, -2, 1];
  filter(luma, [{ row: second, column: [1] }, { row: [1], column: second }], 28);
  gradient(luma, 29);
  [2, 6].forEach((sigma, i) => {
    blur(luma, sigma, s1);
    list.push({ kind: Kind.Square, first: luma, second: s1, result: s2 });
    blur(s2, sigma, 30 + i);
  });
  return list;
}

/** Computes the maps of photographs of one size into a tensor (N, 32, size, size). */
export class Features {
  /** The maps. */
  readonly x: Tensor;
  private readonly operations = bank();
  private readonly pixels: GPUBuffer;
  private readonly uniforms: GPUBuffer;
  private readonly group: GPUBindGroup;

  private constructor(
    private readonly device: GPUDevice,
    private readonly pipeline: GPUComputePipeline,
    layout: GPUBindGroupLayout,
    readonly samples: number,
    readonly size: number,
  ) {
    const area = size * size;
    const { STORAGE, COPY_SRC, COPY_DST, UNIFORM } = GPUBufferUsage;
    const planes = device.createBuffer({
      label: "maps",
      // The scratch planes of all photographs are the same.
      size: 4 * area * (samples * CHANNELS + SCRATCH),
      usage: STORAGE | COPY_SRC,
    });
    this.x = new Tensor(planes, [samples, CHANNELS, size, size]);
    this.pixels = device.createBuffer({
      label: "pixels",
      size: 4 * area * samples,
      usage: STORAGE | COPY_DST,
    });
    this.uniforms = device.createBuffer({
      label: "operations",
      size: STRIDE * this.operations.length * samples,
      usage: UNIFORM | COPY_DST,
    });
    device.queue.writeBuffer(this.uniforms, 0, this.encoded());
    this.group = device.createBindGroup({
      layout,
      entries: [
        { binding: 0, resource: { buffer: this.uniforms, size: STRIDE } },
        { binding: 1, resource: { buffer: this.pixels } },
        { binding: 2, resource: { buffer: planes } },
      ],
    });
  }

  static async create(device: GPUDevice, samples: number, size: number): Promise<Features> {
    const visibility = GPUShaderStage.COMPUTE;
    const layout = device.createBindGroupLayout({
      entries: [
        { binding: 0, visibility, buffer: { type: "uniform", hasDynamicOffset: true } },
        { binding: 1, visibility, buffer: { type: "read-only-storage" } },
        { binding: 2, visibility, buffer: { type: "storage" } },
      ],
    });
    const pipeline = await device.createComputePipelineAsync({
      layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }),
      compute: { module: device.createShaderModule({ code: WGSL }) },
    });
    return new Features(device, pipeline, layout, samples, size);
  }

  private encoded(): ArrayBuffer {
    const { operations, samples, size } = this;
    const bytes = new ArrayBuffer(STRIDE * operations.length * samples);
    for (let photo = 0; photo < samples; photo++) {
      operations.forEach((operation, index) => {
        const at = STRIDE * (photo * operations.length + index);
        const words = new Uint32Array(bytes, at, STRIDE / 4);
        const floats = new Float32Array(bytes, at, STRIDE / 4);
        const { kind, first, second = 0, result, p = 0, q = 0, taps = [0], add = false } = operation;
        words.set([kind, first, second, result], 0);
        floats.set([p, q], 4);
        words.set([(taps.length - 1) / 2, size, photo, samples * CHANNELS], 6);
        floats[10] = Number(add);
        floats.set(taps, 12);
      });
    }
    return bytes;
  }

  /** Gives the pixels of a photograph. */
  load(photo: number, image: ImageData): void {
    const offset = 4 * this.size * this.size * photo;
    this.device.queue.writeBuffer(this.pixels, offset, image.data as Uint8ClampedArray<ArrayBuffer>);
  }

  /** Records the maps of some photographs. */
  encode(encoder: GPUCommandEncoder, photos: Iterable<number>): void {
    const pass = encoder.beginComputePass({ label: "features" });
    pass.setPipeline(this.pipeline);
    const groups = Math.ceil(this.size / 8);
    for (const photo of photos) {
      for (let index = 0; index < this.operations.length; index++) {
        pass.setBindGroup(0, this.group, [STRIDE * (photo * this.operations.length + index)]);
        pass.dispatchWorkgroups(groups, groups);
      }
    }
    pass.end();
  }

  destroy(): void {
    this.x.destroy();
    this.pixels.destroy();
    this.uniforms.destroy();
  }
}
