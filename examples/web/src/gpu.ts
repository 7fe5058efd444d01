import { init, Norm, requestDevice, Tensor } from "bcnorm";
import { CHANNELS } from "./bank.js";
import { Drawer } from "./draw.js";
import { OUTPUTS, part, type Engine, type Layer, type MapStats } from "./engine.js";
import type { Picture, Range, View, Which, Work } from "./engine.js";
import { Features } from "./features.js";
import { Stats } from "./stats.js";

/** The page's work on a GPU. */
export class GpuEngine implements Engine {
  private features: Features | undefined;
  /** Maps by their photographs, of one size. */
  private held = new Map<object, GPUBuffer>();
  private tensors = new Map<Which, Tensor>();
  /** Whose maps "before" are. */
  private shown: readonly object[] = [];

  private constructor(
    readonly device: GPUDevice,
    private readonly drawer: Drawer,
    private readonly stats: Stats,
  ) {}

  /** @throws {BcNormError} `no-webgpu`, `no-adapter`, `device`. */
  static async create(): Promise<GpuEngine> {
    await init();
    const device = await requestDevice({ powerPreference: "high-performance", limits: "adapter" });
    return new GpuEngine(device, await Drawer.create(device), await Stats.create(device));
  }

  async compute(pictures: readonly Picture[], size: number, layers: readonly Layer[], work: Work): Promise<number[]> {
    const { device } = this;
    const made: Tensor[] = [];
    const keys = pictures.map(({ key }) => key);
    const old = this.tensors.get("before");
    const same = old?.dims[2] === size && keys.length === this.shown.length && keys.every((key, n) => key === this.shown[n]);
    try {
      const share = same ? 0 : 0.7;
      const before = same ? old : await this.load(pictures, size, part(work, 0, share));
      if (!same) {
        made.push(before);
      }
      const next = new Map<Which, Tensor>([["before", before]]);
      const took: number[] = [];
      for (const [index, layer] of layers.entries()) {
        const y = Tensor.zeros(device, before.dims);
        made.push(y);
        const [from, to] = [index, index + 1].map((i) => share + ((1 - share) * i) / layers.length);
        took.push(await this.normalize(before, y, layer, part(work, from ?? 0, to ?? 1)));
        next.set(OUTPUTS[index] ?? "after", y);
      }
      const gone = [...this.tensors.values()].filter((tensor) => tensor !== before);
      gone.forEach((tensor) => tensor.destroy());
      this.tensors = next;
      this.shown = keys;
      return took;
    } catch (error) {
      made.forEach((tensor) => tensor.destroy());
      throw error;
    }
  }

  /** The maps of photographs, one after the other in a tensor. */
  private async load(pictures: readonly Picture[], size: number, work: Work): Promise<Tensor> {
    const { device } = this;
    if (this.features?.size !== size) {
      this.features?.destroy();
      this.features = await Features.create(device, size);
      this.forget(new Set());
    }
    const missing = pictures.filter(({ key }) => !this.held.has(key));
    for (const [index, { key, name, pixels }] of missing.entries()) {
      const share = part(work, index / missing.length, (index + 1) / missing.length);
      this.held.set(key, await this.features.compute(pixels(size), name, share));
    }
    this.forget(new Set(pictures.map(({ key }) => key)));
    const x = Tensor.zeros(device, [pictures.length, CHANNELS, size, size]);
    const bytes = x.byteLength / pictures.length;
    const encoder = device.createCommandEncoder();
    pictures.forEach(({ key }, n) => {
      const maps = this.held.get(key);
      if (maps !== undefined) {
        encoder.copyBufferToBuffer(maps, 0, x.buffer, n * bytes, bytes);
      }
    });
    device.queue.submit([encoder.finish()]);
    return x;
  }

  /** Frees the maps of photographs but those of some. */
  private forget(but: ReadonlySet<object>): void {
    for (const [key, buffer] of this.held) {
      if (!but.has(key)) {
        buffer.destroy();
        this.held.delete(key);
      }
    }
  }

  private async normalize(x: Tensor, y: Tensor, layer: Layer, { signal, at }: Work): Promise<number> {
    const { device } = this;
    const { kind, options, before, training } = layer;
    const norm = await Norm.create(device, kind, options);
    try {
      norm.setGradEnabled(false);
      const forward = async (): Promise<number> => {
        signal.throwIfAborted();
        await norm.prepare(x);
        const start = performance.now();
        const encoder = device.createCommandEncoder();
        norm.recordForward(encoder, { x, y });
        device.queue.submit([encoder.finish()]);
        await device.queue.onSubmittedWorkDone();
        return performance.now() - start;
      };
      for (let step = 0; step < before; step++) {
        at(`Training step ${step + 1} of ${before}`, step / before);
        await forward();
      }
      if (!training) {
        norm.eval();
      }
      return await forward();
    } finally {
      norm.destroy();
    }
  }

  private maps(which: Which): Tensor {
    const found = this.tensors.get(which);
    if (found === undefined) {
      throw new Error(`there are no maps "${which}" yet`);
    }
    return found;
  }

  measure(which: Which, range?: Range): Promise<MapStats[]> {
    return this.stats.measure(this.maps(which), range);
  }

  draw(views: readonly View[]): Promise<void> {
    return this.drawer.draw(views.map(({ which, ...view }) => ({ ...view, maps: this.maps(which) })));
  }

  read(which: Which): Promise<Float32Array> {
    return this.maps(which).read(this.device);
  }
}
