import { BcNormError, guarded } from "./errors.js";
import { bufferWith, bytesOf, Context, readBack } from "./gpu.js";
import { normOf, type Activation, type NormKind, type NormOptions } from "./options.js";
import { planner, type PlanData } from "./planner.js";
import type { Norm as PlannedNorm, Plan, Tuning } from "./planner/bcnorm_planner.js";
import { readStateDict, writeStateDict } from "./safetensors.js";
import { shapeOf } from "./shape.js";
import { stateOf, type StateDict, type StateLayout } from "./state.js";
import { Tensor } from "./tensor.js";
import { COPY_DST, COPY_SRC, STORAGE, UNIFORM } from "./usage.js";

/** What work is recorded into: an encoder, in which a pass is made, or a compute pass of the page's. */
export type Target = GPUCommandEncoder | GPUComputePassEncoder;

/** y = activation(norm(x) + residual). */
export interface ForwardArgs {
  readonly x: Tensor;
  /** Where y goes; default: a new tensor. */
  readonly y?: Tensor;
  readonly residual?: Tensor;
  /** In evaluation: y takes x's place. */
  readonly inPlace?: boolean;
}

export interface BackwardArgs {
  readonly gradY: Tensor;
  /** Where the gradient of x goes; default: a new tensor. */
  readonly gradX?: Tensor;
  /** Where that of the residual goes, if there was one and an activation after it; default: a new tensor. */
  readonly gradResidual?: Tensor;
}

export interface Gradients {
  readonly gradX: Tensor;
  /** Where forward had a residual. Without an activation it is gradY itself. */
  readonly gradResidual?: Tensor;
}

/** A plan that is ready but for its buffers. */
interface Prepared {
  readonly plan: Plan;
  readonly data: PlanData;
  /** Of all steps, one every `stride` bytes. */
  readonly uniforms: GPUBuffer | undefined;
  readonly stride: number;
}

/** A plan with its buffers. */
interface Dispatch {
  readonly pipeline: GPUComputePipeline;
  readonly group: GPUBindGroup;
  readonly workgroups: readonly [number, number];
}

/** A buffer of a plan. */
interface Slot {
  readonly buffer: GPUBuffer;
  readonly offset: number;
}

/** What a plan depends on, beside the norm itself. */
interface Pass {
  readonly x: Tensor;
  readonly training: boolean;
  readonly residual: boolean;
  readonly inPlace: boolean;
  readonly inference: boolean;
  /** The norm's description at the time of the call. */
  readonly norm: string;
}

/** The last forward. */
interface Call {
  readonly pass: Pass;
  readonly residual: Tensor | undefined;
}

const MAX_PLANS = 16;
const MAX_BOUND = 8;

/**
 * A norm with its parameters, gradients and running state on the page's GPUDevice, in the manner and by the names
 * of torch.nn. In training mode at first.
 *
 * Recording (`encodeForward`, `encodeBackward`, `zeroGrad` with an encoder) never submits; `forward`, `backward`
 * and `stateDict` do. Gradients of parameters add up over calls of backward until `zeroGrad`.
 *
 * A loop that gives the same tensors again records what it recorded before: nothing is checked or made anew.
 */
export class Norm {
  readonly device: GPUDevice;
  readonly kind: NormKind;
  readonly activation: Activation;
  private readonly context: Context;
  private readonly tuning: Tuning;
  private readonly norm: PlannedNorm;
  /** Describes the statistics' settings, which may change. */
  private stats = "";
  private layout: StateLayout;
  /** Parameters, running state and gradients by role. */
  private readonly buffers = new Map<string, GPUBuffer>();
  /** Tables by role: those of the last forward serve the next one. */
  private readonly tables = new Map<string, GPUBuffer>();
  private readonly plans = new Map<string, Prepared>();
  private readonly bound = new Map<string, Dispatch[]>();
  private last: Call | undefined;
  private mode = true;
  private gradEnabled = true;

