import { bufferWith, bytesOf, checkBuffer, checkSize, destroyBuffer, makeBuffer, readBack, scoped } from "./buffers.js";
import { BOOLEAN, BYTES, check, checkOptions, DEVICE, ENCODER, TARGET, TEXT } from "./check.js";
import { BcNormError, guarded } from "./errors.js";
import { Context } from "./gpu.js";
import { checkStats, normOf, type Activation, type NormKind, type NormOptions, type StatsOptions } from "./options.js";
import { planner, type PlanData } from "./planner.js";
import type { Norm as PlannedNorm, Tuning } from "./planner/bcnorm_planner.js";
import {
  goesBack,
  id,
  missing,
  Plans,
  record,
  type Dispatch,
  type Pass,
  type Prepared,
  type Slot,
  type Target,
} from "./plans.js";
import { readStateDict, writeStateDict } from "./safetensors.js";
import { Saved, SAVED, type Workspace } from "./saved.js";
import { shapeLike, type Shape, type TensorOptions } from "./shape.js";
import { stateOf, type StateDict, type StateLayout } from "./state.js";
import { Tensor, TENSOR } from "./tensor.js";
import { COPY_DST, COPY_SRC, STORAGE } from "./usage.js";

/** What forward computes y = activation(norm(x) + residual) of, and where y goes. */
export interface ForwardArgs {
  /** (N, C, *spatial). */
  readonly x: Tensor;
  /** Where y goes, a tensor as x; default: a new tensor, which is the caller's to destroy. */
  readonly y?: Tensor;
  /** A tensor as x. */
  readonly residual?: Tensor;
  /** In evaluation: y takes x's place, and no backward can follow. */
  readonly inPlace?: boolean;
  /**
   * Computes in training what an earlier forward of this x computed, and leaves the running statistics and the count of
   * batches as they are: for the second forward of a checkpointed block, whose first one has moved them.
   *
   * By the batch's statistics it computes the same bits. Estimated statistics are taken as they are now: as the first
   * forward left them, to the rounding of f32, unless another training forward of the layer came in between.
   */
  readonly recompute?: boolean;
}

export interface ForwardResult {
  /** x, where it was done in place. */
  readonly y: Tensor;
  /** What backward takes. Dispose of it where no backward follows. */
  readonly saved: Saved;
}

