import { BcNormError, text } from "./errors.js";
import { checkAlive } from "./lost.js";
import { COPY_DST, MAP_READ, READ_MODE } from "./usage.js";

/** Whose the buffers are that this package made. WebGPU tells no buffer's device. */
const owners = new WeakMap<GPUBuffer, GPUDevice>();
const destroyed = new WeakSet<GPUBuffer>();

/** The device of a buffer that this package made. */
export function ownerOf(buffer: GPUBuffer): GPUDevice | undefined {
  return owners.get(buffer);
}

/** Destroys a buffer, and remembers it. */
export function destroyBuffer(buffer: GPUBuffer): void {
  destroyed.add(buffer);
  buffer.destroy();
}

/** Refuses a buffer that is known to be destroyed, or another device's. */
export function checkBuffer(device: GPUDevice, name: string, buffer: GPUBuffer): void {
  if (destroyed.has(buffer)) {
    throw new BcNormError("buffer", `${name} was destroyed`);
  }
  const owner = owners.get(buffer);
  if (owner !== undefined && owner !== device) {
    throw new BcNormError(
      "buffer",
      `${name} belongs to another device: make all that is used together with one GPUDevice`,
    );
  }
}

/** Refuses a buffer beyond what a device makes. */
export function checkSize(device: GPUDevice, name: string, size: number, wayOut: string): void {
  const limit = device.limits.maxBufferSize;
  if (size > limit) {
    throw new BcNormError(
      "limit",
      `${name} takes ${size} bytes, over the limit ${limit} (maxBufferSize of the device): request the device with ` +
        `the adapter's limits, or ${wayOut}`,
    );
  }
}

/** Makes a buffer of 4 bytes at least. Whether there is memory for it, an error scope tells. */
export function makeBuffer(device: GPUDevice, label: string, size: number, usage: number, mapped = false): GPUBuffer {
  try {
    const buffer = device.createBuffer({ label, size: Math.max(4, size), usage, mappedAtCreation: mapped });
    owners.set(buffer, device);
    return buffer;
  } catch (cause) {
    checkAlive(device);
    throw new BcNormError("limit", `there is no memory for ${label}, ${size} bytes: ${text(cause)}`, { cause });
  }
}

/** A buffer with these bytes, padded to a multiple of 4. */
export function bufferWith(
  device: GPUDevice,
  label: string,
  bytes: Uint8Array,
  usage: number,
): GPUBuffer {
  const buffer = makeBuffer(device, label, Math.ceil(bytes.byteLength / 4) * 4, usage, true);
  new Uint8Array(buffer.getMappedRange()).set(bytes);
  buffer.unmap();
  return buffer;
}

/**
 * Runs what WebGPU finds the faults of later, and waits until it has looked.
 *
 * @throws {BcNormError} `limit` without memory, `buffer` for what it refuses, `device-lost`.
 */
export async function scoped<T>(device: GPUDevice, what: string, run: () => T): Promise<T> {
  device.pushErrorScope("out-of-memory");
  device.pushErrorScope("validation");
  let result: T;
  let told: Promise<(GPUError | null)[]>;
  try {
    result = run();
  } finally {
    // A device that is lost has nothing to tell.
    const tell = (): Promise<GPUError | null> => device.popErrorScope().catch(() => null);
    told = Promise.all([tell(), tell()]);
  }
  const [refused, memory] = await told;
  checkAlive(device);
  if (memory != null) {
    throw new BcNormError(
      "limit",
      `${what}: the device has no memory for it (${memory.message}): use smaller tensors, and destroy() those that ` +
        "are done with",
    );
  }
  if (refused != null) {
    throw new BcNormError(
      "buffer",
      `${what}: WebGPU refuses a buffer, as one of another device, one that was destroyed, and one without memory ` +
        `(${refused.message})`,
    );
  }
  return result;
}

/** The bytes of a typed array. */
export function bytesOf(values: ArrayBufferView): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}

/** A range of a buffer to read. */
export interface Range {
  readonly buffer: GPUBuffer;
  readonly offset: number;
  /** A multiple of 4. */
  readonly bytes: number;
}

/** Reads ranges back: submits one copy of all and waits for it. */
export async function readBack(device: GPUDevice, ranges: readonly Range[]): Promise<Uint8Array[]> {
  const total = ranges.reduce((sum, range) => sum + range.bytes, 0);
  if (total === 0) {
    return ranges.map(() => new Uint8Array(0));
  }
  checkAlive(device);
  checkSize(device, "what is read", total, "read it in parts");
  let made: GPUBuffer | undefined;
  try {
    const staging = await scoped(device, "reading", () => {
      const staging = (made = makeBuffer(device, "bcnorm readback", total, COPY_DST | MAP_READ));
      const encoder = device.createCommandEncoder({ label: "bcnorm readback" });
      let at = 0;
      for (const { buffer, offset, bytes } of ranges) {
        if (bytes > 0) {
          encoder.copyBufferToBuffer(buffer, offset, staging, at, bytes);
        }
        at += bytes;
      }
      device.queue.submit([encoder.finish()]);
      return staging;
    });
    try {
      await staging.mapAsync(READ_MODE);
    } catch (cause) {
      // The loss is told by a promise of its own, which settles at about the same time.
      await Promise.race([device.lost, new Promise((resolve) => setTimeout(resolve, 100))]);
      checkAlive(device);
      throw new BcNormError("device", `a buffer cannot be read: ${text(cause)}`, { cause });
    }
    const all = new Uint8Array(staging.getMappedRange());
    let at = 0;
    return ranges.map(({ bytes }) => {
      at += bytes;
      return all.slice(at - bytes, at);
    });
  } finally {
    made?.destroy();
  }
}
