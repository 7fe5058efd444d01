import { bufferWith, checkBuffer } from "./buffers.js";
import { BcNormError, guarded } from "./errors.js";
import type { Context } from "./gpu.js";
import { normOf, type Activation, type NormKind, type NormOptions } from "./options.js";
import { planner, type PlanData } from "./planner.js";
import type { Plan, Tuning } from "./planner/bcnorm_planner.js";
import { shapeOf, type Shape } from "./shape.js";
import { UNIFORM } from "./usage.js";

/** What work is recorded into: an encoder, in which a pass is made, or a compute pass of the page's. */
export type Target = GPUCommandEncoder | GPUComputePassEncoder;

/** What a plan depends on, beside its norm's kind. @internal */
export interface Pass {
  readonly x: Shape;
  readonly training: boolean;
  readonly residual: boolean;
  readonly inPlace: boolean;
  readonly inference: boolean;
  /** Whether backward adds the parameters' gradients to what is in their buffers; else it replaces that. */
  readonly accumulate: boolean;
  /** The norm's options in force. */
  readonly options: NormOptions;
}

/** A plan that is ready but for its buffers. @internal */
export interface Prepared {
  readonly plan: Plan;
  readonly data: PlanData;
  /** Of all steps, one every `stride` bytes. */
  readonly uniforms: GPUBuffer | undefined;
  readonly stride: number;
}

/** A buffer of a plan. @internal */
export interface Slot {
  readonly buffer: GPUBuffer;
  readonly offset: number;
}

/** A dispatch with its buffers. @internal */
export interface Dispatch {
  readonly pipeline: GPUComputePipeline;
  readonly group: GPUBindGroup;
  readonly workgroups: readonly [number, number];
}

const MAX_PLANS = 16;

/** The plans of one norm on a device, whoever owns the buffers that they are bound to. @internal */
export class Plans {
  private readonly context: Context;
  private readonly kind: NormKind;
  private readonly activation: Activation;
  private readonly tuning: Tuning;
  /** Takes the buffers of plans that are needed no more. */
  private readonly retire: (buffer: GPUBuffer) => void;
  private readonly all = new Map<string, Prepared>();

  constructor(
    context: Context,
    kind: NormKind,
    activation: Activation,
    tuning: Tuning,
    retire: (buffer: GPUBuffer) => void,
  ) {
    this.context = context;
    this.kind = kind;
    this.activation = activation;
    this.tuning = tuning;
    this.retire = retire;
  }

  /** A plan, made once: the most recent ones are kept. */
  prepared(direction: "forward" | "backward", pass: Pass): Prepared {
    const { x, training, residual, inPlace, inference, accumulate, options } = pass;
    const norm = JSON.stringify([options.momentum, options.movingSpeed, options.trackRunningStats]);
    const flags = [training, residual, inPlace, inference, accumulate].map(Number).join("");
    const key = `${direction} ${flags} ${x.dims.join()} ${x.dtype} ${x.layout} ${norm}`;
    let prepared = this.all.get(key);
    if (prepared !== undefined) {
      // The last in the map is the one used last.
      this.all.delete(key);
      this.all.set(key, prepared);
      return prepared;
    }
    prepared = this.plan(direction, pass);
    this.all.set(key, prepared);
    const [oldest] = this.all.keys();
    if (this.all.size > MAX_PLANS && oldest !== undefined) {
      this.evict(oldest);
    }
    return prepared;
  }

  /** What the backward of a forward is: what was in force at forward. Without an activation the residual has no part in it. */
  backwardOf(pass: Pass): Pass {
    return { ...pass, residual: pass.residual && this.activation !== "none" };
  }

  /** Drops all plans. */
  clear(): void {
    [...this.all.keys()].forEach((key) => this.evict(key));
  }

  private evict(key: string): void {
    const { plan, uniforms } = this.all.get(key) ?? {};
    plan?.free();
    this.all.delete(key);
    if (uniforms !== undefined) {
      this.retire(uniforms);
    }
  }

