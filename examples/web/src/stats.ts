import type { Tensor } from "bcnorm";
import { BINS, type MapStats, type Range } from "./engine.js";

const WORDS = 4 + BINS;

// A workgroup owns a map: count, mean, spread about the mean, least and greatest, then bins.
const WGSL = `
struct Shape { samples: u32, channels: u32, len: u32, fixed: u32, low: f32, high: f32 }
@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> maps: array<f32>;
@group(0) @binding(2) var<storage, read_write> results: array<u32>;
const SIZE = 64u;
var<workgroup> sums: array<f32, SIZE>;
var<workgroup> lows: array<f32, SIZE>;
var<workgroup> highs: array<f32, SIZE>;
var<workgroup> bins: array<atomic<u32>, ${BINS}>;

fn at(channel: u32, i: u32) -> f32 {
  return maps[((i / shape.len) * shape.channels + channel) * shape.len + i % shape.len];
}

fn total(local: u32) -> f32 {
  for (var stride = SIZE / 2u; stride > 0u; stride /= 2u) {
    workgroupBarrier();
    if (local < stride) {
      sums[local] += sums[local + stride];
      lows[local] = min(lows[local], lows[local + stride]);
      highs[local] = max(highs[local], highs[local + stride]);
    }
  }
  workgroupBarrier();
  return sums[0];
}

@compute @workgroup_size(SIZE) fn stats(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_index) local: u32,
) {
  let channel = group.x;
  let count = shape.samples * shape.len;
  var sum = 0.0;
  var low = at(channel, 0u);
  var high = low;
  for (var i = local; i < count; i += SIZE) {
    let value = at(channel, i);
    sum += value;
    low = min(low, value);
    high = max(high, value);
  }
  sums[local] = sum;
  lows[local] = low;
  highs[local] = high;
  atomicStore(&bins[local], 0u);
  let mean = total(local) / f32(count);
  low = lows[0];
  high = highs[0];
  workgroupBarrier();
  sum = 0.0;
  let begin = select(low, shape.low, shape.fixed != 0u);
  let width = select(high, shape.high, shape.fixed != 0u) - begin;
  for (var i = local; i < count; i += SIZE) {
    let value = at(channel, i);
    sum += (value - mean) * (value - mean);
    let bin = select(0.0, (value - begin) / width * ${BINS}.0, width > 0.0);
    atomicAdd(&bins[u32(clamp(bin, 0.0, ${BINS - 1}.0))], 1u);
  }
  sums[local] = sum;
  let variance = total(local) / f32(count);
  let to = channel * ${WORDS}u;
  if (local == 0u) {
    results[to] = bitcast<u32>(mean);
    results[to + 1u] = bitcast<u32>(variance);
    results[to + 2u] = bitcast<u32>(low);
    results[to + 3u] = bitcast<u32>(high);
  }
  results[to + 4u + local] = atomicLoad(&bins[local]);
}`;

/** Measures maps on the GPU. */
export class Stats {
  private constructor(
    private readonly device: GPUDevice,
    private readonly pipeline: GPUComputePipeline,
  ) {}

  static async create(device: GPUDevice): Promise<Stats> {
    const module = device.createShaderModule({ code: WGSL });
    const pipeline = await device.createComputePipelineAsync({ layout: "auto", compute: { module } });
    return new Stats(device, pipeline);
  }

  /** Bins over a range, or, without one, each map's own. */
  async measure(maps: Tensor, range?: Range): Promise<MapStats[]> {
    const { device, pipeline } = this;
    const [samples = 0, channels = 0, height = 0, width = 0] = maps.dims;
    const { UNIFORM, STORAGE, COPY_SRC, COPY_DST, MAP_READ } = GPUBufferUsage;
    const shape = device.createBuffer({ size: 32, usage: UNIFORM | COPY_DST });
    const numbers = new ArrayBuffer(32);
    new Uint32Array(numbers).set([samples, channels, height * width, Number(range !== undefined)]);
    new Float32Array(numbers).set(range ?? [0, 0], 4);
    device.queue.writeBuffer(shape, 0, numbers);
    const size = 4 * WORDS * channels;
    const results = device.createBuffer({ size, usage: STORAGE | COPY_SRC });
    const staging = device.createBuffer({ size, usage: COPY_DST | MAP_READ });
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass({ label: "stats" });
    pass.setPipeline(pipeline);
    const buffers = [
      { buffer: shape },
      { buffer: maps.buffer, offset: maps.offset, size: maps.byteLength },
      { buffer: results },
    ];
    const entries = buffers.map((resource, binding) => ({ binding, resource }));
    pass.setBindGroup(0, device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries }));
    pass.dispatchWorkgroups(channels);
    pass.end();
    encoder.copyBufferToBuffer(results, 0, staging, 0, size);
    device.queue.submit([encoder.finish()]);
    await staging.mapAsync(GPUMapMode.READ);
    const words = new Uint32Array(staging.getMappedRange().slice(0));
    const floats = new Float32Array(words.buffer);
    for (const buffer of [shape, results, staging]) {
      buffer.destroy();
    }
    return Array.from({ length: channels }, (_, channel) => {
      const at = channel * WORDS;
      const [mean = 0, variance = 0, min = 0, max = 0] = floats.subarray(at, at + 4);
      return { mean, variance, min, max, bins: words.slice(at + 4, at + WORDS) };
    });
  }
}
