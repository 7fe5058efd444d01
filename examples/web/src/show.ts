/** Draws what was computed, and says what it is. */
import { NAMES } from "./bank.js";
import { canvas, digits, html, make, select } from "./dom.js";
import { OUTPUTS, type Engine, type MapStats, type Range, type View } from "./engine.js";
import { histogram } from "./histogram.js";
import { NORMS, normsOf, type Settings } from "./settings.js";

/** The range of drawn outputs: a normalized map lies within. */
export const AFTER: Range = [-3, 3];

/** What a computation left. */
export interface Shown {
  readonly settings: Settings;
  readonly dims: readonly number[];
  /** The photographs of the batch. */
  readonly names: readonly string[];
  /** Of each norm's last forward. */
  readonly ms: readonly number[];
  /** Before, bins over each map's own range, and over that of all. */
  readonly own: readonly MapStats[];
  readonly all: readonly MapStats[];
  readonly range: Range;
  /** After, of each norm. */
  readonly after: readonly (readonly MapStats[])[];
}

const milliseconds = (ms: number): string => `${ms.toFixed(ms < 10 ? 2 : 0)} ms`;
const numbers = (stats: MapStats | undefined): string =>
  stats === undefined ? "" : `mean ${digits(stats.mean)}, variance ${digits(stats.variance)}`;

/** How much further the widest map spreads than the narrowest. */
function spread(own: readonly MapStats[]): string {
  const deviations = own.map(({ variance }) => Math.sqrt(variance));
  const [most, least] = [Math.max(...deviations), Math.min(...deviations.filter((one) => one > 0))];
  const [wide, narrow] = [most, least].map((one) => NAMES[deviations.indexOf(one)] ?? "");
  return Number.isFinite(most / least) && most > 0
    ? `Here “${wide}” spreads ${Math.round(most / least).toLocaleString("en")} times as far as “${narrow}”.`
    : "";
}

/** Draws; how (scale, map, photograph) is said by the present settings, what by those of the computation. */
export async function draw(engine: Engine, shown: Shown, { scale, map, shown: wanted }: Settings): Promise<void> {
  const { settings, dims, names, ms, own, all, range, after } = shown;
  const photo = Math.min(wanted, names.length - 1);
  const norms = normsOf(settings);
  const second = norms.length > 1;
  html("figure-second").hidden = !second;
  html("map-figure-second").hidden = !second;
  html("view-second").hidden = !second;
  const before = scale === "own" ? own.map(({ min, max }): Range => [min, max]) : own.map(() => range);
  const views: Omit<View, "only">[] = [{ canvas: canvas("before"), which: "before", photo, ranges: before }];
  for (const which of OUTPUTS.slice(0, norms.length)) {
    views.push({ canvas: canvas(which), which, photo, ranges: own.map(() => AFTER) });
  }
  const close = views.map((view) => ({ ...view, canvas: canvas(`map-${view.which}`), only: map }));
  const visible = [...views, ...close].filter(({ canvas }) => canvas.clientWidth > 0);
  const drawn = visible.length > 0 ? engine.draw(visible) : undefined;

  const name = NAMES[map] ?? "";
  html("map-title").textContent = `Map: ${name}`;
  const ends = range.map((end) => digits(end).replace("-", "−"));
  html("range-before").textContent = scale === "own" ? "each on its own scale" : `all from ${ends.join(" to ")}`;
  html("numbers-before").textContent = numbers(own[map]);
  const { min = 0, max = 0 } = own[map] ?? {};
  html("histogram-before").replaceChildren(
    scale === "own" ? histogram(own, map, [min, max], `${name}, before`) : histogram(all, map, range, `${name}, before`),
  );
  norms.forEach((norm, index) => {
    const which = OUTPUTS[index] ?? "after";
    for (const id of [`name-${which}`, `map-name-${which}`]) {
      html(id).textContent = NORMS[norm];
    }
    html(`numbers-${which}`).textContent = numbers(after[index]?.[map]);
    const drawn = histogram(after[index] ?? [], map, AFTER, `${name}, after ${NORMS[norm]}`);
    html(`histogram-${which}`).replaceChildren(drawn);
  });
  const bytes = 4 * dims.reduce((product, size) => product * size, 1);
  const times = norms.map((norm, index) => `${second ? `${NORMS[norm]} ` : ""}${milliseconds(ms[index] ?? 0)}`);
  html("timing").textContent = `${(bytes / 2 ** 20).toFixed(1)} MiB of maps, (${dims.join(", ")}); forward ${times.join(", ")}`;
  html("spread").textContent = spread(own);

  const list = select("shown");
  const options = names.map((name, n) => {
    const option = make("option", name);
    option.value = String(n);
    return option;
  });
  if (options.map(({ text }) => text).join() !== [...list.options].map(({ text }) => text).join()) {
    list.replaceChildren(...options);
  }
  list.value = String(photo);
  list.disabled = names.length < 2;
  await drawn;
  html("maps").classList.add("drawn");
}
