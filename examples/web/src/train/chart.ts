/** Curves of two runs over their steps. */
import { make } from "../dom.js";
import { svg } from "../svg.js";
import type { Point } from "./race.js";

export interface Chart {
  /** What is drawn, for who does not see it. */
  readonly label: string;
  /** Where the axis of steps ends. */
  readonly end: number;
  /** The values at the axis' ends. */
  readonly range: readonly [low: number, high: number];
  /** Values that have a line. */
  readonly ticks: readonly number[];
  readonly format: (value: number) => string;
  readonly lines: readonly (readonly Point[])[];
}

const HEIGHT = 200;
/** More are not to be told apart. */
const MAX_POINTS = 500;
const [LEFT, RIGHT, TOP, BOTTOM] = [46, 14, 12, 28];
/** Lines are told apart by more than their colours. */
const CLASSES = ["left", "right"];

/** Draws a chart over what an element had, as wide as it is. */
export function draw(into: HTMLElement, { label, end, range, ticks, format, lines }: Chart): void {
  const width = Math.max(200, into.clientWidth);
  const [low, high] = range;
  const x = (step: number): number => LEFT + (step / end) * (width - LEFT - RIGHT);
  const y = (value: number): number => {
    const share = Math.min(1, Math.max(0, (value - low) / (high - low)));
    return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM);
  };
  const grid = ticks.flatMap((tick) => [
    svg("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(tick), y2: y(tick) }),
    svg("text", { x: LEFT - 8, y: y(tick) + 4, "text-anchor": "end" }, [format(tick)]),
  ]);
  const steps = [0, end / 2, end].map((step, i) => {
    const anchor = ["start", "middle", "end"][i] ?? "middle";
    const text = `${Math.round(step).toLocaleString("en")}${i === 2 ? " steps" : ""}`;
    return svg("text", { x: x(step), y: HEIGHT - 8, "text-anchor": anchor }, [text]);
  });
  const drawn = lines.flatMap((points, i) => {
    const name = CLASSES[i] ?? "";
    const stride = Math.ceil(points.length / MAX_POINTS);
    const seen = points.filter(([, value], at) => Number.isFinite(value) && (points.length - 1 - at) % stride === 0);
    const d = seen.map(([step, value], at) => `${at === 0 ? "M" : "L"}${x(step).toFixed(1)} ${y(value).toFixed(1)}`).join("");
    // The newest point has a mark.
    const dots = seen.slice(-1).map(([step, value]) => mark(name, x(step), y(value)));
    return [svg("path", { class: `line ${name}`, d }), ...dots];
  });
  const image = svg("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, height: HEIGHT, role: "img", "aria-label": label });
  image.append(...grid, ...steps, ...drawn);
  into.replaceChildren(image);
}

function mark(name: string, x: number, y: number): SVGElement {
  return name === "left"
    ? svg("circle", { class: `dot ${name}`, cx: x, cy: y, r: 3 })
    : svg("rect", { class: `dot ${name}`, x: x - 3, y: y - 3, width: 6, height: 6 });
}

/** A piece of a side's line, for its name. */
export function swatch(side: number): HTMLElement {
  const name = CLASSES[side] ?? "";
  const image = svg("svg", { viewBox: "0 0 28 12", width: 28, height: 12, "aria-hidden": "true" });
  image.append(svg("path", { class: `line ${name}`, d: "M0 6H28" }), mark(name, 14, 6));
  const made = make("span");
  made.className = "swatch";
  made.append(image);
  return made;
}
