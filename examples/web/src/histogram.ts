import { digits } from "./dom.js";
import { BINS, type MapStats, type Range } from "./engine.js";
import { svg } from "./svg.js";

const [WIDTH, HEIGHT, FOOT] = [320, 110, 16];

/** All maps' histograms as lines and one of them filled, over one range. */
export function histogram(
  all: readonly MapStats[],
  chosen: number,
  range: Range,
  name: string,
): SVGSVGElement {
  const one = all[chosen];
  // Each by its own fullest bin but the outermost, which hold what is beyond the range.
  const heights = ({ bins }: MapStats): number[] => {
    const most = Math.max(1, ...bins.subarray(1, BINS - 1));
    return Array.from(bins, (count) => Math.min(1, count / most));
  };
  const path = (stats: MapStats): string =>
    heights(stats)
      .map((height, bin) => {
        const x = ((bin + 0.5) * WIDTH) / BINS;
        const y = (1 - height) * (HEIGHT - 4) + 4;
        return `${bin === 0 ? "M" : "L"}${x.toFixed(1)} ${y.toFixed(1)}`;
      })
      .join("");
  const lines = all.map((stats) => svg("path", { class: "all", d: path(stats) }));
  const filled =
    one === undefined
      ? []
      : [svg("path", { class: "one", d: `${path(one)}L${WIDTH} ${HEIGHT}L0 ${HEIGHT}Z` })];
  const [low, high] = range;
  const label = (x: number, value: number, anchor: string): SVGElement =>
    svg("text", { x, y: HEIGHT + 13, "text-anchor": anchor }, [digits(value)]);
  return svg(
    "svg",
    { viewBox: `0 0 ${WIDTH} ${HEIGHT + FOOT}`, role: "img", "aria-label": `Histogram of ${name}` },
    [
      ...lines,
      ...filled,
      svg("line", { class: "axis", x1: 0, x2: WIDTH, y1: HEIGHT, y2: HEIGHT }),
      label(0, low, "start"),
      label(WIDTH / 2, (low + high) / 2, "middle"),
      label(WIDTH, high, "end"),
    ],
  );
}
