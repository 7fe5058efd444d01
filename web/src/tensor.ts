import { bufferWith, bytesOf, checkBuffer, checkSize, destroyBuffer, makeBuffer, ownerOf, readBack } from "./buffers.js";
import { BUFFER, check, checkOptions, DEVICE, FLOATS, NUMBER, type Want } from "./check.js";
import { BcNormError } from "./errors.js";
import { checkAlive } from "./lost.js";
import { planner } from "./planner.js";
import { checkDims, shapeOf, TENSOR_OPTIONS, type DType, type Layout, type TensorOptions } from "./shape.js";
import { COPY_DST, COPY_SRC, STORAGE } from "./usage.js";

/**
 * A contiguous tensor (N, C, *spatial) in a buffer of a device. Its memory is held until {@link Tensor.destroy}: the
 * browser's collector does not see how much it is.
 */
export class Tensor {
  readonly buffer: GPUBuffer;
  /** Where in the buffer it begins, in bytes: a multiple of 256. */
  readonly offset: number;
  readonly dims: readonly number[];
  readonly dtype: DType;
  readonly layout: Layout;

  /**
   * Views a buffer (usage STORAGE; COPY_SRC to be read). Whether it is large enough, aligned and of that usage
   * is checked where it is used. Of which device a buffer of the page's is, WebGPU tells nobody: `forward`, `backward`
   * and `read` throw where it is another one, `recordForward` and `recordBackward` leave it to the browser, which
   * refuses the submission by an error of its own (`uncapturederror`).
   *
   * @throws {BcNormError} `argument`, `tensor`.
   */
  constructor(
    buffer: GPUBuffer,
    dims: readonly number[],
    options: TensorOptions & { offset?: number } = {},
  ) {
    check("buffer", buffer, BUFFER);
    checkOptions("a tensor", options, { ...TENSOR_OPTIONS, offset: NUMBER });
    checkDims(dims);
    const offset = options.offset ?? 0;
    if (!Number.isInteger(offset) || offset < 0) {
      throw new BcNormError("tensor", `the offset ${offset} is no number of bytes`);
    }
    this.buffer = buffer;
    this.offset = offset;
    this.dims = Object.freeze([...dims]);
    this.dtype = options.dtype ?? "f32";
    this.layout = options.layout ?? "channels_first";
  }

  /**
   * Uploads values, in the order in memory that the layout says, rounded to the type.
   *
   * @throws {BcNormError} `argument`, `tensor`, `limit`, `device-lost`.
   */
  static from(
    device: GPUDevice,
    dims: readonly number[],
    values: Float32Array,
    options: TensorOptions = {},
  ): Tensor {
    check("values", values, FLOATS);
    const { elements } = checked(device, dims, options);
    if (values.length !== elements) {
      throw new BcNormError(
        "tensor",
        `the data for a tensor of shape [${dims.join(", ")}] has ${values.length} values, expected ${elements}`,
      );
    }
    const dtype = options.dtype ?? "f32";
    const words = dtype === "f32" ? values : planner().pack(dtype, values);
    return new Tensor(bufferWith(device, "tensor", bytesOf(words), USAGE), dims, stored(options));
  }

  /**
   * A tensor of zeros.
   *
   * @throws {BcNormError} `argument`, `tensor`, `limit`, `device-lost`.
   */
  static zeros(device: GPUDevice, dims: readonly number[], options: TensorOptions = {}): Tensor {
    const { bufferBytes } = checked(device, dims, options);
    return new Tensor(makeBuffer(device, "tensor", bufferBytes, USAGE), dims, stored(options));
  }

  /** Its device; undefined for a buffer that this package did not make. */
  get device(): GPUDevice | undefined {
    return ownerOf(this.buffer);
  }

  /** Number of elements. */
  get elements(): number {
    return sizes(this.dims, this).elements;
  }

  /** Bytes that it takes in its buffer: a multiple of 4. */
  get byteLength(): number {
    return sizes(this.dims, this).bufferBytes;
  }

  /**
   * Reads the values back as f32, in their order in memory: submits a copy and waits for it.
   *
   * @throws {BcNormError} `argument`, `buffer`, `limit`, `device-lost`.
   */
  async read(device: GPUDevice): Promise<Float32Array> {
    check("device", device, DEVICE);
    checkBuffer(device, "the tensor", this.buffer);
    const { elements, bufferBytes } = sizes(this.dims, this);
    if (this.offset + bufferBytes > this.buffer.size) {
      throw new BcNormError(
        "buffer",
        `the tensor needs ${bufferBytes} bytes at offset ${this.offset}, but its buffer ends at ${this.buffer.size}`,
      );
    }
    if ((this.buffer.usage & COPY_SRC) === 0) {
      throw new BcNormError("buffer", "the buffer lacks GPUBufferUsage.COPY_SRC, so it cannot be read");
    }
    const range = { buffer: this.buffer, offset: this.offset, bytes: bufferBytes };
    const [bytes] = await readBack(device, [range]);
    const { buffer } = bytes ?? new Uint8Array(0);
    if (this.dtype === "f32") {
      return new Float32Array(buffer as ArrayBuffer);
    }
    return planner().unpack(this.dtype, new Uint32Array(buffer as ArrayBuffer), elements);
  }

  /**
   * Destroys the buffer, whoever else uses it. Submit before what was recorded with it; what was submitted runs to
   * its end.
   */
  destroy(): void {
    destroyBuffer(this.buffer);
  }
}

const USAGE = STORAGE | COPY_SRC | COPY_DST;

/** What an argument must be to be a tensor. @internal */
export const TENSOR: Want = ["a Tensor (Tensor.from uploads values)", (value) => value instanceof Tensor];

/** How a tensor is stored, without where another one begins. */
function stored({ dtype = "f32", layout = "channels_first" }: TensorOptions): TensorOptions {
  return { dtype, layout };
}

/** Sizes of a tensor that is to be made on a device. */
function checked(device: GPUDevice, dims: readonly number[], options: TensorOptions): ReturnType<typeof sizes> {
  check("device", device, DEVICE);
  // A tensor says how it is stored, too.
  if (!(options instanceof Tensor)) {
    checkOptions("a tensor", options, TENSOR_OPTIONS);
  }
  checkAlive(device);
  const found = sizes(dims, options);
  checkSize(device, `a tensor of shape [${dims.join(", ")}]`, found.bufferBytes, "split the batch");
  return found;
}

function sizes(
  dims: readonly number[],
  options: TensorOptions,
): { elements: number; bufferBytes: number } {
  // As filters, so that any rank from 1 on will do here; norms ask for more.
  const found = shapeOf(planner(), dims, options, true);
  const result = { elements: found.elements(), bufferBytes: found.bufferBytes() };
  found.free();
  return result;
}
