/** tf.js's WebGPU backend from inside: its device, its buffers, its command encoder. */
import type * as core from "@tensorflow/tfjs-core";
import type * as keras from "@tensorflow/tfjs-layers";
import { makeBuffer } from "../buffers.js";
import { BUFFER } from "../check.js";
import { BcNormError } from "../errors.js";
import { Context } from "../gpu.js";
import type { NormKind, NormOptions } from "../options.js";
import { Plans, record, type Dispatch } from "../plans.js";
import { COPY_DST, STORAGE } from "../usage.js";

/**
 * tf.js's namespace: `import * as tf from "@tensorflow/tfjs"`, the `tf` of its script, or `{ ...core, ...layers }` of its
 * packages. By `nodenext` TypeScript sees a `default` in each, which says nothing of the others.
 */
export type Tf = Omit<typeof core, "default"> &
  Partial<Pick<typeof keras, "layers" | "initializers" | "regularizers" | "constraints">>;

/** The versions whose inside this file knows. */
const VERSIONS = "4.22";

/** What the backend knows of a tensor. */
interface TensorData {
  readonly values: unknown;
  readonly resource?: unknown;
  readonly external?: boolean;
}

/** The part of tf.js's `WebGPUBackend` that is used here, most of which its declarations call private. */
interface Backend {
  readonly device: GPUDevice;
  readonly tensorMap: { get(id: object): TensorData };
  /** Tensors that commands not yet submitted use: their buffers are not given to others until then. */
  readonly commandQueueOwnedIds: WeakSet<object>;
  readonly commandEncoder: GPUCommandEncoder | null;
  computePassEncoder: GPUComputePassEncoder | null;
  dispatchCountInPass: number;
  refCount(id: object): number;
  makeTensorInfo(shape: number[], dtype: "float32"): core.TensorInfo;
  uploadToGPU(id: object): void;
  ensureCommandEncoderReady(): void;
  endComputePassEncoder(): void;
  submitQueue(): void;
}

const FUNCTIONS = [
  "refCount",
  "makeTensorInfo",
  "uploadToGPU",
  "ensureCommandEncoderReady",
  "endComputePassEncoder",
  "submitQueue",
];
const OBJECTS = ["device", "tensorMap", "commandQueueOwnedIds"];
const NULLABLE = ["commandEncoder", "computePassEncoder"];
const ENGINE = ["isTapeOn", "makeTensorFromTensorInfo"];

/** What a backend and an engine lack of what is used here. */
function lacking(backend: Record<string, unknown>, engine: Record<string, unknown>): string[] {
  const of = (object: Record<string, unknown>, type: string) => (name: string) => typeof object[name] !== type;
  return [
    ...FUNCTIONS.filter(of(backend, "function")),
    ...OBJECTS.filter(of(backend, "object")),
    ...NULLABLE.filter(of(backend, "object")),
    ...["dispatchCountInPass"].filter(of(backend, "number")),
    ...ENGINE.filter(of(engine, "function")),
    ...["state"].filter(of(engine, "object")),
  ];
}

function refuse(message: string): never {
  throw new BcNormError("tfjs", message);
}

/**
 * tf.js keeps the values that it has read of a tensor, also those of a read that ends after the next write. Of what kernels
 * write in place it keeps none.
 */
const UNCACHED = { get: () => null, set: () => {} };

/** tf.js's flag: after how many dispatches it submits. */
const BATCH = "WEBGPU_DEFERRED_SUBMIT_BATCH_SIZE";

/** What bcnorm and tf.js's WebGPU backend share. @internal */
export class Bridge {
  readonly tf: Tf;
  /** Takes the counts of batches, which Keras's norms do not keep. */
  readonly count: GPUBuffer;
  private readonly backend: Backend;
  private readonly context: Context;
  private readonly plans = new Map<string, Plans>();

  /** Looks at tf.js and its device. */
  static async open(tf: Tf): Promise<Bridge> {
    if (typeof tf?.customGrad !== "function" || typeof tf.engine !== "function") {
      refuse("tf is not tf.js's namespace: give what `import * as tf from \"@tensorflow/tfjs\"` gives");
    }
    await tf.ready();
    const name = tf.getBackend();
    if (name !== "webgpu") {
      refuse(
        `tf.js's backend is ${JSON.stringify(name)}, expected "webgpu": import @tensorflow/tfjs-backend-webgpu, and ` +
          'await tf.setBackend("webgpu") first',
      );
    }
    const backend: unknown = tf.backend();
    const missing = lacking(backend as Record<string, unknown>, tf.engine() as unknown as Record<string, unknown>);
    if (missing.length > 0) {
      refuse(
        `tf.js ${tf.version_core} lacks what bcnorm uses of its WebGPU backend (${missing.join(", ")}): use ` +
          `version ${VERSIONS}`,
      );
    }
    const known = backend as Backend;
    const bridge = new Bridge(tf, known, await Context.ready(known.device));
    const tensor = bridge.make([1]);
    const buffer: unknown = bridge.buffer(tensor);
    tensor.dispose();
    if (!BUFFER[1](buffer)) {
      refuse(`tensors of tf.js ${tf.version_core} have no GPUBuffers: use version ${VERSIONS}`);
    }
    return bridge;
  }

