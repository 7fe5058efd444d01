import { element, html } from "./dom.js";
import { measure, type Measured } from "./measure.js";
import { svg } from "./svg.js";
import { fill, type Cell } from "./table.js";

/** Small ones first: a phone should not wait long for the first bar. */
const SHAPES = [
  [16, 512, 7, 7],
  [8, 64, 56, 56],
  [4, 256, 56, 56],
  [1, 64, 224, 224],
] as const;
const GROUPS = 32;

const name = (dims: readonly number[]): string => `(${dims.join(", ")})`;

/** Bars of times in copies: bcnorm's beside the composition's, forward and backward. */
function chart(all: readonly Measured[]): SVGSVGElement {
  const [left, right, bar, gap] = [118, 44, 13, 14];
  const width = 640;
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
  const legend = [["first", "bcnorm", 0], ["second", "op by op", 90]].flatMap(([kind, text, x]) => [
    svg("rect", { class: String(kind), x: left + 40 + Number(x), y: 2, width: 11, height: 11, rx: 2 }),
    svg("text", { x: left + 56 + Number(x), y: 12 }, [String(text)]),
  ]);
  return svg(
    "svg",
    { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "Time in copies; the table below has the numbers" },
    [...legend, ...children],
  );
}

/** Measures shape by shape, and shows what there is so far. */
export async function benchmark(
  device: GPUDevice,
  progress: (done: number, what: string) => void,
  signal: AbortSignal,
): Promise<string> {
  const all: Measured[] = [];
  for (const [index, dims] of SHAPES.entries()) {
    if (signal.aborted) {
      break;
    }
    progress(index / SHAPES.length, name(dims));
    try {
      all.push(await measure(device, { dims, groups: GROUPS, repeats: 5, signal }));
    } catch (error) {
      if (signal.aborted) {
        break;
      }
      throw error;
    }
    html("measured").hidden = false;
    html("measured-chart").replaceChildren(chart(all));
    const milliseconds = (ms: number): Cell => ({ text: ms.toFixed(2), key: ms });
    const heads = ["shape", "forward ms", "backward ms", "eval ms", "copy ms", "op by op: forward", "backward", "error"];
    fill(
      element("measured-table", HTMLTableElement),
      heads,
      all.map((one) => [
        { text: name(one.dims) },
        ...[one.forwardMs, one.backwardMs, one.evalMs, one.copyMs, one.compositionForwardMs, one.compositionBackwardMs].map(milliseconds),
        { text: one.error.toExponential(1), key: one.error },
      ]),
    );
  }
  return `${all.length} of ${SHAPES.length} shapes measured.`;
}
