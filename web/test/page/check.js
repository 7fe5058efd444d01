// A golden file on every executor, by the page's own reader and judge.
import { judge, onCpu, onGpu, parse } from "/web/golden.js";

/** The worst outputs; undefined where a file holds more than a norm. */
export async function check(device, url) {
  const bytes = new Uint8Array(await (await fetch(url)).arrayBuffer());
  const call = parse(bytes);
  if (call === undefined) {
    return undefined;
  }
  return {
    outputs: call.expected.length,
    gpu: judge(call, await onGpu(device, call)),
    // The tuning for GPUs takes other kernels: lanes, barriers.
    gpuTuning: judge(call, await onGpu(device, call, { tuning: "class=gpu" })),
    cpu: judge(call, onCpu(call)),
  };
}
