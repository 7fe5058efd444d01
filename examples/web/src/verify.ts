import { initCpu } from "bcnorm/cpu";
import type { Report } from "./check.js";
import { breathe, element, input } from "./dom.js";
import type { Engine, Work } from "./engine.js";
import { judge, onCpu, onGpu, parse, type Verdict } from "./golden.js";
import { fill, type Cell } from "./table.js";

/** What was run of it. */
interface Count {
  readonly passed: number;
  readonly ran: number;
  readonly total: number;
}

/** What a verification says, of all cases or of those before it was stopped. */
export function verdict({ passed, ran, total }: Count, where: string): string {
  const cases = (count: number): string => `${count} case${count === 1 ? "" : "s"}`;
  return ran === total
    ? `Verification: ${passed} of ${cases(total)} pass ${where}.`
    : `Verification was stopped: ${passed} of the ${cases(ran)} before that pass ${where}; ${total - ran} of ${total} were not run.`;
}

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
      { text: call.dtype },
      ...verdicts.flatMap(cells),
      { text: verdicts[0]?.name ?? "" },
      { text: wrong ? "fail" : "pass", fail: wrong },
    ]);
  }
  const [gpu, cpu] = ["GPU", "CPU"].map((name) => [`${name}: error`, "of its bar"]);
  const heads = ["case", "type", ...(device === undefined ? [] : (gpu ?? [])), ...(cpu ?? []), "worst output", "verdict"];
  const table = element("verified-table", HTMLTableElement);
  const filter = input("filter");
  const show = (): void => {
    const part = filter.value.trim().toLowerCase();
    fill(table, heads, rows.filter((cells) => cells.some(({ text }) => text.toLowerCase().includes(part))));
  };
  filter.oninput = show;
  show();
  const count = { passed: rows.length - failed, ran: rows.length, total: signal.aborted ? names.length : rows.length };
  const where = device === undefined
    ? "with the CPU executor in WebAssembly (no GPU was verified: there is none)"
    : "on this GPU and with the CPU executor in WebAssembly";
  const summary = verdict(count, where);
  const details =
    `${left > 0 ? `${left} with a convolution are left out. ` : ""}` +
    `The worst output takes ${(100 * worst).toFixed(0)} % of what it may be off by.`;
  const wrong = rows.filter((cells) => cells.at(-1)?.fail === true);
  return {
    summary: `${summary} ${details}`,
    text: [`bcnorm: ${summary} ${details}`, ...wrong.map((cells) => cells.map(({ text }) => text).join(" | "))].join("\n\n"),
  };
}
