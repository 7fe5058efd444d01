import { bank, CHANNELS, cost, Kind, SCRATCH, type Operation } from "./bank.js";
import { breathe } from "./dom.js";
import type { Work } from "./engine.js";

const OPERATIONS = bank();
const TOTAL = OPERATIONS.reduce((sum, operation) => sum + cost(operation), 0);

/** The page answers at least so often, in milliseconds. */
const PAUSE = 50;

/** For places from -radius on: which one is read there, beyond the edge the picture's mirror. */
function mirrored(size: number, radius: number): Int32Array {
  return Int32Array.from({ length: size + 2 * radius }, (_, i) => {
    let to = i - radius;
    while (to < 0 || to >= size) {
      to = to < 0 ? -1 - to : 2 * size - 1 - to;
    }
    return to;
  });
}

function filter(from: Float32Array, operation: Operation, size: number): Float32Array {
  const { kind, taps = [] } = operation;
  const result = new Float32Array(size * size);
  const places = mirrored(size, (taps.length - 1) / 2);
  for (let y = 0; y < size; y++) {
    const row = y * size;
    taps.forEach((tap, k) => {
      const other = (places[y + k] as number) * size;
      for (let x = 0; x < size; x++) {
        const at = kind === Kind.Rows ? row + (places[x + k] as number) : other + x;
        result[row + x] = (result[row + x] as number) + tap * (from[at] as number);
      }
    });
  }
  return result;
}

/** The maps of one photograph, (32, size, size). */
export async function featuresOnCpu(image: ImageData, name: string, { signal, at }: Work): Promise<Float32Array> {
  const size = image.width;
  const area = size * size;
  const planes = new Float32Array(area * (CHANNELS + SCRATCH));
  const plane = (index: number): Float32Array => planes.subarray(index * area, (index + 1) * area);
  let [last, spent] = [0, 0];
  for (const operation of OPERATIONS) {
    if (performance.now() - last > PAUSE) {
      at(`Computing the maps of ${name}`, spent / TOTAL);
      await breathe();
      signal.throwIfAborted();
      last = performance.now();
    }
    spent += cost(operation);
    const { kind, first, second = 0, result, p = 0, q = 0, add = false } = operation;
    const [a, b, to] = [plane(first), plane(second), plane(result)];
    const values = {
      [Kind.Pixel]: () => to.map((_, i) => image.data[4 * i + first] ?? 0),
      [Kind.Rows]: () => filter(a, operation, size),
      [Kind.Columns]: () => filter(a, operation, size),
      [Kind.Linear]: () => a.map((value, i) => p * value + q * (b[i] ?? 0)),
      [Kind.Length]: () => a.map((value, i) => Math.hypot(value, b[i] ?? 0)),
      [Kind.Square]: () => a.map((value, i) => (value - (b[i] ?? 0)) ** 2),
    }[kind]();
    to.set(add ? values.map((value, i) => value + (to[i] ?? 0)) : values);
  }
  return planes.subarray(0, area * CHANNELS);
}
