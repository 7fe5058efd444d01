/** A drawing as MNIST has its digits: within 20 x 20 pixels, its centre of mass in the middle of 28 x 28. */
import { SIZE } from "./digits.js";

const BOX = 20;
/** Ink below this is no part of the digit. */
const FAINT = 16;

/** The digit among the gray levels of a square, 0 paper and 255 ink; undefined where there is none. */
export function centred(ink: Uint8Array, across: number): Uint8Array | undefined {
  let [left, right, top, bottom] = [across, -1, across, -1];
  let [mass, massX, massY] = [0, 0, 0];
  for (let y = 0; y < across; y++) {
    for (let x = 0; x < across; x++) {
      const value = ink[y * across + x] as number;
      if (value >= FAINT) {
        [left, right, top, bottom] = [Math.min(left, x), Math.max(right, x), Math.min(top, y), Math.max(bottom, y)];
        mass += value;
        massX += value * (x + 0.5);
        massY += value * (y + 0.5);
      }
    }
  }
  if (mass === 0) {
    return undefined;
  }
  // Pixels of the drawing in one of the digit's.
  const scale = Math.max(right + 1 - left, bottom + 1 - top) / BOX;
  const startX = start(massX / mass, left, right + 1, scale);
  const startY = start(massY / mass, top, bottom + 1, scale);
  const from = (at: number, begin: number): number => Math.round(begin + at * scale);
  return Uint8Array.from({ length: SIZE * SIZE }, (_, i) => {
    const [column, row] = [i % SIZE, Math.floor(i / SIZE)];
    const [x0, y0] = [from(column, startX), from(row, startY)];
    const [x1, y1] = [Math.max(x0 + 1, from(column + 1, startX)), Math.max(y0 + 1, from(row + 1, startY))];
    let sum = 0;
    for (let y = y0; y < y1; y++) {
      for (let x = x0; x < x1; x++) {
        const inside = x >= 0 && x < across && y >= 0 && y < across;
        sum += inside ? (ink[y * across + x] as number) : 0;
      }
    }
    return sum / ((x1 - x0) * (y1 - y0));
  });
}

/** Where the 28 pixels begin along an axis: about the centre of mass, but so that all ink is among them. */
function start(centre: number, low: number, high: number, scale: number): number {
  const length = SIZE * scale;
  return Math.min(low, Math.max(high - length, centre - length / 2));
}
