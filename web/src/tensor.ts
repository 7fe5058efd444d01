import { BcNormError } from "./errors.js";
import { bufferWith, bytesOf, readBack } from "./gpu.js";
import { planner } from "./planner.js";
import { shapeOf, type DType, type Layout, type TensorOptions } from "./shape.js";
import { COPY_DST, COPY_SRC, STORAGE } from "./usage.js";

/** A contiguous tensor (N, C, *spatial) in a buffer of the page's. */
export class Tensor {
  readonly buffer: GPUBuffer;
  /** Where in the buffer it begins, in bytes: a multiple of 256. */
  readonly offset: number;
  readonly dims: readonly number[];
  readonly dtype: DType;
  readonly layout: Layout;

  /**
   * Views a buffer (usage STORAGE; COPY_SRC to be read). Whether it is large enough, aligned and of that usage
   * is checked where it is used.
   */
  constructor(
    buffer: GPUBuffer,
    dims: readonly number[],
    options: TensorOptions & { offset?: number } = {},
  ) {
    for (const size of dims) {
      if (!Number.isInteger(size) || size < 0 || size > 0xffffffff) {
        throw new BcNormError(
          "tensor",
          `a tensor of shape [${dims.join(", ")}]: ${size} is no size, which is a whole number up to 4294967295`,
        );
      }
    }
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

  /** Uploads values, in the order in memory that the layout says, rounded to the type. */
  static from(
    device: GPUDevice,
    dims: readonly number[],
    values: Float32Array,
    options: TensorOptions = {},
  ): Tensor {
    const { elements } = sizes(dims, options);
    if (values.length !== elements) {
      throw new BcNormError(
        "tensor",
        `the data for a tensor of shape [${dims.join(", ")}] has ${values.length} values, expected ${elements}`,
      );
    }
    const dtype = options.dtype ?? "f32";
    const words = dtype === "f32" ? values : planner().pack(dtype, values);
    const buffer = bufferWith(device, "tensor", bytesOf(words), STORAGE | COPY_SRC | COPY_DST);
    return new Tensor(buffer, dims, options);
  }

  /** A tensor of zeros. */
  static zeros(device: GPUDevice, dims: readonly number[], options: TensorOptions = {}): Tensor {
    const { bufferBytes } = sizes(dims, options);
    const limit = device.limits.maxBufferSize;
    if (bufferBytes > limit) {
      throw new BcNormError(
        "limit",
        `a tensor of shape [${dims.join(", ")}] takes ${bufferBytes} bytes, over the limit ${limit} ` +
          "(maxBufferSize of the device): request the device with the adapter's limits, or split the batch",
      );
    }
    const buffer = device.createBuffer({
      label: "tensor",
      size: Math.max(4, bufferBytes),
      usage: STORAGE | COPY_SRC | COPY_DST,
    });
    return new Tensor(buffer, dims, options);
  }

  /** Number of elements. */
  get elements(): number {
    return sizes(this.dims, this).elements;
  }

  /** Bytes that it takes in its buffer: a multiple of 4. */
  get byteLength(): number {
    return sizes(this.dims, this).bufferBytes;
  }

  /** Reads the values back as f32, in their order in memory: submits a copy and waits for it. */
  async read(device: GPUDevice): Promise<Float32Array> {
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

  /** Destroys the buffer, whoever else uses it. */
  destroy(): void {
    this.buffer.destroy();
  }
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