export interface BackwardArgs {
  /** A tensor as x. */
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

/** The memory of a layer on the GPU, in bytes. */
export interface Memory {
  /** Parameters, their gradients and running state. */
  readonly state: number;
  /** Tables of forwards that await their backward. */
  readonly saved: number;
  /** Tables that wait in the pool for the next forward. */
  readonly idle: number;
}

const FORWARD_ARGS = { x: TENSOR, y: TENSOR, residual: TENSOR, inPlace: BOOLEAN, recompute: BOOLEAN };
const BACKWARD_ARGS = { gradY: TENSOR, gradX: TENSOR, gradResidual: TENSOR };

/** Why a forward saved nothing. */
const IN_PLACE = "that was in place, over the x that backward reads: give forward a y of its own";
const NO_GRAD = "without gradients: call setGradEnabled(true) before forward";
/** Why one can no longer go back. */
const WRITTEN =
  "whose x or residual a later call of the layer wrote over: give that call another tensor to write to";
const LOADED = "whose weight, which backward reads, was loaded over since: load parameters after backward";

const MAX_BOUND = 8;

/**
 * A norm with its parameters, gradients and running state on the page's GPUDevice, in the manner and by the names
 * of torch.nn. In training mode at first.
 *
 * `recordForward`, `recordBackward` and `recordZeroGrad` record into an encoder or a compute pass of the page's; nothing is
 * submitted. `forward`, `backward` and `zeroGrad` do the same in an encoder of their own and submit it. The Rust library has
 * the same verbs.
 *
 * A forward returns y and a `Saved`, which backward takes. Any number of them may live: a layer may be used many times in a
 * network, and micro-batches may be in flight. Backward goes by what was in force at its forward, whatever was set
 * since; where it reads weight (without a channel part), one that was loaded since is refused. Gradients of parameters add up over backwards until `zeroGrad`.
 *
 * Order: submit what a layer recorded in the order in which it was recorded. Running statistics move in that order, and the
 * tables of a `Saved` serve the next forward as soon as a backward has used it or it is disposed of.
 *
 * Memory: what forward and backward return is the caller's, and a tensor holds its memory until its `destroy`. A `Saved`
 * holds tables until a backward takes it, or `dispose`. `memory` says what the layer holds, `release` frees what no `Saved`
 * needs.
 *
 * A loop that gives the same tensors again records what it recorded before: nothing is checked or made anew.
 */
export class Norm {
  readonly device: GPUDevice;
  readonly kind: NormKind;
  readonly activation: Activation;
  private readonly context: Context;
  private readonly tuning: Tuning;
  private norm: PlannedNorm;
  /** What the norm is made of. The statistics' settings may change. */
  private options: NormOptions;
  private layout: StateLayout;
  /** Parameters, running state and gradients by role. */
  private readonly buffers = new Map<string, GPUBuffer>();
  /** The pool of tables: as many as there were `Saved`s at a time. */
  private readonly workspaces: Workspace[] = [];
  private readonly plans: Plans;
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
    this.options = { ...options };
    this.activation = options.activation ?? "none";
    const { tuning } = options;
    this.tuning =
      tuning === undefined ? this.context.tuning : guarded(() => module.Tuning.parse(tuning));
    this.plans = new Plans(context, kind, this.activation, this.tuning, (buffer) => this.retire(buffer));
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
    const { momentum: _, movingSpeed: __, ...others } = this.options;
    const options: NormOptions = { ...others, ...stats };
    const norm = normOf(planner(), this.kind, options);
    this.norm.free();
    this.norm = norm;
    this.options = options;
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
   * Compiles what calls with such an x need, without holding up the page. It takes a tensor, or its shape alone:
   * `prepare({ dims: [2, 64, 28, 28] })`.
   *
   * @throws {BcNormError} as `recordForward`.
   */
  async prepare(
    x: Tensor | ({ readonly dims: readonly number[] } & TensorOptions),
    options: { residual?: boolean; inPlace?: boolean; recompute?: boolean } = {},
  ): Promise<void> {
    this.ready();
    checkOptions("prepare", options, { residual: BOOLEAN, inPlace: BOOLEAN, recompute: BOOLEAN });
    const pass = this.pass({ x: x instanceof Tensor ? x : shapeLike("x", x), ...options });
    const plans = [this.plans.prepared("forward", pass)];
    if (goesBack(pass)) {
      plans.push(this.plans.prepared("backward", this.plans.backwardOf(pass)));
    }
    await this.plans.compile(plans);
  }

  /**
   * Records y = activation(norm(x) + residual), and returns y and what backward needs. In training it moves the running
   * statistics. x and the residual must stay as they are until backward has run. Kernels that are not compiled yet (see
   * `prepare`) are compiled here, while the page waits.
   *
   * @throws {BcNormError} `argument`, `tensor`, `norm`, `buffer`, `limit`, `order` (in place in training),
   * `device-lost`; nothing is recorded then.
   */
  recordForward(target: Target, args: ForwardArgs): ForwardResult {
    this.ready();
    check("the target", target, TARGET);
    checkForward("recordForward", args);
    this.outside = true;
    return this.encodeForward(target, args);
  }

  /**
   * Compiles what is not compiled yet, records as `recordForward`, submits, and waits until the browser has checked it.
   *
   * @throws {BcNormError} as `recordForward`; `buffer` for a tensor that is destroyed or another device's, too.
   */
  async forward(args: ForwardArgs): Promise<ForwardResult> {
    this.ready();
    checkForward("forward", args);
    const given = { ...args };
    await this.plans.compile([this.plans.prepared("forward", this.pass(given))]);
    return this.submit("forward", (encoder) => this.encodeForward(encoder, given));
  }

