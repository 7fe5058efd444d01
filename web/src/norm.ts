import { bufferWith, bytesOf, checkBuffer, checkSize, destroyBuffer, makeBuffer, readBack, scoped } from "./buffers.js";
import { ANY, BOOLEAN, BYTES, check, checkOptions, DEVICE, ENCODER, TARGET, TEXT } from "./check.js";
import { BcNormError, guarded } from "./errors.js";
import { Context } from "./gpu.js";
import {
  applyStats,
  checkStats,
  normOf,
  statsOf,
  type Activation,
  type NormKind,
  type NormOptions,
  type StatsOptions,
} from "./options.js";
import { planner, type PlanData } from "./planner.js";
import type { Norm as PlannedNorm, Plan, Tuning } from "./planner/bcnorm_planner.js";
import { readStateDict, writeStateDict } from "./safetensors.js";
import { shapeOf } from "./shape.js";
import { stateOf, type StateDict, type StateLayout } from "./state.js";
import { Tensor, TENSOR } from "./tensor.js";
import { COPY_DST, COPY_SRC, STORAGE, UNIFORM } from "./usage.js";

/** What work is recorded into: an encoder, in which a pass is made, or a compute pass of the page's. */
export type Target = GPUCommandEncoder | GPUComputePassEncoder;

/** y = activation(norm(x) + residual). */
export interface ForwardArgs {
  readonly x: Tensor;
  /** Where y goes; default: a new tensor, which is the caller's to destroy. */
  readonly y?: Tensor;
  readonly residual?: Tensor;
  /** In evaluation: y takes x's place. */
  readonly inPlace?: boolean;
}

export interface BackwardArgs {
  readonly gradY: Tensor;
  /** Where the gradient of x goes; default: a new tensor, which is the caller's to destroy. */
  readonly gradX?: Tensor;
  /** Where that of the residual goes, if there was one and an activation after it; default as gradX's. */
  readonly gradResidual?: Tensor;
}

export interface Gradients {
  readonly gradX: Tensor;
  /** Where forward had a residual. Without an activation it is gradY itself. */
  readonly gradResidual?: Tensor;
}

const FORWARD_OPTIONS = { y: TENSOR, residual: TENSOR, inPlace: BOOLEAN };
const BACKWARD_OPTIONS = { gradX: TENSOR, gradResidual: TENSOR };

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

/** The last forward that backward may go back through. */
interface Call {
  readonly pass: Pass;
  readonly residual: Tensor | undefined;
}

/** Why there is nothing to go back through. */
const NO_FORWARD = "backward without forward: call forward on this layer first";
const TWICE = "backward again after one forward, whose gradients the parameters have already: call forward again first";
const IN_PLACE = "backward after a forward in place, or into x: x, which backward reads, was overwritten";
const NO_GRAD =
  "backward after a forward without gradients, which saves nothing for it: call setGradEnabled(true) and forward again";

const MAX_PLANS = 16;
const MAX_BOUND = 8;

