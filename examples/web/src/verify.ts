import { initCpu } from "bcnorm/cpu";
import type { Report } from "./check.js";
import { breathe, element, input } from "./dom.js";
import type { Engine, Work } from "./engine.js";
import { judge, onCpu, onGpu, parse, type Verdict } from "./golden.js";
import { fill, type Cell } from "./table.js";

/** Runs every golden vector on the GPU, where there is one, and with the CPU executor. */
export async function verify({ device }: Engine, { signal, at }: Work): Promise<Report> {
  await initCpu();
  const names: string[] = await (await fetch("golden/index.json")).json();
  const rows: Cell[][] = [];
  let [failed, left] = [0, 0];
  let worst = 0;
  for (const [index, name] of names.entries()) {
    if (signal.aborted) {
      break;
    }
    at(`Verifying ${name}`, index / names.length);
    await breathe();
    const bytes = new Uint8Array(await (await fetch(`golden/${name}`)).arrayBuffer());
    const call = parse(bytes);
    if (call === undefined) {
      left += 1;
      continue;
    }
    const cpu = judge(call, onCpu(call));
    const verdicts = device === undefined ? [cpu] : [judge(call, await onGpu(device, call)), cpu];
    const wrong = verdicts.some(({ fraction }) => !(fraction <= 1));
    failed += Number(wrong);
    worst = Math.max(worst, verdicts[0]?.fraction ?? 0);
    const cells = ({ error, fraction }: Verdict): Cell[] => [
      { text: error.toExponential(1), key: error },
      { text: `${(100 * fraction).toFixed(0)} %`, key: fraction, fail: !(fraction <= 1) },
    ];
    rows.push([
      { text: name.replace(/\.safetensors$/, "").replace(/^family\//, "") },
      { text: wrong ? "fail" : "pass", fail: wrong },
      { text: call.dtype },
      ...verdicts.flatMap(cells),
      { text: verdicts[0]?.name ?? "" },
    ]);
  }
  const errors = (name: string): string[] => [`${name}: error`, "of its bar"];
  const measures = [...(device === undefined ? [] : errors("GPU")), ...errors("CPU")];
  const heads = ["case", "verdict", "type", ...measures, "worst output"];
  const table = element("verified-table", HTMLTableElement);
  const filter = input("filter");
  const show = (): void => {
    const part = filter.value.trim().toLowerCase();
    fill(table, heads, rows.filter((cells) => cells.some(({ text }) => text.toLowerCase().includes(part))));
  };
  filter.oninput = show;
  show();
  const [ran, passed] = [rows.length, rows.length - failed];
  const headline = signal.aborted
    ? `Verification was stopped after ${ran} of ${names.length} cases: ${passed} pass.`
    : `Verification: ${passed} of ${ran} cases pass.`;
  const details = [
    device === undefined
      ? "By the CPU executor in WebAssembly; no GPU was verified, for there is none."
      : "On this GPU and with the CPU executor in WebAssembly.",
    ...(left > 0 ? [`Left out: ${left} with a convolution.`] : []),
    `The worst output takes ${(100 * worst).toFixed(0)} % of what it may be off by.`,
  ].join(" ");
  const wrong = rows
    .filter(([, verdict]) => verdict?.fail === true)
    .map((cells) => cells.map(({ text }) => text).join(" | "));
  return { headline, status: headline, details, text: [`bcnorm: ${headline} ${details}`, ...wrong].join("\n\n") };
}