  /**
   * A layer with PyTorch's initial state: weights 1, biases 0, running mean 0, running variance 1.
   *
   * @throws {BcNormError} `not-initialized`, `norm`, `tuning`, `device-lost`.
   */
  static async create(device: GPUDevice, kind: NormKind, options: NormOptions): Promise<Norm> {
    return new Norm(await Context.ready(device), kind, options);
  }

  private constructor(context: Context, kind: NormKind, options: NormOptions) {
    const module = planner();
    this.device = context.device;
    this.kind = kind;
    this.activation = options.activation ?? "none";
    this.context = context;
    context.check();
    this.norm = normOf(module, kind, options);
    const { tuning } = options;
    this.tuning =
      tuning === undefined ? this.context.tuning : guarded(() => module.Tuning.parse(tuning));
    // Says now what is wrong with the activation.
    guarded(() => new module.Options(true, this.activation, false)).free();
    this.layout = JSON.parse(this.norm.stateLayout());
    this.allocate();
  }

  /** Whether it is in training mode. */
  get training(): boolean {
    return this.mode;
  }

  /** Sets training mode. */
  train(): void {
    this.mode = true;
  }

  /** Sets evaluation mode. */
  eval(): void {
    this.mode = false;
  }

  /** Whether forward saves what backward needs, as `torch.set_grad_enabled`: true at first. */
  setGradEnabled(enabled: boolean): void {
    this.gradEnabled = enabled;
  }

  /** Sets where channel statistics come from from now on: a new momentum, or the next moving speed. */
  setStats(stats: { momentum: number | null } | { movingSpeed: number }): void {
    const before = this.layout.movingSpeed;
    guarded(() => {
      if ("momentum" in stats) {
        this.norm.setMomentum(stats.momentum);
      } else {
        this.norm.setMovingSpeed(stats.movingSpeed);
      }
      try {
        this.norm.validate();
      } catch (error) {
        // The layer is unchanged then.
        if (before !== null) {
          this.norm.setMovingSpeed(before.value);
        } else {
          this.norm.setMomentum(this.momentum);
        }
        throw error;
      }
    });
    if ("momentum" in stats) {
      this.momentum = stats.momentum;
    }
    this.stats = JSON.stringify(stats);
    this.layout = JSON.parse(this.norm.stateLayout());
    // Estimates are running statistics, which the layer may have gone without.
    this.allocate();
  }

  /** As it was set last. */
  private momentum: number | null = 0.1;

  /** Makes the buffers that the norm has and the layer lacks. */
  private allocate(): void {
    const usage = STORAGE | COPY_SRC | COPY_DST;
    const make = (role: string, values: Float32Array): void => {
      if (!this.buffers.has(role)) {
        this.buffers.set(role, bufferWith(this.device, role, bytesOf(values), usage));
      }
    };
    for (const { role, dims, initial, gradient } of this.layout.entries) {
      const len = dims.reduce((product, size) => product * size, 1);
      make(role, new Float32Array(len).fill(initial));
      if (gradient !== null) {
        make(gradient, new Float32Array(len));
      }
    }
    if (this.layout.batchCount !== null) {
      make(COUNT, new Float32Array(1));
    }
  }

  /**
   * The buffer of a parameter (`weight`, `bias`, `bn.weight`, ...), of a running statistic (`running_mean`; BCNorm's
   * `bn.running_mean`) or of a gradient (`grad_weight`, ...): bound to an optimizer's kernels, say.
   */
  buffer(name: string): GPUBuffer | undefined {
    const entry = this.layout.entries.find((known) => known.name === name);
    const role = name === this.layout.batchCount ? COUNT : (entry?.role ?? name);
    return this.buffers.get(role);
  }

  /** Compiles what calls with such an x need, without holding up the page. */
  async prepare(
    x: Tensor,
    options: { residual?: boolean; inPlace?: boolean } = {},
  ): Promise<void> {
    const pass = this.pass(x, options.residual === true, options.inPlace === true);
    const plans = [this.prepared("forward", pass)];
    if (!pass.inPlace && !pass.inference) {
      plans.push(this.prepared("backward", pass));
    }
    await this.compile(plans);
  }

