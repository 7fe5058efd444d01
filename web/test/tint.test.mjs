// Every shader of every plan through Tint, the compiler of Chromium, by Dawn for Node without a GPU: it is stricter
// than naga about uniformity, aliasing and language extensions.
import assert from "node:assert/strict";
import { test } from "node:test";
import { create, globals } from "webgpu";
import { plans } from "./plans.mjs";

Object.assign(globalThis, globals);
// Kept for as long as the devices are: Dawn for Node crashes where it is collected before them.
const gpu = create(["backend=null"]);

/** Runs a check with a device that is gone afterwards: Dawn keeps Node alive while there is one. */
async function withDevice(check) {
  const adapter = await gpu.requestAdapter();
  const device = await adapter.requestDevice({ requiredFeatures: ["subgroups"] });
  try {
    await check(device);
  } finally {
    device.destroy();
  }
}

/** What Tint says of a text with this layout; nothing where it is fine. */
async function complaints(device, wgsl, step) {
  device.pushErrorScope("validation");
  const module = device.createShaderModule({ code: wgsl });
  const storage = step.bindings.map(({ binding, write, minBytes }) => ({
    binding,
    visibility: GPUShaderStage.COMPUTE,
    buffer: { type: write ? "storage" : "read-only-storage", minBindingSize: minBytes },
  }));
  const uniform = { binding: 0, visibility: GPUShaderStage.COMPUTE, buffer: { type: "uniform" } };
  const layout = device.createBindGroupLayout({ entries: [uniform, ...storage] });
  device.createComputePipeline({
    layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }),
    compute: { module, entryPoint: step.kernel },
  });
  const { messages } = await module.getCompilationInfo();
  const error = await device.popErrorScope();
  return [...messages.map(({ message }) => message), ...(error === null ? [] : [error.message])];
}

test("every shader of every plan passes Tint, without a warning", () => withDevice(async (device) => {
  const seen = new Set();
  const kernels = new Set();
  const wrong = [];
  for (const [what, plan] of plans()) {
    const { steps } = JSON.parse(plan.describe());
    for (const [index, step] of steps.entries()) {
      if (seen.has(step.key)) continue;
      seen.add(step.key);
      kernels.add(step.kernel);
      const found = await complaints(device, plan.wgsl(index), step);
      if (found.length > 0) {
        wrong.push(`${what}, ${step.key}: ${found.join("; ").slice(0, 400)}`);
      }
    }
    plan.free();
  }
  console.log(`${seen.size} specializations of ${kernels.size} kernels`);
  assert.deepEqual(wrong.slice(0, 10), []);
  assert.ok(kernels.size >= 25, [...kernels].join(", "));
}));

test("what Tint refuses is noticed", () => withDevice(async (device) => {
  const kernel = "row_moments";
  const step = { kernel, bindings: [{ binding: 1, write: true, minBytes: 4 }] };
  const text = (body) => `
    @group(0) @binding(0) var<uniform> u: u32;
    @group(0) @binding(1) var<storage, read_write> t: array<f32>;
    @compute @workgroup_size(64) fn ${kernel}(@builtin(local_invocation_index) i: u32) { ${body} }`;
  assert.deepEqual(await complaints(device, text("t[i] = f32(u);"), step), []);
  // A barrier that not all invocations reach; naga lets it pass.
  const found = await complaints(device, text("if (i < u) { workgroupBarrier(); } t[i] = 0;"), step);
  assert.match(found.join(" "), /uniform control flow/);
}));
