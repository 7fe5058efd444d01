import { initCpu } from "bcnorm/cpu";
import { breathe, element, html, input } from "./dom.js";
import { judge, onCpu, onGpu, parse, type Verdict } from "./golden.js";
import { fill, type Cell } from "./table.js";

/** Runs every golden vector on the GPU and with the CPU executor. */
export async function verify(
  device: GPUDevice,
  progress: (done: number, what: string) => void,
  signal: AbortSignal,
): Promise<string> {
  await initCpu();
  const names: string[] = await (await fetch("golden/index.json")).json();
  const rows: Cell[][] = [];
  let [failed, left] = [0, 0];
  let worst = 0;
  for (const [index, name] of names.entries()) {
    if (signal.aborted) {
      break;
    }
    progress(index / names.length, name);
    await breathe();
    const bytes = new Uint8Array(await (await fetch(`golden/${name}`)).arrayBuffer());
    const call = parse(bytes);
    if (call === undefined) {
      left += 1;
      continue;
    }
    const gpu = judge(call, await onGpu(device, call));
    const cpu = judge(call, onCpu(call));
    const wrong = [gpu, cpu].some(({ fraction }) => !(fraction <= 1));
    failed += Number(wrong);
    worst = Math.max(worst, gpu.fraction);
    const cells = ({ name: output, error, fraction }: Verdict): Cell[] => [
      { text: error.toExponential(1), key: error },
      { text: `${(100 * fraction).toFixed(0)} %`, key: fraction, fail: !(fraction <= 1) },
      { text: output },
    ];
    rows.push([
      { text: name.replace(/\.safetensors$/, "").replace(/^family\//, "") },
      { text: call.dtype },
      ...cells(gpu),
      ...cells(cpu).slice(0, 2),
      { text: wrong ? "fail" : "pass", fail: wrong },
    ]);
  }
  const heads = ["case", "type", "GPU: error", "of its bar", "worst output", "CPU: error", "of its bar", "verdict"];
  const table = element("verified-table", HTMLTableElement);
  const filter = input("filter");
  const show = (): void => {
    const part = filter.value.trim().toLowerCase();
    fill(table, heads, rows.filter((cells) => cells.some(({ text }) => text.toLowerCase().includes(part))));
  };
  filter.oninput = show;
  show();
  const skipped = left > 0 ? ` (${left} with a convolution left out)` : "";
  const summary =
    `${rows.length - failed} of ${rows.length} cases pass on this GPU and with the CPU executor in WebAssembly${skipped}; ` +
    `the GPU's worst output takes ${(100 * worst).toFixed(0)} % of what it may be off by. ` +
    "Errors are against PyTorch in f64, divided by the tensor's scale; the bar is 1e-6, or PyTorch's own f32 error.";
  html("verified-summary").textContent = summary;
  html("verified").hidden = false;
  return `${rows.length - failed} of ${rows.length} cases pass.`;
}