  private async compile(plans: readonly Prepared[]): Promise<void> {
    const all = plans.flatMap(({ plan, data }) =>
      data.steps.map((step, index) => this.context.compile(step, () => wgsl(plan, index))),
    );
    await Promise.all(all);
  }

  /**
   * Records y = activation(norm(x) + residual) and keeps what backward needs. Kernels that are not compiled yet
   * (see `prepare`) are compiled here, while the page waits.
   *
   * @returns y; x, where it was done in place.
   * @throws {BcNormError} `tensor`, `norm`, `buffer`, `limit`, `order` (in place in training), `device-lost`; nothing
   * is recorded then.
   */
  encodeForward(target: Target, args: ForwardArgs): Tensor {
    const { x, residual } = args;
    this.context.check();
    const pass = this.pass(x, residual !== undefined, args.inPlace === true);
    if (pass.inPlace && args.y !== undefined) {
      throw new BcNormError("order", "inPlace writes over x: give no y");
    }
    like("y", args.y, x);
    like("residual", residual, x);
    const prepared = this.prepared("forward", pass);
    const y = pass.inPlace ? x : (args.y ?? this.tensorLike(x));
    const slots = new Map([["x", slot(x)]]);
    if (!pass.inPlace) {
      slots.set("y", slot(y));
    }
    if (residual !== undefined) {
      slots.set("residual", slot(residual));
    }
    record(target, this.bind(prepared, slots));
    this.last = { pass, residual };
    return y;
  }

  /**
   * Records the gradients for the x of the last forward: that of x is returned, those of the parameters are added
   * to their buffers.
   *
   * @throws {BcNormError} as `encodeForward`, and `order` without a forward that backward can follow.
   */
  encodeBackward(target: Target, args: BackwardArgs): Gradients {
    const { gradY } = args;
    this.context.check();
    const { pass, residual } = this.saved();
    const { x } = pass;
    like("gradY", gradY, x);
    like("gradX", args.gradX, x);
    like("gradResidual", args.gradResidual, x);
    // Without an activation the residual has no part in it.
    const through = residual !== undefined && this.activation !== "none";
    if (args.gradResidual !== undefined && !through) {
      throw new BcNormError(
        "order",
        residual === undefined
          ? "gradResidual after a forward without a residual: give none"
          : "without an activation the residual's gradient is gradY itself: give no gradResidual",
      );
    }
    const prepared = this.prepared("backward", { ...pass, residual: through });
    const gradX = args.gradX ?? this.tensorLike(x);
    const slots = new Map([
      ["x", slot(x)],
      ["grad_y", slot(gradY)],
      ["grad_x", slot(gradX)],
    ]);
    let gradResidual = residual === undefined ? undefined : gradY;
    if (through) {
      gradResidual = args.gradResidual ?? this.tensorLike(x);
      slots.set("residual", slot(residual)).set("grad_residual", slot(gradResidual));
    }
    record(target, this.bind(prepared, slots));
    return gradResidual === undefined ? { gradX } : { gradX, gradResidual };
  }

  /** Compiles, records and submits y = activation(norm(x) + residual). */
  async forward(x: Tensor, options: Omit<ForwardArgs, "x"> = {}): Promise<Tensor> {
    const pass = this.pass(x, options.residual !== undefined, options.inPlace === true);
    await this.compile([this.prepared("forward", pass)]);
    return this.submit((encoder) => this.encodeForward(encoder, { ...options, x }));
  }

  /** Compiles, records and submits the backward of the last forward. */
  async backward(gradY: Tensor, options: Omit<BackwardArgs, "gradY"> = {}): Promise<Gradients> {
    const { pass, residual } = this.saved();
    const through = residual !== undefined && this.activation !== "none";
    await this.compile([this.prepared("backward", { ...pass, residual: through })]);
    return this.submit((encoder) => this.encodeBackward(encoder, { ...options, gradY }));
  }

