import { gabor, gaussian, sobel, type Taps, type Term } from "./taps.js";

/** Feature maps of a photograph: the bank of `bcnorm demo`, whose scales differ as much as raw features' do. */
export const NAMES = [
  "red", "green", "blue", "luma",
  "red-green", "yellow-blue", "chroma", "colour edge",
  "blur 1 px", "blur 2 px", "blur 4 px", "blur 8 px",
  "band 1-2 px", "band 2-4 px", "band 4-8 px", "band 8-16 px",
  "Sobel 0°", "Sobel 45°", "Sobel 90°", "Sobel 135°",
  "line 6 px 0°", "line 6 px 45°", "line 6 px 90°", "line 6 px 135°",
  "edge 14 px 0°", "edge 14 px 45°", "edge 14 px 90°", "edge 14 px 135°",
  "Laplacian", "gradient", "variance 2 px", "variance 6 px",
] as const;

export const CHANNELS = NAMES.length;

/** Planes behind the maps, for what comes in between. */
export const SCRATCH = 4;
/** Most taps of a filter: of the blur of 16 pixels. */
export const MAX_TAPS = 97;

export const enum Kind { Pixel, Rows, Columns, Linear, Length, Square }

/** An operation on planes of one photograph: a GPU's kernel (features.ts) and the CPU (cpu-features.ts) do the same. */
export interface Operation {
  readonly kind: Kind;
  readonly first: number;
  readonly second?: number;
  readonly result: number;
  readonly p?: number;
  readonly q?: number;
  readonly taps?: Taps;
  /** Adds to what is there. */
  readonly add?: boolean;
}

/** What an operation costs, in reads of a pixel. */
export const cost = ({ taps }: Operation): number => taps?.length ?? 2;

/** The bank as operations on planes: maps by their number, scratch planes behind them. */
export function bank(): Operation[] {
  const [s0, s1, s2, s3] = [CHANNELS, CHANNELS + 1, CHANNELS + 2, CHANNELS + 3];
  const luma = 3;
  const list: Operation[] = [];
  const linear = (first: number, second: number, result: number, p: number, q: number): void => {
    list.push({ kind: Kind.Linear, first, second, result, p, q });
  };
  const filter = (first: number, terms: readonly Term[], result: number): void => {
    terms.forEach(({ row, column }, index) => {
      list.push({ kind: Kind.Rows, first, result: s0, taps: row });
      list.push({ kind: Kind.Columns, first: s0, result, taps: column, add: index > 0 });
    });
  };
  const blur = (first: number, sigma: number, result: number): void => {
    filter(first, [{ row: gaussian(sigma), column: gaussian(sigma) }], result);
  };
  const gradient = (first: number, result: number): void => {
    filter(first, sobel(0), s1);
    filter(first, sobel(90), s2);
    list.push({ kind: Kind.Length, first: s1, second: s2, result });
  };
  for (const channel of [0, 1, 2]) {
    list.push({ kind: Kind.Pixel, first: channel, result: channel });
  }
  // Rec. 601.
  linear(0, 1, luma, 0.299, 0.587);
  linear(luma, 2, luma, 1, 0.114);
  linear(0, 1, 4, 1, -1);
  linear(0, 1, 5, 0.5, 0.5);
  linear(5, 2, 5, 1, -1);
  list.push({ kind: Kind.Length, first: 4, second: 5, result: 6 });
  gradient(4, s3);
  gradient(5, 7);
  list.push({ kind: Kind.Length, first: s3, second: 7, result: 7 });
  [1, 2, 4, 8].forEach((sigma, i) => blur(luma, sigma, 8 + i));
  blur(luma, 16, s1);
  [0, 1, 2, 3].forEach((i) => linear(8 + i, i === 3 ? s1 : 9 + i, 12 + i, 1, -1));
  [0, 45, 90, 135].forEach((degrees, i) => {
    filter(luma, sobel(degrees), 16 + i);
    filter(luma, gabor(6, degrees, "line"), 20 + i);
    filter(luma, gabor(14, degrees, "edge"), 24 + i);
  });
  const second = [1, -2, 1];
  filter(luma, [{ row: second, column: [1] }, { row: [1], column: second }], 28);
  gradient(luma, 29);
  [2, 6].forEach((sigma, i) => {
    blur(luma, sigma, s1);
    list.push({ kind: Kind.Square, first: luma, second: s1, result: s2 });
    blur(s2, sigma, 30 + i);
  });
  return list;
}
