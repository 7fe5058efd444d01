/** Photographs to maps, maps through the norms, and what there is to say of them. */
import type { Engine, Picture, Work } from "./engine.js";
import { square } from "./photos.js";
import { layerOf, normsOf, type Settings } from "./settings.js";
import { AFTER, type Shown } from "./show.js";

/** The camera, playing: four looks at most, each a little later. */
export interface Live {
  readonly video: HTMLVideoElement;
  readonly stop: () => void;
  readonly looks: object[];
  frame: number;
}

/** The pictures of the batch: photographs, or the camera's looks, of which one is taken anew each time. */
export async function looks({ photos, batch }: Settings, live: Live | undefined): Promise<Picture[]> {
  if (live === undefined) {
    const load = photos.slice(0, batch).map(async (photo): Promise<Picture> => {
      const source = await photo.load();
      return { key: photo, name: photo.name, pixels: (size) => square(source, size) };
    });
    return Promise.all(load);
  }
  const { video, looks } = live;
  looks[live.frame++ % batch] = {};
  return Array.from({ length: batch }, (_, n) => ({
    key: (looks[n] ??= {}),
    name: `look ${n + 1}`,
    pixels: (size: number) => square(video, size),
  }));
}

/** Computes what is chosen; returns the milliseconds of each norm. */
export async function compute(
  engine: Engine,
  pictures: readonly Picture[],
  settings: Settings,
  work: Work,
): Promise<number[]> {
  work.signal.throwIfAborted();
  const layers = normsOf(settings).map((name) => layerOf(settings, name));
  return engine.compute(pictures, settings.size, layers, work);
}

/** Measures what was computed. */
export async function measured(
  engine: Engine,
  pictures: readonly Picture[],
  settings: Settings,
  ms: readonly number[],
): Promise<Shown> {
  const own = await engine.measure("before");
  // One scale for all maps, which is what makes most of them flat.
  const range = [Math.min(...own.map(({ min }) => min)), Math.max(...own.map(({ max }) => max))] as const;
  const all = await engine.measure("before", range);
  const after = [await engine.measure("after", AFTER)];
  if (ms.length > 1) {
    after.push(await engine.measure("second", AFTER));
  }
  const { size } = settings;
  const names = pictures.map(({ name }) => name);
  return { settings, dims: [pictures.length, own.length, size, size], names, ms, own, all, range, after };
}
