import type { Tensor } from "bcnorm";
import { COLUMNS, GAP, pixelsAcross, type View as Wanted } from "./engine.js";

/** A canvas, and the tensor that goes onto it. */
export type View = Omit<Wanted, "which"> & { readonly maps: Tensor };

/** Bytes between the views' uniforms, and of one: eight numbers and 32 ranges. */
const [STRIDE, BYTES] = [512, 32 + 8 * 32];

// One invocation a pixel of a picture. A mosaic's pixel finds its map, and its place in it.
const WGSL = `
struct View {
  channels: u32, size: u32, photo: u32, columns: u32,
  only: i32, gap: f32, pixels: u32, first: u32,
  // Two maps' black and white each.
  ranges: array<vec4<f32>, 16>,
}
@group(0) @binding(0) var<uniform> view: View;
@group(0) @binding(1) var<storage, read> maps: array<f32>;
@group(0) @binding(2) var<storage, read_write> picture: array<u32>;

@compute @workgroup_size(8, 8) fn draw(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= view.pixels || id.y >= view.pixels) { return; }
  let at = (vec2<f32>(id.xy) + 0.5) / f32(view.pixels);
  let cell = at * f32(view.columns);
  let channel = select(u32(cell.y) * view.columns + u32(cell.x), u32(view.only), view.only >= 0);
  let inner = (fract(cell) - view.gap) / (1.0 - 2.0 * view.gap);
  let within = all(inner >= vec2(0.0)) && all(inner < vec2(1.0)) && channel < view.channels;
  let pixel = vec2<u32>(clamp(inner, vec2(0.0), vec2(0.999)) * f32(view.size));
  let map = min(channel, view.channels - 1u);
  let plane = view.photo * view.channels + map;
  let value = maps[(plane * view.size + pixel.y) * view.size + pixel.x];
  let pair = view.ranges[map / 2u];
  let range = select(pair.xy, pair.zw, map % 2u == 1u);
  // A map of one value is gray.
  let width = range.y - range.x;
  let gray = select(0.5, clamp((value - range.x) / width, 0.0, 1.0), width > 0.0);
  let color = select(vec4(0.12, 0.13, 0.14, 1.0), vec4(gray, gray, gray, 1.0), within);
  picture[view.first + id.y * view.pixels + id.x] = pack4x8unorm(color);
}`;

/**
 * Draws maps. The GPU makes the pictures, plain canvases show them: a WebGPU canvas costs browsers without a real
 * GPU their device (Chromium 14x on SwiftShader).
 */
export class Drawer {
  private latest = 0;

  private constructor(
    private readonly device: GPUDevice,
    private readonly pipeline: GPUComputePipeline,
    private readonly layout: GPUBindGroupLayout,
  ) {}

  static async create(device: GPUDevice): Promise<Drawer> {
    const visibility = GPUShaderStage.COMPUTE;
    const layout = device.createBindGroupLayout({
      entries: [
        { binding: 0, visibility, buffer: { type: "uniform" } },
        { binding: 1, visibility, buffer: { type: "read-only-storage" } },
        { binding: 2, visibility, buffer: { type: "storage" } },
      ],
    });
    const pipeline = await device.createComputePipelineAsync({
      layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }),
      compute: { module: device.createShaderModule({ code: WGSL }) },
    });
    return new Drawer(device, pipeline, layout);
  }

  /** Draws views in one go; nothing where others were asked for meanwhile. */
  async draw(views: readonly View[]): Promise<void> {
    const { device, pipeline, layout } = this;
    const turn = ++this.latest;
    const { STORAGE, UNIFORM, COPY_SRC, COPY_DST, MAP_READ } = GPUBufferUsage;
    const sides = views.map(({ canvas }) => pixelsAcross(canvas));
    const uniforms = new ArrayBuffer(STRIDE * views.length);
    let total = 0;
    const firsts = views.map(({ maps, photo, ranges, only }, index) => {
      const [, channels = 0, size = 0] = maps.dims;
      const side = sides[index] ?? 0;
      const at = STRIDE * index;
      const columns = only === undefined ? COLUMNS : 1;
      new Uint32Array(uniforms, at).set([channels, size, photo, columns]);
      new Int32Array(uniforms, at)[4] = only ?? -1;
      new Float32Array(uniforms, at)[5] = only === undefined ? GAP : 0;
      new Uint32Array(uniforms, at).set([side, total], 6);
      new Float32Array(uniforms, at).set(ranges.flat(), 8);
      total += side * side;
      return 4 * (total - side * side);
    });
    const uniform = device.createBuffer({ size: uniforms.byteLength, usage: UNIFORM | COPY_DST });
    device.queue.writeBuffer(uniform, 0, uniforms);
    const picture = device.createBuffer({ size: 4 * total, usage: STORAGE | COPY_SRC });
    const staging = device.createBuffer({ size: 4 * total, usage: COPY_DST | MAP_READ });
    const encoder = device.createCommandEncoder({ label: "draw" });
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    views.forEach(({ maps }, index) => {
      const resources = [
        { buffer: uniform, offset: STRIDE * index, size: BYTES },
        { buffer: maps.buffer, offset: maps.offset, size: maps.byteLength },
        { buffer: picture },
      ];
      const entries = resources.map((resource, binding) => ({ binding, resource }));
      pass.setBindGroup(0, device.createBindGroup({ layout, entries }));
      const groups = Math.ceil((sides[index] ?? 0) / 8);
      pass.dispatchWorkgroups(groups, groups);
    });
    pass.end();
    encoder.copyBufferToBuffer(picture, 0, staging, 0, 4 * total);
    device.queue.submit([encoder.finish()]);
    await staging.mapAsync(GPUMapMode.READ);
    if (turn === this.latest) {
      const pixels = staging.getMappedRange();
      views.forEach(({ canvas }, index) => {
        const side = sides[index] ?? 0;
        const bytes = new Uint8ClampedArray(pixels.slice(firsts[index], (firsts[index] ?? 0) + 4 * side * side));
        canvas.width = side;
        canvas.height = side;
        canvas.getContext("2d")?.putImageData(new ImageData(bytes, side), 0, 0);
      });
    }
    for (const buffer of [uniform, picture, staging]) {
      buffer.destroy();
    }
  }
}
