/** MNIST's digits, from IDX files. */

/** Pixels across. */
export const SIZE = 28;
const PIXELS = SIZE * SIZE;
/** Of all pixels of MNIST's training digits, from 0 to 1. */
const [MEAN, DEVIATION] = [0.1307, 0.3081];

/** Some digits; of pixels 0 is paper, 255 ink. */
export interface Digits {
  readonly count: number;
  readonly pixels: Uint8Array;
  readonly labels: Uint8Array;
}

/** The pixels of one. */
export function pixelsOf({ pixels }: Digits, index: number): Uint8Array {
  return pixels.subarray(index * PIXELS, (index + 1) * PIXELS);
}

/** What a network takes of pixels, into a place of a batch. */
export function standardize(pixels: Uint8Array, into: Float32Array, at = 0): void {
  for (let i = 0; i < PIXELS; i++) {
    into[at * PIXELS + i] = ((pixels[i] as number) / 255 - MEAN) / DEVIATION;
  }
}

/** Images (N, 28, 28, 1) and labels, one of ten (N, 10), of some digits. */
export function batchOf(digits: Digits, indices: ArrayLike<number>): { images: Float32Array; labels: Float32Array } {
  const images = new Float32Array(indices.length * PIXELS);
  const labels = new Float32Array(indices.length * 10);
  for (let i = 0; i < indices.length; i++) {
    const index = indices[i] as number;
    standardize(pixelsOf(digits, index), images, i);
    labels[i * 10 + (digits.labels[index] as number)] = 1;
  }
  return { images, labels };
}

/** Fetches NAME-images.idx3.gz and NAME-labels.idx1.gz of a folder. */
export async function fetchDigits(folder: URL, name: "train" | "test"): Promise<Digits> {
  const [pixels, labels] = await Promise.all([
    idx(new URL(`${name}-images.idx3.gz`, folder), 3),
    idx(new URL(`${name}-labels.idx1.gz`, folder), 1),
  ]);
  const count = labels.values.length;
  if (pixels.dims.join() !== [count, SIZE, SIZE].join()) {
    throw new Error(`${name} has images (${pixels.dims.join(", ")}) for ${count} labels, expected (${count}, 28, 28)`);
  }
  return { count, pixels: pixels.values, labels: labels.values };
}

/** An IDX file of bytes: 0, 0, 8 for bytes, the rank, the sizes as big-endian u32, the values. */
async function idx(file: URL, rank: number): Promise<{ dims: number[]; values: Uint8Array }> {
  const response = await fetch(file);
  if (!response.ok || response.body === null) {
    throw new Error(`${file.href}: ${response.status} ${response.statusText}`);
  }
  // A server that says `Content-Encoding: gzip` has the browser unpack it.
  const packed = new Uint8Array(await response.arrayBuffer());
  const zipped = packed[0] === 0x1f && packed[1] === 0x8b;
  const bytes = zipped ? await unzipped(packed) : packed;
  const head = 4 + 4 * rank;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < head || view.getUint32(0) !== 0x800 + rank) {
    throw new Error(`${file.href} is no IDX file of bytes in ${rank} dimensions`);
  }
  const dims = Array.from({ length: rank }, (_, i) => view.getUint32(4 + 4 * i));
  const values = bytes.subarray(head);
  if (values.length !== dims.reduce((product, size) => product * size, 1)) {
    throw new Error(`${file.href} has ${values.length} values, but says (${dims.join(", ")})`);
  }
  return { dims, values };
}

async function unzipped(bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
