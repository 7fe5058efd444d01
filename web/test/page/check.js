// A golden file on every executor, by the page's own reader and judge.
import { judge, onCpu, onGpu, parse } from "/web/golden.js";

/** SwiftShader's are of 4 invocations. */
const SUBGROUPS = "class=gpu\nlimits.subgroup_size=4";

/** Outputs of which not every bit is the same. */
function differing(one, other) {
  const bits = (values) => String(new Uint32Array(values.buffer, values.byteOffset, values.length));
  return Object.keys(one).filter((name) => bits(one[name]) !== bits(other[name]));
}

/** The worst outputs; undefined where a file holds more than a norm. */
export async function check(device, url) {
  const bytes = new Uint8Array(await (await fetch(url)).arrayBuffer());
  const call = parse(bytes);
  if (call === undefined) {
    return undefined;
  }
  const gpuTuning = await onGpu(device, call, { tuning: "class=gpu" });
  return {
    outputs: call.expected.length,
    gpu: judge(call, await onGpu(device, call)),
    // The tuning for GPUs takes other kernels: lanes, barriers.
    gpuTuning: judge(call, gpuTuning),
    differing: differing(gpuTuning, await onGpu(device, call, { tuning: SUBGROUPS })),
    cpu: judge(call, onCpu(call)),
  };
}
