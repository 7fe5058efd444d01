/** What computes the maps, the norms and the pictures of the page: a GPU (gpu.ts), or the CPU without one (cpu.ts). */
import type { NormKind, NormOptions } from "bcnorm";

/** Photographs that are looked at together, at most. */
export const MAX_PHOTOS = 4;

/** The maps as they come, and as each of two norms leaves them. */
export type Which = "before" | "after" | "second";

/** What is black, and what is white. */
export type Range = readonly [number, number];

/** One photograph, square. What has the same `key` looks the same. */
export interface Picture {
  readonly key: object;
  readonly name: string;
  readonly pixels: (size: number) => ImageData;
}

/** A new layer, and the training steps that it takes before its output is shown. */
export interface Layer {
  readonly kind: NormKind;
  readonly options: NormOptions;
  readonly before: number;
  readonly training: boolean;
}

/** A canvas, and what goes onto it. */
export interface View {
  readonly canvas: HTMLCanvasElement;
  readonly which: Which;
  readonly photo: number;
  /** Of each map. */
  readonly ranges: readonly Range[];
  /** One map; default: all. */
  readonly only?: number;
}

/** Bins of a histogram. */
export const BINS = 64;

/** Of one map, over all photographs. */
export interface MapStats {
  readonly mean: number;
  readonly variance: number;
  readonly min: number;
  readonly max: number;
  /** Values in each bin of the range that was asked for; those beyond it are in the first and last. */
  readonly bins: Uint32Array;
}

/** Something that takes time: it says how far it is, from 0 to 1, and ends by an AbortError where it is told to. */
export interface Work {
  readonly signal: AbortSignal;
  readonly at: (what: string, done: number) => void;
}

/** A part of some work. */
export function part({ signal, at }: Work, from: number, to: number): Work {
  return { signal, at: (what, done) => at(what, from + (to - from) * done) };
}

export interface Engine {
  /** Where it is a GPU. */
  readonly device?: GPUDevice;
  /**
   * Computes the maps of photographs, (N, 32, size, size), and takes them through one layer or two; returns the
   * milliseconds of each one's last forward. Until it is done, and where it fails or is aborted, the maps of the call
   * before stay. The maps of photographs that it has are not computed again.
   */
  compute(pictures: readonly Picture[], size: number, layers: readonly Layer[], work: Work): Promise<number[]>;
  /** Measures maps: bins over a range, or, without one, over each map's own. */
  measure(which: Which, range?: Range): Promise<MapStats[]>;
  /** Draws views in one go; nothing where others were asked for meanwhile. */
  draw(views: readonly View[]): Promise<void>;
  read(which: Which): Promise<Float32Array>;
}

/** Maps side by side in a mosaic. */
export const COLUMNS = 6;
/** What a mosaic leaves free at each edge of a map, as a share of its place. */
export const GAP = 0.02;

/** Pixels across a canvas. A hidden one has no width. */
export function pixelsAcross(canvas: HTMLCanvasElement): number {
  return Math.max(8, Math.round(canvas.clientWidth * Math.min(devicePixelRatio, 2)));
}

/** What layers leave, in their order. */
export const OUTPUTS = ["after", "second"] as const;