/**
 * A norm with its parameters, gradients and running state on the page's GPUDevice, in the manner and by the names
 * of torch.nn. In training mode at first.
 *
 * Recording (`encodeForward`, `encodeBackward`, `zeroGrad` with an encoder) never submits; `forward`, `backward`
 * and `stateDict` do. Gradients of parameters add up over calls of backward until `zeroGrad`.
 *
 * Each backward goes back through the one forward before it: a second backward, or a backward after two forwards (a
 * layer used twice in a network), is an error. Give each use a layer of its own, and call `discard` after a forward
 * that no backward follows. Forwards without gradients (`setGradEnabled(false)`) may come in between.
 *
 * What forward and backward return is the caller's: a tensor holds its memory until its `destroy`.
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
  private stats: StatsOptions;
  private layout: StateLayout;
  /** Parameters, running state and gradients by role. */
  private readonly buffers = new Map<string, GPUBuffer>();
  /** Tables by role: those of the last forward serve the next one. */
  private readonly tables = new Map<string, GPUBuffer>();
  /** Those of forwards without a backward, which leave the others alone. */
  private readonly inferenceTables = new Map<string, GPUBuffer>();
  private readonly plans = new Map<string, Prepared>();
  private readonly bound = new Map<string, Dispatch[]>();
  private last: Call | undefined;
  /** Forwards that await a backward, and why there is none to go back through where none does. */
  private awaiting = 0;
  private otherwise = NO_FORWARD;
  /** Whether commands of the page's may hold buffers of the layer's, and which it let go of since. */
  private outside = false;
  private retired: GPUBuffer[] = [];
  private destroyed = false;
  private mode = true;
  private gradEnabled = true;

  /**
   * A layer with PyTorch's initial state: weights 1, biases 0, running mean 0, running variance 1.
   *
   * @throws {BcNormError} `not-initialized`, `argument`, `norm`, `tuning`, `limit`, `device-lost`.
   */
  static async create(device: GPUDevice, kind: NormKind, options: NormOptions): Promise<Norm> {
    check("device", device, DEVICE);
    const context = await Context.ready(device);
    let norm: Norm | undefined;
    try {
      return await scoped(device, "the layer", () => (norm = new Norm(context, kind, options)));
    } catch (error) {
      norm?.destroy();
      throw error;
    }
  }

  private constructor(context: Context, kind: NormKind, options: NormOptions) {
    const module = planner();
    this.device = context.device;
    this.kind = kind;
    this.context = context;
    context.check();
    this.norm = normOf(module, kind, options);
    this.activation = options.activation ?? "none";
    this.stats = statsOf(kind, options);
    const { tuning } = options;
    this.tuning =
      tuning === undefined ? this.context.tuning : guarded(() => module.Tuning.parse(tuning));
    this.layout = JSON.parse(this.norm.stateLayout());
    this.allocate();
  }

  /** Refuses what comes after `destroy`. */
  private alive(): void {
    if (this.destroyed) {
      throw new BcNormError("order", "the layer was destroyed: create a new one");
    }
  }

  /** What every call that reaches the device begins with. */
  private ready(): void {
    this.alive();
    this.context.check();
  }

  /** Whether it is in training mode. */
  get training(): boolean {
    return this.mode;
  }

  /** Sets training mode. */
  train(): void {
    this.alive();
    this.mode = true;
  }

  /** Sets evaluation mode. */
  eval(): void {
    this.alive();
    this.mode = false;
  }

  /** Whether forward saves what backward needs, as `torch.set_grad_enabled`: true at first. */
  setGradEnabled(enabled: boolean): void {
    this.alive();
    check("enabled", enabled, BOOLEAN);
    this.gradEnabled = enabled;
  }

  /**
   * Sets where channel statistics come from from now on: a new momentum, or the next moving speed.
   *
   * @throws {BcNormError} `argument`, `norm`, also of a norm that keeps none; the layer is unchanged then.
   */
  setStats(stats: StatsOptions): void {
    this.alive();
    checkStats(this.kind, stats);
    if (stats.momentum !== undefined && this.layout.batchCount === null) {
      throw new BcNormError(
        "norm",
        "a momentum moves running statistics, of which the layer has none: create it with trackRunningStats: true",
      );
    }
    guarded(() => {
      try {
        applyStats(this.norm, stats);
        this.norm.validate();
      } catch (error) {
        applyStats(this.norm, this.stats);
        throw error;
      }
    });
    this.stats = { ...stats };
    this.layout = JSON.parse(this.norm.stateLayout());
    // Estimates are running statistics, which the layer may have gone without.
    this.allocate();
  }

  /** Makes the buffers that the norm has and the layer lacks. */
  private allocate(): void {
    const usage = STORAGE | COPY_SRC | COPY_DST;
    const make = (role: string, len: number, value: number): void => {
      if (!this.buffers.has(role)) {
        checkSize(this.device, role, 4 * len, "use fewer channels");
        const values = new Float32Array(len).fill(value);
        this.buffers.set(role, bufferWith(this.device, role, bytesOf(values), usage));
      }
    };
    for (const { role, dims, initial, gradient } of this.layout.entries) {
      const len = dims.reduce((product, size) => product * size, 1);
      make(role, len, initial);
      if (gradient !== null) {
        make(gradient, len, 0);
      }
    }
    if (this.layout.batchCount !== null) {
      make(COUNT, 1, 0);
    }
  }

  /**
   * The buffer of a parameter (`weight`, `bias`, `bn.weight`, ...), of a running statistic (`running_mean`; BCNorm's
   * `bn.running_mean`) or of a gradient (`grad_weight`, ...): bound to an optimizer's kernels, say.
   */
  buffer(name: string): GPUBuffer | undefined {
    this.alive();
    const entry = this.layout.entries.find((known) => known.name === name);
    const role = name === this.layout.batchCount ? COUNT : (entry?.role ?? name);
    return this.buffers.get(role);
  }

  /**
   * Compiles what calls with such an x need, without holding up the page.
   *
   * @throws {BcNormError} as `encodeForward`.
   */
  async prepare(
    x: Tensor,
    options: { residual?: boolean; inPlace?: boolean } = {},
  ): Promise<void> {
    this.ready();
    checkOptions("prepare", options, { residual: BOOLEAN, inPlace: BOOLEAN });
    const pass = this.pass(x, options.residual === true, options.inPlace === true);
    const plans = [this.prepared("forward", pass)];
    if (goesBack(pass)) {
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
   * @throws {BcNormError} `argument`, `tensor`, `norm`, `buffer`, `limit`, `order` (in place in training),
   * `device-lost`; nothing is recorded then.
   */
  encodeForward(target: Target, args: ForwardArgs): Tensor {
    this.ready();
    check("the target", target, TARGET);
    checkOptions("encodeForward", args, { x: ANY, ...FORWARD_OPTIONS });
    this.outside = true;
    return this.recordForward(target, args);
  }

  private recordForward(target: Target, args: ForwardArgs): Tensor {
    const { x, residual } = args;
    this.ready();
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
    const withBackward = goesBack(pass);
    record(target, this.bind(prepared, slots, withBackward ? this.tables : this.inferenceTables));
    if (withBackward) {
      this.awaiting += 1;
      this.last = { pass, residual };
    } else if (this.last !== undefined && [this.last.pass.x, this.last.residual].some((read) => overlap(read, y))) {
      this.settle(IN_PLACE);
    } else if (this.awaiting === 0) {
      this.otherwise = pass.inPlace ? IN_PLACE : NO_GRAD;
    }
    return y;
  }

  /** Nothing awaits a backward any more. */
  private settle(otherwise: string): void {
    this.last = undefined;
    this.awaiting = 0;
    this.otherwise = otherwise;
  }

  /**
   * Says that no backward follows the forwards so far, such as an evaluation with gradients enabled or a step that is
   * given up: the next forward is the only one again. What they added to running statistics stays.
   */
  discard(): void {
    this.alive();
    this.settle(NO_FORWARD);
  }

  /**
   * Records the gradients for the x of the last forward: that of x is returned, those of the parameters are added
   * to their buffers.
   *
   * @throws {BcNormError} as `encodeForward`, and `order` unless there is one forward that backward can go back
   * through.
   */
  encodeBackward(target: Target, args: BackwardArgs): Gradients {
    this.ready();
    check("the target", target, TARGET);
    checkOptions("encodeBackward", args, { gradY: ANY, ...BACKWARD_OPTIONS });
    this.outside = true;
    return this.recordBackward(target, args);
  }

  private recordBackward(target: Target, args: BackwardArgs): Gradients {
    const { gradY } = args;
    this.ready();
    check("gradY", gradY, TENSOR);
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
    record(target, this.bind(prepared, slots, this.tables));
    this.settle(TWICE);
    return gradResidual === undefined ? { gradX } : { gradX, gradResidual };
  }

  /**
   * Compiles, records and submits y = activation(norm(x) + residual), and waits until the browser has checked it.
   *
   * @throws {BcNormError} as `encodeForward`; `buffer` for a tensor that is destroyed or another device's, too.
   */
  async forward(x: Tensor, options: Omit<ForwardArgs, "x"> = {}): Promise<Tensor> {
    this.ready();
    checkOptions("forward", options, FORWARD_OPTIONS);
    const pass = this.pass(x, options.residual !== undefined, options.inPlace === true);
    await this.compile([this.prepared("forward", pass)]);
    return this.submit("forward", (encoder) => this.recordForward(encoder, { ...options, x }));
  }

  /** Compiles, records and submits the backward of the last forward; as `forward`. */
  async backward(gradY: Tensor, options: Omit<BackwardArgs, "gradY"> = {}): Promise<Gradients> {
    this.ready();
    check("gradY", gradY, TENSOR);
    checkOptions("backward", options, BACKWARD_OPTIONS);
    const { pass, residual } = this.saved();
    const through = residual !== undefined && this.activation !== "none";
    await this.compile([this.prepared("backward", { ...pass, residual: through })]);
    return this.submit("backward", (encoder) => this.recordBackward(encoder, { ...options, gradY }));
  }

  private async submit<T>(what: string, encode: (encoder: GPUCommandEncoder) => T): Promise<T> {
    let recorded = false;
    try {
      return await scoped(this.device, what, () => {
        const encoder = this.device.createCommandEncoder({ label: "bcnorm" });
        const result = encode(encoder);
        this.device.queue.submit([encoder.finish()]);
        recorded = true;
        return result;
      });
    } catch (error) {
      if (recorded) {
        // Tables may be among what was refused.
        this.drop();
      }
      throw error;
    }
  }

  /** Clears the parameters' gradients: records it, or, without an encoder, does it. */
  zeroGrad(encoder?: GPUCommandEncoder): void {
    this.ready();
    const clear = (into: GPUCommandEncoder): void => {
      for (const { gradient } of this.layout.entries) {
        const buffer = gradient === null ? undefined : this.buffers.get(gradient);
        if (buffer !== undefined) {
          into.clearBuffer(buffer);
        }
      }
    };
    if (encoder === undefined) {
      const own = this.device.createCommandEncoder({ label: "bcnorm" });
      clear(own);
      this.device.queue.submit([own.finish()]);
    } else {
      check("the encoder", encoder, ENCODER);
      clear(encoder);
    }
  }

  /** Reads parameters and running state back. */
  async stateDict(): Promise<StateDict> {
    this.ready();
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
    this.ready();
    const dict = stateOf(planner(), state);
    try {
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
    } finally {
      dict.free();
    }
  }

  /** The state dict as a safetensors file. */
  async saveSafetensors(): Promise<Uint8Array> {
    return writeStateDict(await this.stateDict());
  }

  /** Loads a safetensors file; of a model's, one module (`layer1.0.bn1`). */
  loadSafetensors(bytes: Uint8Array, options: { module?: string } = {}): void {
    this.ready();
    check("a safetensors file", bytes, BYTES);
    checkOptions("loadSafetensors", options, { module: TEXT });
    this.loadStateDict(readStateDict(bytes, options.module));
  }

  /**
   * Lets go of the last forward, of plans and of tables, and destroys their buffers: submit before what was recorded
   * with them. Parameters and state stay.
   */
  forget(): void {
    this.alive();
    this.outside = false;
    this.drop();
    this.retired.forEach(destroyBuffer);
    this.retired = [];
  }

  /** Destroys its buffers. Submit before what was recorded with them; after it, only `destroy` may be called. */
  destroy(): void {
    if (this.destroyed) {
      return;
    }
    this.forget();
    this.destroyed = true;
    [...this.buffers.values()].forEach(destroyBuffer);
    this.buffers.clear();
    this.norm.free();
    if (this.tuning !== this.context.tuning) {
      this.tuning.free();
    }
  }

  private drop(): void {
    this.settle(NO_FORWARD);
    for (const key of [...this.plans.keys()]) {
      this.evict(key);
    }
    for (const tables of [this.tables, this.inferenceTables]) {
      [...tables.values()].forEach((buffer) => this.retire(buffer));
      tables.clear();
    }
    this.bound.clear();
  }

  /**
   * Destroys a buffer that is needed no more. Commands that the page has yet to submit may hold it: then it is
   * destroyed with what `forget` destroys.
   */
  private retire(buffer: GPUBuffer): void {
    if (this.outside) {
      this.retired.push(buffer);
    } else {
      destroyBuffer(buffer);
    }
  }

  private own(role: string): GPUBuffer {
    return this.buffers.get(role) ?? this.missing(role);
  }

  private pass(x: Tensor, residual: boolean, inPlace: boolean): Pass {
    check("x", x, TENSOR);
    const inference = !this.gradEnabled;
    return { x, training: this.mode, residual, inPlace, inference, norm: JSON.stringify(this.stats) };
  }

  private saved(): Call {
    if (this.awaiting > 1) {
      throw new BcNormError(
        "order",
        `backward after ${this.awaiting} forwards, any of which may be meant: give each use a layer of its own, disable ` +
          "gradients for a forward that needs none (setGradEnabled(false)), or call discard() after it",
      );
    }
    if (this.last === undefined) {
      throw new BcNormError("order", this.otherwise);
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
    const [oldest] = this.plans.keys();
    if (this.plans.size > MAX_PLANS && oldest !== undefined) {
      this.evict(oldest);
    }
    return prepared;
  }

  private evict(key: string): void {
    const { plan, uniforms } = this.plans.get(key) ?? {};
    plan?.free();
    this.plans.delete(key);
    if (uniforms !== undefined) {
      const prefix = `${id(uniforms)} `;
      for (const bound of [...this.bound.keys()].filter((known) => known.startsWith(prefix))) {
        this.bound.delete(bound);
      }
      this.retire(uniforms);
    }
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
    if (data.steps.length === 0) {
      return { plan, data, uniforms: undefined, stride: 0 };
    }
    const bytes = plan.uniforms(ALIGNMENT);
    const uniforms = bufferWith(this.device, "bcnorm params", bytes, UNIFORM);
    return { plan, data, uniforms, stride: bytes.byteLength / data.steps.length };
  }

  /** A tensor like x, of zeros, in a buffer of its own. */
  private tensorLike(x: Tensor): Tensor {
    checkBuffer(this.device, "x", x.buffer);
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

  /** Makes the tables that a plan needs. Where one must grow, nothing that is bound to the old one is kept. */
  private grow(data: PlanData, tables: Map<string, GPUBuffer>): void {
    for (const { role, bytes, kind } of data.needs) {
      const known = tables.get(role);
      if (kind === "caller" || (known !== undefined && known.size >= bytes)) {
        continue;
      }
      tables.set(role, makeBuffer(this.device, role, bytes, STORAGE | COPY_SRC | COPY_DST));
      this.bound.clear();
      if (known !== undefined) {
        this.retire(known);
      }
    }
  }

  /** The dispatches of a plan with these tensors and tables, and the layer's own buffers. */
  private bind(prepared: Prepared, tensors: ReadonlyMap<string, Slot>, tables: Map<string, GPUBuffer>): Dispatch[] {
    const { plan, data, uniforms, stride } = prepared;
    for (const [role, { buffer }] of tensors) {
      checkBuffer(this.device, role, buffer);
    }
    if (uniforms === undefined) {
      return [];
    }
    this.grow(data, tables);
    const ids = [...tensors].map(([role, { buffer, offset }]) => `${role} ${id(buffer)} ${offset}`);
    const key = `${id(uniforms)} ${ids.join(" ")}`;
    const known = this.bound.get(key);
    if (known !== undefined) {
      return known;
    }
    const slots = new Map(tensors);
    for (const [role, buffer] of [...this.buffers, ...tables]) {
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
      const uniform = { buffer: uniforms, offset: index * stride, size: stride };
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

/** A multiple of every alignment of uniforms that a device may have. */
const ALIGNMENT = 256;

/** Whether backward may follow. */
function goesBack({ inPlace, inference }: Pass): boolean {
  return !inPlace && !inference;
}

/** Whether two tensors share memory. */
function overlap(one: Tensor | undefined, other: Tensor): boolean {
  return (
    one?.buffer === other.buffer &&
    one.offset < other.offset + other.byteLength &&
    other.offset < one.offset + one.byteLength
  );
}

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