  private encodeForward(target: Target, args: ForwardArgs): ForwardResult {
    const { x, residual } = args;
    this.ready();
    const pass = this.pass(args);
    like("y", args.y, x);
    like("residual", residual, x);
    const prepared = this.plans.prepared("forward", pass);
    const y = pass.inPlace ? x : (args.y ?? this.tensorLike(x));
    const slots = new Map([["x", slot(x)]]);
    if (!pass.inPlace) {
      slots.set("y", slot(y));
    }
    if (residual !== undefined) {
      slots.set("residual", slot(residual));
    }
    const workspace = this.idle(prepared, slots);
    record(target, this.bind(prepared, slots, workspace));
    this.wrote(y);
    if (!goesBack(pass)) {
      return { y, saved: new Saved(this, pass.inPlace ? IN_PLACE : NO_GRAD) };
    }
    const call = { pass, x, residual, spoiled: undefined };
    workspace.call = call;
    return { y, saved: new Saved(this, { workspace, call }) };
  }

  /**
   * Records the gradients of the forward that returned `saved`: returns those of x and of the residual, and adds those of
   * the parameters to their buffers. `saved` is used up, unless the call is refused.
   *
   * @throws {BcNormError} as `recordForward`, and `order` for a `saved` that it cannot go back through: another layer's, one
   * that was used or disposed of, that of a forward in place or without gradients, or one whose x or residual the layer
   * wrote over since.
   */
  recordBackward(target: Target, saved: Saved, args: BackwardArgs): Gradients {
    this.ready();
    check("the target", target, TARGET);
    checkBackward("recordBackward", saved, args);
    this.outside = true;
    return this.encodeBackward(target, saved, args);
  }

  /**
   * Compiles what is not compiled yet, records as `recordBackward`, submits, and waits until the browser has checked it.
   *
   * @throws {BcNormError} as `recordBackward`; `buffer` for a tensor that is destroyed or another device's, too.
   */
  async backward(saved: Saved, args: BackwardArgs): Promise<Gradients> {
    this.ready();
    checkBackward("backward", saved, args);
    const given = { ...args };
    const { pass } = saved.of(this).call;
    await this.plans.compile([this.plans.prepared("backward", this.plans.backwardOf(pass))]);
    return this.submit("backward", (encoder) => this.encodeBackward(encoder, saved, given));
  }

  private encodeBackward(target: Target, saved: Saved, args: BackwardArgs): Gradients {
    const { gradY } = args;
    this.ready();
    const { workspace, call } = saved.of(this);
    const { x, residual } = call;
    like("gradY", gradY, x);
    like("gradX", args.gradX, x);
    like("gradResidual", args.gradResidual, x);
    const pass = this.plans.backwardOf(call.pass);
    if (args.gradResidual !== undefined && !pass.residual) {
      throw new BcNormError(
        "order",
        residual === undefined
          ? "forward had no residual, and so there is no gradient of it: leave gradResidual out"
          : "without an activation the residual's gradient is gradY itself: leave gradResidual out",
      );
    }
    const prepared = this.plans.prepared("backward", pass);
    const gradX = args.gradX ?? this.tensorLike(x);
    const slots = new Map([
      ["x", slot(x)],
      ["grad_y", slot(gradY)],
      ["grad_x", slot(gradX)],
    ]);
    let gradResidual = residual === undefined ? undefined : gradY;
    if (pass.residual && residual !== undefined) {
      gradResidual = args.gradResidual ?? this.tensorLike(x);
      slots.set("residual", slot(residual)).set("grad_residual", slot(gradResidual));
    }
    record(target, this.bind(prepared, slots, workspace));
    saved.dispose();
    this.wrote(gradX);
    if (gradResidual === undefined) {
      return { gradX };
    }
    if (pass.residual) {
      this.wrote(gradResidual);
    }
    return { gradX, gradResidual };
  }

  private async submit<T extends object>(what: string, encode: (encoder: GPUCommandEncoder) => T): Promise<T> {
    let recorded: T | undefined;
    try {
      return await scoped(this.device, what, () => {
        const encoder = this.device.createCommandEncoder({ label: "bcnorm" });
        recorded = encode(encoder);
        this.device.queue.submit([encoder.finish()]);
        return recorded;
      });
    } catch (error) {
      if (recorded !== undefined) {
        // Tables may be among what was refused.
        if ("saved" in recorded && recorded.saved instanceof Saved) {
          recorded.saved.dispose();
        }
        this.drop();
      }
      throw error;
    }
  }