  private submit<T>(encode: (encoder: GPUCommandEncoder) => T): T {
    const encoder = this.device.createCommandEncoder({ label: "bcnorm" });
    const result = encode(encoder);
    this.device.queue.submit([encoder.finish()]);
    return result;
  }

  /** Clears the parameters' gradients: records it, or, without an encoder, does it. */
  zeroGrad(encoder?: GPUCommandEncoder): void {
    this.context.check();
    const clear = (into: GPUCommandEncoder): void => {
      for (const { gradient } of this.layout.entries) {
        const buffer = gradient === null ? undefined : this.buffers.get(gradient);
        if (buffer !== undefined) {
          into.clearBuffer(buffer);
        }
      }
    };
    if (encoder === undefined) {
      this.submit(clear);
    } else {
      clear(encoder);
    }
  }

  /** Reads parameters and running state back. */
  async stateDict(): Promise<StateDict> {
    const { entries, batchCount, movingSpeed } = this.layout;
    const roles = entries.map(({ role }) => role).concat(batchCount === null ? [] : [COUNT]);
    const ranges = roles.map((role) => {
      const buffer = this.own(role);
      return { buffer, offset: 0, bytes: buffer.size };
    });
    const read = await readBack(this.device, ranges);
    const dict: StateDict = {};
    entries.forEach(({ name, dims }, index) => {
      const len = dims.reduce((product, size) => product * size, 1);
      const bytes = read[index] ?? new Uint8Array(0);
      dict[name] = { dims, values: new Float32Array(bytes.buffer, 0, len) };
    });
    if (batchCount !== null) {
      const bytes = read[entries.length] ?? new Uint8Array(4);
      dict[batchCount] = BigInt(new Uint32Array(bytes.buffer)[0] ?? 0);
    }
    if (movingSpeed !== null) {
      dict[movingSpeed.name] = { dims: [1], values: Float32Array.of(movingSpeed.value) };
    }
    return dict;
  }

  /**
   * Loads parameters and running state, strictly: every entry must be there, no other, each of the right shape,
   * give or take sizes of 1. It takes effect with the next submission.
   *
   * @throws {BcNormError} `state-dict` with every mismatch; nothing is loaded then.
   */
  loadStateDict(state: StateDict): void {
    this.context.check();
    const dict = stateOf(planner(), state);
    const fit = guarded(() => dict.fit(this.norm));
    const { queue } = this.device;
    for (let index = 0; index < fit.len(); index++) {
      queue.writeBuffer(this.own(fit.role(index)), 0, fit.values(index) as Float32Array<ArrayBuffer>);
    }
    if (fit.batchCount !== undefined) {
      queue.writeBuffer(this.own(COUNT), 0, Uint32Array.of(fit.batchCount));
    }
    if (fit.movingSpeed !== undefined) {
      this.setStats({ movingSpeed: fit.movingSpeed });
    }
    fit.free();
    dict.free();
  }

  /** The state dict as a safetensors file. */
  async saveSafetensors(): Promise<Uint8Array> {
    return writeStateDict(await this.stateDict());
  }

  /** Loads a safetensors file; of a model's, one module (`layer1.0.bn1`). */
  loadSafetensors(bytes: Uint8Array, options: { module?: string } = {}): void {
    this.loadStateDict(readStateDict(bytes, options.module));
  }

  /** Lets go of the last forward, of plans and of tables. Parameters and state stay. */
  forget(): void {
    this.last = undefined;
    this.bound.clear();
    for (const { plan } of this.plans.values()) {
      plan.free();
    }
    this.plans.clear();
    this.tables.clear();
  }

  /** Destroys its buffers. Submit before what was recorded with them. */
  destroy(): void {
    const tables = [...this.tables.values()];
    this.forget();
    for (const buffer of [...tables, ...this.buffers.values()]) {
      buffer.destroy();
    }
    this.buffers.clear();
  }