  private constructor(tf: Tf, backend: Backend, context: Context) {
    this.tf = tf;
    this.backend = backend;
    this.context = context;
    this.count = makeBuffer(context.device, "bcnorm count", 4, STORAGE | COPY_DST);
  }

  /** Refuses to go on where tf.js has another backend by now, or its device is lost. */
  check(): void {
    if ((this.tf.backend() as unknown) !== this.backend) {
      refuse(
        `tf.js's backend is ${JSON.stringify(this.tf.getBackend())} by now, not the one that bcnorm was attached to: ` +
          "set that one again, or attach anew",
      );
    }
    this.context.check();
  }

  /** Whether a gradient may be asked for of what is computed now. */
  taped(): boolean {
    return this.tf.engine().isTapeOn();
  }

  /** Whether what is computed now is itself a gradient of which one may be asked for. */
  higherOrder(): boolean {
    return this.tf.engine().state.gradientDepth > 0;
  }

  /** The plans of a norm; those of a momentum or moving speed that changes are among them. */
  plansOf(kind: NormKind, options: NormOptions): Plans {
    const { momentum: _, movingSpeed: __, ...fixed } = options;
    const key = JSON.stringify([kind, fixed]);
    let plans = this.plans.get(key);
    if (plans === undefined) {
      // Uniforms that are needed no more may be in commands that tf.js has yet to submit: they are the collector's.
      plans = new Plans(this.context, kind, options.activation ?? "none", this.context.tuning, () => {});
      this.plans.set(key, plans);
    }
    return plans;
  }

  /** The buffer of a tensor, which is uploaded where it is on the CPU. */
  buffer(tensor: core.Tensor): GPUBuffer {
    // Looking it up moves it here from another backend of tf.js's.
    const data = this.data(tensor);
    this.backend.uploadToGPU(tensor.dataId);
    return data.resource as GPUBuffer;
  }

  private data(tensor: core.Tensor): TensorData {
    return this.backend.tensorMap.get(tensor.dataId);
  }

  /** A tensor of tf.js's pool, whose values are whatever was there. */
  make(shape: readonly number[]): core.Tensor {
    const info = this.backend.makeTensorInfo([...shape], "float32");
    this.backend.uploadToGPU(info.dataId);
    return this.tf.engine().makeTensorFromTensorInfo(info);
  }

  /**
   * The buffer of a variable, to be written. Where another tensor has it, too, or tf.js does not own it, the variable gets a
   * copy first, as tf.js's tensors never change.
   */
  writable(variable: core.Variable): GPUBuffer {
    const from = this.buffer(variable);
    if (this.backend.refCount(variable.dataId) > 1 || this.data(variable).external === true) {
      const copy = this.make(variable.shape);
      this.backend.ensureCommandEncoderReady();
      this.backend.endComputePassEncoder();
      this.backend.commandEncoder?.copyBufferToBuffer(from, 0, this.buffer(copy), 0, 4 * variable.size);
      [variable, copy].forEach(({ dataId }) => this.backend.commandQueueOwnedIds.add(dataId));
      variable.assign(copy);
      copy.dispose();
    }
    const data = this.data(variable);
    Object.defineProperty(data, "values", UNCACHED);
    return data.resource as GPUBuffer;
  }

  /** Records into tf.js's compute pass, in order with its own work, and submits when it would. */
  record(dispatches: readonly Dispatch[], tensors: Iterable<core.Tensor>): void {
    const { backend } = this;
    // Then tf.js compiles what it is given, and runs nothing.
    if (this.tf.env().getBool("WEBGPU_ENGINE_COMPILE_ONLY")) {
      return;
    }
    for (const { dataId } of tensors) {
      backend.commandQueueOwnedIds.add(dataId);
    }
    backend.ensureCommandEncoderReady();
    backend.computePassEncoder ??= (backend.commandEncoder as GPUCommandEncoder).beginComputePass();
    record(backend.computePassEncoder, dispatches);
    backend.dispatchCountInPass += dispatches.length;
    if (backend.dispatchCountInPass >= this.tf.env().getNumber(BATCH)) {
      backend.endComputePassEncoder();
      backend.submitQueue();
    }
  }
}
