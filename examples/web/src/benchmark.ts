import type { Report } from "./check.js";
import { element, html } from "./dom.js";
import type { Engine, Work } from "./engine.js";
import { measure, type Measured } from "./measure.js";
import { svg } from "./svg.js";
import { fill, type Cell } from "./table.js";

/** The first is small, for a phone should not wait long; but not so small that launching kernels is all there is. */
const SHAPES = [
  [8, 64, 56, 56],
  [1, 64, 224, 224],
  [4, 256, 56, 56],
  [16, 512, 7, 7],
] as const;
const GROUPS = 32;

const name = (dims: readonly number[]): string => `(${dims.join(", ")})`;

/** Bars of times in copies: bcnorm's beside the composition's, forward and backward. */
function chart(all: readonly Measured[], room: number): SVGSVGElement {
  const [left, right, bar, gap] = [118, 44, 13, 14];
  // Letters are not scaled down on a phone.
  const width = Math.min(640, Math.max(280, room));
  const rows = all.flatMap(({ dims, copyMs, forwardMs, backwardMs, compositionForwardMs, compositionBackwardMs }) => [
    { label: `${name(dims)} forward`, ours: forwardMs / copyMs, theirs: compositionForwardMs / copyMs },
    { label: "backward", ours: backwardMs / copyMs, theirs: compositionBackwardMs / copyMs },
  ]);
  const most = Math.max(...rows.map(({ ours, theirs }) => Math.max(ours, theirs)));
  const scale = (width - left - right - 40) / most;
  const height = rows.length * (2 * bar + gap) + 24;
  const children: SVGElement[] = [];
  rows.forEach(({ label, ours, theirs }, row) => {
    const y = 22 + row * (2 * bar + gap);
    children.push(svg("text", { class: "name", x: left + 32, y: y + bar + 4, "text-anchor": "end" }, [label]));
    [["first", ours], ["second", theirs]].forEach(([kind, copies], index) => {
      const long = Number(copies) * scale;
      const top = y + index * (bar + 1);
      children.push(svg("rect", { class: String(kind), x: left + 40, y: top, width: long, height: bar, rx: 2 }));
      children.push(svg("text", { x: left + 45 + long, y: top + bar - 3 }, [Number(copies).toFixed(2)]));
    });
  });
  const first = Math.min(left + 40, width - 170);
  const legend = [["first", "bcnorm", first], ["second", "op by op", first + 90]].flatMap(([kind, text, x]) => [
    svg("rect", { class: String(kind), x: Number(x), y: 2, width: 11, height: 11, rx: 2 }),
    svg("text", { x: Number(x) + 16, y: 12 }, [String(text)]),
  ]);
  return svg(
    "svg",
    { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "Time in copies; the table below has the numbers" },
    [...legend, ...children],
  );
}

/** How many times as long op by op takes, forward and backward together. */
const gain = (one: Measured): number =>
  (one.compositionForwardMs + one.compositionBackwardMs) / (one.forwardMs + one.backwardMs);

/** What is gained where most is, whatever that is. */
export function headline(all: readonly Measured[]): string {
  const best = all.toSorted((a, b) => gain(b) - gain(a))[0];
  if (best === undefined) {
    return "Nothing was measured.";
  }
  const times = gain(best);
  const where = `forward and backward of ${name(best.dims)}`;
  if (times >= 1.05) {
    return `BCNorm is ${times.toFixed(1)} times faster than op by op here: ${where}.`;
  }
  return times > 0.95
    ? `BCNorm takes as long as op by op here, ${where} included.`
    : `BCNorm is slower than op by op here: it takes ${(1 / times).toFixed(1)} times as long, ${where}.`;
}

const HEADS = ["shape", "times faster", "forward ms", "op by op", "backward ms", "op by op", "eval ms", "copy ms", "error"];

function row(one: Measured): Cell[] {
  const milliseconds = (ms: number): Cell => ({ text: ms.toFixed(2), key: ms });
  const { forwardMs, compositionForwardMs, backwardMs, compositionBackwardMs, evalMs, copyMs, error } = one;
  return [
    { text: name(one.dims) },
    { text: gain(one).toFixed(1), key: gain(one) },
    ...[forwardMs, compositionForwardMs, backwardMs, compositionBackwardMs, evalMs, copyMs].map(milliseconds),
    { text: error.toExponential(1), key: error },
  ];
}

/** Shows what there is, the largest gain first. */
function show(all: readonly Measured[]): Cell[][] {
  const sorted = all.toSorted((a, b) => gain(b) - gain(a));
  const rows = sorted.map(row);
  html("measured-title").textContent = headline(all);
  html("measured").hidden = false;
  const place = html("measured-chart");
  place.replaceChildren(...(all.length > 0 ? [chart(sorted, place.clientWidth)] : []));
  fill(element("measured-table", HTMLTableElement), HEADS, rows);
  return rows;
}

/** Measures shape by shape, and shows what there is so far. */
export async function benchmark({ device }: Engine, { signal, at }: Work): Promise<Report> {
  if (device === undefined) {
    throw new Error("the benchmark times kernels on a GPU, and there is none: use a browser with WebGPU");
  }
  const all: Measured[] = [];
  for (const [index, dims] of SHAPES.entries()) {
    at(`Measuring ${name(dims)}`, index / SHAPES.length);
    try {
      signal.throwIfAborted();
      all.push(await measure(device, { dims, groups: GROUPS, repeats: 5, signal }));
    } catch (error) {
      if (signal.aborted) {
        break;
      }
      throw error;
    }
    show(all);
  }
  const rows = show(all);
  const count = `${all.length} of ${SHAPES.length} shapes`;
  const status = `${signal.aborted ? "The benchmark was stopped" : "Benchmark"}: ${count} measured.`;
  const line = (cells: readonly string[]): string => `| ${cells.join(" | ")} |`;
  const table = [line(HEADS), line(HEADS.map(() => "---")), ...rows.map((cells) => line(cells.map(({ text }) => text)))];
  const text = `bcnorm: ${headline(all)} ${status}\n\n${table.join("\n")}`;
  return { headline: headline(all), status, details: status, text };
}