  private own(role: string): GPUBuffer {
    const buffer = this.buffers.get(role);
    if (buffer === undefined) {
      throw new BcNormError("order", `the layer has no ${role}: it was destroyed`);
    }
    return buffer;
  }

  private pass(x: Tensor, residual: boolean, inPlace: boolean): Pass {
    const inference = !this.gradEnabled;
    return { x, training: this.mode, residual, inPlace, inference, norm: this.stats };
  }

  private saved(): Call {
    if (this.last === undefined) {
      throw new BcNormError("order", "backward without forward: call forward on this layer first");
    }
    const { pass } = this.last;
    if (pass.inPlace) {
      throw new BcNormError(
        "order",
        "backward after a forward in place: x, which backward reads, was overwritten",
      );
    }
    if (pass.inference) {
      throw new BcNormError(
        "order",
        "backward after a forward without gradients, which saves nothing for it: call setGradEnabled(true) " +
          "and forward again",
      );
    }
    return this.last;
  }

  /** A plan, made once: the most recent ones are kept. */
  private prepared(direction: "forward" | "backward", pass: Pass): Prepared {
    const { x, training, residual, inPlace, inference, norm } = pass;
    const flags = [training, residual, inPlace, inference].map(Number).join("");
    const key = `${direction} ${flags} ${x.dims.join()} ${x.dtype} ${x.layout} ${norm}`;
    let prepared = this.plans.get(key);
    if (prepared !== undefined) {
      // The last in the map is the one used last.
      this.plans.delete(key);
      this.plans.set(key, prepared);
      return prepared;
    }
    prepared = this.plan(direction, pass);
    this.plans.set(key, prepared);
    const [oldest] = this.plans;
    if (this.plans.size > MAX_PLANS && oldest !== undefined) {
      oldest[1].plan.free();
      this.plans.delete(oldest[0]);
    }
    return prepared;
  }

