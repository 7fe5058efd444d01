import { bank, CHANNELS, cost, MAX_TAPS, SCRATCH } from "./bank.js";
import type { Work } from "./engine.js";

/** Bytes of an operation: nine numbers and its taps, at a multiple of what uniforms lie at. */
const STRIDE = 512;

/** A submission takes about so long, in milliseconds: a slow device says how far it is, and stops when asked. */
const [SHORT, LONG] = [25, 100];

// One operation on planes of one photograph, one invocation a pixel. Beyond the edge the picture is mirrored.
const WGSL = `
struct Operation {
  kind: u32, first: u32, second: u32, result: u32,
  p: f32, q: f32, radius: u32, size: u32,
  keep: f32,
  taps: array<vec4<f32>, ${Math.ceil(MAX_TAPS / 4)}>,
}
@group(0) @binding(0) var<uniform> op: Operation;
@group(0) @binding(1) var<storage, read> pixels: array<u32>;
@group(0) @binding(2) var<storage, read_write> planes: array<f32>;

fn plane(index: u32) -> u32 {
  return index * op.size * op.size;
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
      let rgba = unpack4x8unorm(pixels[i]);
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

/** Computes the maps of photographs of one size. */
export class Features {
  private readonly operations = bank();
  private readonly pixels: GPUBuffer;
  private readonly uniforms: GPUBuffer;

  private constructor(
    private readonly device: GPUDevice,
    private readonly pipeline: GPUComputePipeline,
    private readonly layout: GPUBindGroupLayout,
    readonly size: number,
  ) {
    const { STORAGE, COPY_DST, UNIFORM } = GPUBufferUsage;
    this.pixels = device.createBuffer({ label: "pixels", size: 4 * size * size, usage: STORAGE | COPY_DST });
    const uniforms = this.encoded();
    this.uniforms = device.createBuffer({
      label: "operations",
      size: uniforms.byteLength,
      usage: UNIFORM | COPY_DST,
    });
    device.queue.writeBuffer(this.uniforms, 0, uniforms);
  }

  static async create(device: GPUDevice, size: number): Promise<Features> {
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
    return new Features(device, pipeline, layout, size);
  }

  private encoded(): ArrayBuffer {
    const { operations, size } = this;
    const bytes = new ArrayBuffer(STRIDE * operations.length);
    operations.forEach((operation, index) => {
      const at = STRIDE * index;
      const words = new Uint32Array(bytes, at, STRIDE / 4);
      const floats = new Float32Array(bytes, at, STRIDE / 4);
      const { kind, first, second = 0, result, p = 0, q = 0, taps = [0], add = false } = operation;
      words.set([kind, first, second, result], 0);
      floats.set([p, q], 4);
      words.set([(taps.length - 1) / 2, size], 6);
      floats[8] = Number(add);
      floats.set(taps, 12);
    });
    return bytes;
  }

  /** The maps of a photograph, (32, size, size), at the beginning of a buffer. */
  async compute(image: ImageData, name: string, { signal, at }: Work): Promise<GPUBuffer> {
    const { device, size, operations } = this;
    const planes = device.createBuffer({
      label: "maps",
      size: 4 * size * size * (CHANNELS + SCRATCH),
      usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC,
    });
    try {
      device.queue.writeBuffer(this.pixels, 0, image.data as Uint8ClampedArray<ArrayBuffer>);
      const resources = [{ buffer: this.uniforms, size: STRIDE }, { buffer: this.pixels }, { buffer: planes }];
      const entries = resources.map((resource, binding) => ({ binding, resource }));
      const group = device.createBindGroup({ layout: this.layout, entries });
      const groups = Math.ceil(size / 8);
      const costs = operations.map(cost);
      const total = costs.reduce((sum, one) => sum + one, 0);
      let [next, spent, budget] = [0, 0, 32];
      while (next < costs.length) {
        signal.throwIfAborted();
        at(`Computing the maps of ${name}`, spent / total);
        const encoder = device.createCommandEncoder();
        const pass = encoder.beginComputePass({ label: "features" });
        pass.setPipeline(this.pipeline);
        const before = spent;
        do {
          pass.setBindGroup(0, group, [STRIDE * next]);
          pass.dispatchWorkgroups(groups, groups);
          spent += costs[next++] ?? 0;
        } while (next < costs.length && spent < before + budget);
        pass.end();
        const start = performance.now();
        device.queue.submit([encoder.finish()]);
        await device.queue.onSubmittedWorkDone();
        const took = performance.now() - start;
        budget *= took < SHORT ? 2 : took > LONG ? 0.5 : 1;
      }
      return planes;
    } catch (error) {
      planes.destroy();
      throw error;
    }
  }

  destroy(): void {
    this.pixels.destroy();
    this.uniforms.destroy();
  }
}
