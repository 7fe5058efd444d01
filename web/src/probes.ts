import { readBack } from "./buffers.js";
import { planner } from "./planner.js";
import { COPY_SRC, STORAGE } from "./usage.js";

/** Runs a kernel whose only binding is a buffer of so many u32s, which begin as zeros, and reads them. */
async function run(device: GPUDevice, entryPoint: string, code: string, workgroups: number, len: number): Promise<Uint32Array> {
  const label = `bcnorm ${entryPoint}`;
  const bytes = 4 * len;
  const buffer = device.createBuffer({ label, size: bytes, usage: STORAGE | COPY_SRC });
  try {
    const module = device.createShaderModule({ label, code });
    const compute = { module, entryPoint };
    const pipeline = await device.createComputePipelineAsync({ label, layout: "auto", compute });
    const encoder = device.createCommandEncoder({ label });
    const pass = encoder.beginComputePass({ label });
    pass.setPipeline(pipeline);
    const entries = [{ binding: 0, resource: { buffer } }];
    pass.setBindGroup(0, device.createBindGroup({ label, layout: pipeline.getBindGroupLayout(0), entries }));
    pass.dispatchWorkgroups(workgroups);
    pass.end();
    device.queue.submit([encoder.finish()]);
    const [found] = await readBack(device, [{ buffer, offset: 0, bytes }]);
    return new Uint32Array(found!.buffer, found!.byteOffset, len);
  } finally {
    buffer.destroy();
  }
}

/** Sizes of the workgroups that kernels reduce in. */
const WORKGROUP_SIZES = [64, 128, 256];
const WORKGROUPS = 4;

/** Of every invocation, whether it finds others where kernels look for them: 0. */
const subgroupProbe = (workgroupSize: number, subgroupSize: number): string => `enable subgroups;
@group(0) @binding(0) var<storage, read_write> strays: array<u32>;
@compute @workgroup_size(${workgroupSize}) fn probe_subgroups(
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(local_invocation_index) local: u32,
) {
  var stray = 0u;
  for (var stride = ${subgroupSize / 2}u; stride > 0u; stride = stride / 2u) {
    stray = stray | (subgroupShuffleXor(local, stride) ^ (local ^ stride));
  }
  strays[workgroup.x * ${workgroupSize}u + local] = stray;
}`;

/** Whether no invocation of workgroups of this size strays. */
async function inOrder(device: GPUDevice, workgroupSize: number, subgroupSize: number): Promise<boolean> {
  const code = subgroupProbe(workgroupSize, subgroupSize);
  const strays = await run(device, "probe_subgroups", code, WORKGROUPS, WORKGROUPS * workgroupSize);
  return strays.every((stray) => stray === 0);
}

/**
 * Invocations of the device's smallest subgroups, where neighbours in a workgroup are neighbours in them; else, or
 * without the feature, 1. WGSL does not promise that order, so it is looked at once.
 */
export async function subgroupSize(device: GPUDevice): Promise<number> {
  const size = device.adapterInfo?.subgroupMinSize;
  if (!device.features.has("subgroups") || size === undefined || size < 2) {
    return 1;
  }
  const runs = (workgroupSize: number): boolean =>
    workgroupSize <= device.limits.maxComputeInvocationsPerWorkgroup &&
    workgroupSize <= device.limits.maxComputeWorkgroupSizeX;
  try {
    for (const workgroupSize of WORKGROUP_SIZES.filter(runs)) {
      if (!(await inOrder(device, workgroupSize, size))) {
        return 1;
      }
    }
    return size;
  } catch {
    // A driver that cannot, or a device that is lost, which its next use will say.
    return 1;
  }
}

/** Patterns of f16, each of them an invocation's; workgroups have 256. */
const F16_PATTERNS = 1 << 16;

/** Whether the device reads and writes f16 with the library's bits, which WGSL does not promise of its functions for that. */
export async function nativeF16(device: GPUDevice): Promise<{ unpack: boolean; pack: boolean }> {
  try {
    const agree = await run(device, "probe_f16", planner().f16Probe(), F16_PATTERNS / 256, 2);
    return { unpack: agree[0] === F16_PATTERNS, pack: agree[1] === F16_PATTERNS };
  } catch {
    // As above.
    return { unpack: false, pack: false };
  }
}