  private plan(direction: "forward" | "backward", pass: Pass): Prepared {
    const module = planner();
    const { x } = pass;
    const tensor = shapeOf(module, x.dims, x, this.kind === "weight_standardization");
    const plan = guarded(() => {
      const options = new module.Options(pass.training, this.activation, pass.residual);
      try {
        return direction === "forward"
          ? module.Plan.forward(this.norm, tensor, options, pass.inPlace, pass.inference, this.tuning)
          : module.Plan.backward(this.norm, tensor, options, this.tuning);
      } finally {
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
    const stride = Math.max(this.device.limits.minUniformBufferOffsetAlignment, 16 * 5);
    const uniforms =
      data.steps.length === 0
        ? undefined
        : bufferWith(this.device, "bcnorm params", plan.uniforms(stride), UNIFORM);
    return { plan, data, uniforms, stride };
  }

  /** A tensor like x, of zeros, in a buffer of its own. */
  private tensorLike(x: Tensor): Tensor {
    // A size that is a mistake is not allocated.
    if (x.offset + x.byteLength > x.buffer.size) {
      throw new BcNormError(
        "buffer",
        `x needs ${x.byteLength} bytes at offset ${x.offset}, but its buffer ends at ${x.buffer.size}: ` +
          "bind a larger buffer or a smaller offset",
      );
    }
    return Tensor.zeros(this.device, x.dims, x);
  }

  /** The tables that a plan needs. Where one must grow, nothing that is bound to the old one is kept. */
  private makeTables(data: PlanData): void {
    for (const { role, bytes, kind } of data.needs) {
      const known = this.tables.get(role);
      if (kind === "caller" || (known !== undefined && known.size >= bytes)) {
        continue;
      }
      const usage = STORAGE | COPY_SRC | COPY_DST;
      const size = Math.max(4, bytes);
      this.tables.set(role, this.device.createBuffer({ label: role, size, usage }));
      this.bound.clear();
    }
  }

  /** The dispatches of a plan with these tensors, and the layer's own buffers. */
  private bind(prepared: Prepared, tensors: ReadonlyMap<string, Slot>): Dispatch[] {
    const { plan, data, uniforms, stride } = prepared;
    if (uniforms === undefined) {
      return [];
    }
    this.makeTables(data);
    const ids = [...tensors].map(([role, { buffer, offset }]) => `${role} ${id(buffer)} ${offset}`);
    const key = `${id(uniforms)} ${ids.join(" ")}`;
    const known = this.bound.get(key);
    if (known !== undefined) {
      return known;
    }
    const slots = new Map(tensors);
    for (const [role, buffer] of [...this.buffers, ...this.tables]) {
      slots.set(role, { buffer, offset: 0 });
    }
    const all = [...slots];
    guarded(() =>
      plan.checkBuffers(
        all.map(([role]) => role),
        Uint32Array.from(all, ([, { buffer }]) => id(buffer)),
        Float64Array.from(all, ([, { offset }]) => offset),
        Float64Array.from(all, ([, { buffer }]) => buffer.size),
        Uint32Array.from(all, ([, { buffer }]) => buffer.usage),
        this.context.limits,
      ),
    );
    const sizes = new Map(data.needs.map(({ role, bytes }) => [role, bytes]));
    const dispatches = data.steps.map((step, index): Dispatch => {
      const { pipeline, layout } = this.context.compiled(step, () => wgsl(plan, index));
      const uniform = { buffer: uniforms, offset: index * stride, size: PARAMS };
      const entries = step.bindings.map(({ binding, role, tensor }) => {
        const { buffer, offset } = slots.get(role) ?? this.missing(role);
        const [begin, size] = (tensor ? step.window : null) ?? [0, sizes.get(role) ?? 0];
        return { binding, resource: { buffer, offset: offset + begin, size } };
      });
      const group = this.device.createBindGroup({
        label: step.kernel,
        layout,
        entries: [{ binding: 0, resource: uniform }, ...entries],
      });
      return { pipeline, group, workgroups: step.workgroups };
    });
    this.bound.set(key, dispatches);
    const [oldest] = this.bound.keys();
    if (this.bound.size > MAX_BOUND && oldest !== undefined) {
      this.bound.delete(oldest);
    }
    return dispatches;
  }

  private missing(role: string): never {
    throw new BcNormError("buffer", `the plan needs buffers that were not bound: ${role}`);
  }
}

/** The counter's role. */
const COUNT = "bn.num_batches_tracked";

/** Bytes of a kernel's uniform. */
const PARAMS = 80;

function wgsl(plan: Plan, step: number): string {
  return plan.wgsl(step) ?? "";
}

function slot(tensor: Tensor): Slot {
  return { buffer: tensor.buffer, offset: tensor.offset };
}

/** Records dispatches into a pass of the caller's, or into one of their own. */
function record(target: Target, dispatches: readonly Dispatch[]): void {
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

/** Refuses a tensor that is not as x. */
function like(name: string, tensor: Tensor | undefined, x: Tensor): void {
  if (tensor === undefined) {
    return;
  }
  const shape = ({ dims }: Tensor): string => `[${dims.join(", ")}]`;
  const storage = ({ dtype, layout }: Tensor): string => `${dtype} ${layout}`;
  if (shape(tensor) !== shape(x)) {
    throw new BcNormError("tensor", `${name} has shape ${shape(tensor)}, expected ${shape(x)}`);
  }
  if (storage(tensor) !== storage(x)) {
    throw new BcNormError("tensor", `${name} is ${storage(tensor)}, expected ${storage(x)} as x`);
  }
}

const ids = new WeakMap<GPUBuffer, number>();
let nextId = 0;

/** A number for a buffer. */
function id(buffer: GPUBuffer): number {
  let known = ids.get(buffer);
  if (known === undefined) {
    known = nextId++;
    ids.set(buffer, known);
  }
  return known;
}