  /** Records the clearing of the parameters' gradients. */
  recordZeroGrad(encoder: GPUCommandEncoder): void {
    this.ready();
    check("the encoder", encoder, ENCODER);
    for (const { gradient } of this.layout.entries) {
      const buffer = gradient === null ? undefined : this.buffers.get(gradient);
      if (buffer !== undefined) {
        encoder.clearBuffer(buffer);
      }
    }
  }

  /** Clears the parameters' gradients: records as `recordZeroGrad`, and submits. */
  zeroGrad(): void {
    this.ready();
    const encoder = this.device.createCommandEncoder({ label: "bcnorm" });
    this.recordZeroGrad(encoder);
    this.device.queue.submit([encoder.finish()]);
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
      this.loaded();
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

  /** What the layer holds of the GPU's memory: its state, tables of `Saved`s, tables of the pool. Tensors are not counted. */
  memory(): Memory {
    this.alive();
    const sum = (buffers: Iterable<GPUBuffer>): number => [...buffers].reduce((bytes, { size }) => bytes + size, 0);
    const tables = (held: boolean): number =>
      this.workspaces
        .filter(({ call }) => (call !== undefined) === held)
        .reduce((bytes, workspace) => bytes + sum(workspace.tables.values()), 0);
    return { state: sum(this.buffers.values()), saved: tables(true), idle: tables(false) };
  }

  /**
   * Frees what no `Saved` needs, idle tables and plans, and destroys their buffers: submit before what was recorded with
   * them. Parameters and state stay, and every `Saved` can still go back.
   */
  release(): void {
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
    this.workspaces.forEach((workspace) => (workspace.call = undefined));
    this.release();
    this.destroyed = true;
    [...this.buffers.values()].forEach(destroyBuffer);
    this.buffers.clear();
    this.norm.free();
    if (this.tuning !== this.context.tuning) {
      this.tuning.free();
    }
  }

  /** Drops the plans, and the tables that are idle. */
  private drop(): void {
    this.plans.clear();
    const all = this.workspaces.splice(0);
    for (const workspace of all) {
      if (workspace.call === undefined) {
        [...workspace.tables.values()].forEach((buffer) => this.retire(buffer));
      } else {
        this.workspaces.push(workspace);
      }
    }
  }

  /**
   * Destroys a buffer that is needed no more. Commands that the page has yet to submit may hold it: then it is
   * destroyed with what `release` destroys.
   */
  private retire(buffer: GPUBuffer): void {
    if (this.outside) {
      this.retired.push(buffer);
    } else {
      destroyBuffer(buffer);
    }
  }

  private own(role: string): GPUBuffer {
    return this.buffers.get(role) ?? missing(role);
  }

  /** What a forward with such arguments is in the layer's present state. */
  private pass(args: { x: Shape; residual?: unknown; inPlace?: boolean; recompute?: boolean }): Pass {
    const inPlace = args.inPlace === true;
    let { mode: training, options } = this;
    if (training && args.recompute === true && !inPlace) {
      // Estimates are in force as they are, and the batch's statistics without running ones beside them.
      if (this.layout.movingSpeed !== null) {
        training = false;
      } else if (this.layout.batchCount !== null) {
        options = { ...options, trackRunningStats: false };
      }
    }
    const residual = args.residual !== undefined && args.residual !== false;
    return { x: args.x, training, residual, inPlace, inference: !this.gradEnabled, accumulate: true, options };
  }

  /** Notes that a tensor was written: what has read it can no longer go back. */
  private wrote(tensor: Tensor): void {
    for (const { call } of this.workspaces) {
      if (call !== undefined && [call.x, call.residual].some((read) => overlap(read, tensor))) {
        call.spoiled = WRITTEN;
      }
    }
  }

  /** Notes that parameters were loaded: what reads weight in backward can no longer go back. */
  private loaded(): void {
    for (const { call } of this.workspaces) {
      if (call !== undefined) {
        const { data } = this.plans.prepared("backward", this.plans.backwardOf(call.pass));
        if (data.needs.some(({ role }) => role === "weight")) {
          call.spoiled = LOADED;
        }
      }
    }
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

  /** An idle workspace: one that knows the call, else one whose tables are large enough, else any or a new one. */
  private idle(prepared: Prepared, tensors: ReadonlyMap<string, Slot>): Workspace {
    const idle = this.workspaces.filter(({ call }) => call === undefined);
    const key = keyOf(prepared, tensors);
    const fits = ({ tables }: Workspace): boolean =>
      prepared.data.needs.every(({ role, bytes, kind }) => kind === "caller" || (tables.get(role)?.size ?? 0) >= bytes);
    let found = idle.find(({ bound }) => bound.has(key)) ?? idle.find(fits) ?? idle[0];
    if (found === undefined) {
      found = { call: undefined, tables: new Map(), bound: new Map() };
      this.workspaces.push(found);
    }
    return found;
  }

  /** Makes the tables that a plan needs. Where one must grow, nothing that is bound to the old one is kept. */
  private grow(data: PlanData, { tables, bound }: Workspace): void {
    for (const { role, bytes, kind } of data.needs) {
      const known = tables.get(role);
      if (kind === "caller" || (known !== undefined && known.size >= bytes)) {
        continue;
      }
      tables.set(role, makeBuffer(this.device, role, bytes, STORAGE | COPY_SRC | COPY_DST));
      if (known !== undefined) {
        bound.clear();
        this.retire(known);
      }
    }
  }

  /** The dispatches of a plan with these tensors and tables, and the layer's own buffers. */
  private bind(prepared: Prepared, tensors: ReadonlyMap<string, Slot>, workspace: Workspace): Dispatch[] {
    for (const [role, { buffer }] of tensors) {
      checkBuffer(this.device, role, buffer);
    }
    if (prepared.uniforms === undefined) {
      return [];
    }
    this.grow(prepared.data, workspace);
    const { tables, bound } = workspace;
    const key = keyOf(prepared, tensors);
    const known = bound.get(key);
    if (known !== undefined) {
      return known;
    }
    const slots = new Map(tensors);
    for (const [role, buffer] of [...this.buffers, ...tables]) {
      slots.set(role, { buffer, offset: 0 });
    }
    const dispatches = this.plans.bind(prepared, slots);
    bound.set(key, dispatches);
    const [oldest] = bound.keys();
    if (bound.size > MAX_BOUND && oldest !== undefined) {
      bound.delete(oldest);
    }
    return dispatches;
  }
}

/** The counter's role. */
const COUNT = "bn.num_batches_tracked";

/** Refuses arguments of forward that are none, or that contradict each other. */
function checkForward(of: string, args: ForwardArgs): void {
  checkOptions(of, args, FORWARD_ARGS);
  check("x", args.x, TENSOR);
  if (args.inPlace === true && args.y !== undefined) {
    throw new BcNormError("order", "inPlace writes over x: give no y");
  }
}

/** Refuses arguments of backward that are none. */
function checkBackward(of: string, saved: Saved, args: BackwardArgs): void {
  check("saved", saved, SAVED);
  checkOptions(of, args, BACKWARD_ARGS);
  check("gradY", args.gradY, TENSOR);
}

/** What is bound is known by its plan and its tensors. */
function keyOf({ uniforms }: Prepared, tensors: ReadonlyMap<string, Slot>): string {
  const ids = [...tensors].map(([role, { buffer, offset }]) => `${role} ${id(buffer)} ${offset}`);
  return `${uniforms === undefined ? "" : id(uniforms)} ${ids.join(" ")}`;
}

/** Whether two tensors share memory. */
function overlap(one: Tensor | undefined, other: Tensor): boolean {
  return (
    one?.buffer === other.buffer &&
    one.offset < other.offset + other.byteLength &&
    other.offset < one.offset + one.byteLength
  );
}

function slot(tensor: Tensor): Slot {
  return { buffer: tensor.buffer, offset: tensor.offset };
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