  private plan(direction: "forward" | "backward", pass: Pass): Prepared {
    const module = planner();
    const { x } = pass;
    const tensor = shapeOf(module, x.dims, x, this.kind === "weight_standardization");
    const norm = normOf(module, this.kind, pass.options);
    const plan = guarded(() => {
      const options = new module.Options(pass.training, this.activation, pass.residual);
      try {
        return direction === "forward"
          ? module.Plan.forward(norm, tensor, options, pass.inPlace, pass.inference, this.tuning)
          : module.Plan.backward(norm, tensor, options, pass.accumulate, this.tuning);
      } finally {
        norm.free();
        options.free();
        tensor.free();
      }
    });
    try {
      this.context.checkLimits(plan);
    } catch (error) {
      plan.free();
      throw error;
    }
    const data: PlanData = JSON.parse(plan.describe());
    if (data.steps.length === 0) {
      return { plan, data, uniforms: undefined, stride: 0 };
    }
    const bytes = plan.uniforms(ALIGNMENT);
    const uniforms = bufferWith(this.context.device, "bcnorm params", bytes, UNIFORM);
    return { plan, data, uniforms, stride: bytes.byteLength / data.steps.length };
  }

  /** Compiles the kernels of plans without holding up the page. */
  async compile(plans: readonly Prepared[]): Promise<void> {
    const all = plans.flatMap(({ plan, data }) =>
      data.steps.map((step, index) => this.context.compile(step, () => wgsl(plan, index))),
    );
    await Promise.all(all);
  }

  /** The dispatches of a plan with these buffers, after a check of each. */
  bind({ plan, data, uniforms, stride }: Prepared, slots: ReadonlyMap<string, Slot>): Dispatch[] {
    if (uniforms === undefined) {
      return [];
    }
    const { device, limits } = this.context;
    const all = [...slots];
    all.forEach(([role, { buffer }]) => checkBuffer(device, role, buffer));
    guarded(() =>
      plan.checkBuffers(
        all.map(([role]) => role),
        Uint32Array.from(all, ([, { buffer }]) => id(buffer)),
        Float64Array.from(all, ([, { offset }]) => offset),
        Float64Array.from(all, ([, { buffer }]) => buffer.size),
        Uint32Array.from(all, ([, { buffer }]) => buffer.usage),
        limits,
      ),
    );
    const sizes = new Map(data.needs.map(({ role, bytes }) => [role, bytes]));
    return data.steps.map((step, index): Dispatch => {
      const { pipeline, layout } = this.context.compiled(step, () => wgsl(plan, index));
      const uniform = { buffer: uniforms, offset: index * stride, size: stride };
      const entries = step.bindings.map(({ binding, role, tensor }) => {
        const { buffer, offset } = slots.get(role) ?? missing(role);
        const [begin, size] = (tensor ? step.window : null) ?? [0, sizes.get(role) ?? 0];
        return { binding, resource: { buffer, offset: offset + begin, size } };
      });
      const group = device.createBindGroup({
        label: step.kernel,
        layout,
        entries: [{ binding: 0, resource: uniform }, ...entries],
      });
      return { pipeline, group, workgroups: step.workgroups };
    });
  }
}

/** A multiple of every alignment of uniforms that a device may have. */
const ALIGNMENT = 256;

function wgsl(plan: Plan, step: number): string {
  return plan.wgsl(step) ?? "";
}

/** Refuses to go on without a buffer. @internal */
export function missing(role: string): never {
  throw new BcNormError("buffer", `the plan needs buffers that were not bound: ${role}`);
}

/** Whether backward may follow. @internal */
export function goesBack({ inPlace, inference }: Pass): boolean {
  return !inPlace && !inference;
}

/** Records dispatches into a pass of the caller's, or into one of their own. @internal */
export function record(target: Target, dispatches: readonly Dispatch[]): void {
  if (dispatches.length === 0) {
    return;
  }
  const own = "beginComputePass" in target;
  const pass = own ? target.beginComputePass({ label: "bcnorm" }) : target;
  for (const { pipeline, group, workgroups } of dispatches) {
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, group);
    pass.dispatchWorkgroups(...workgroups);
  }
  if (own) {
    pass.end();
  }
}

const ids = new WeakMap<GPUBuffer, number>();
let nextId = 0;

/** A number for a buffer. @internal */
export function id(buffer: GPUBuffer): number {
  let known = ids.get(buffer);
  if (known === undefined) {
    known = nextId++;
    ids.set(buffer, known);
  }
  return known;
}
