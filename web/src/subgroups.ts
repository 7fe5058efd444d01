import { readBack } from "./buffers.js";
import { COPY_SRC, STORAGE } from "./usage.js";

/** Sizes of the workgroups that kernels reduce in. */
const WORKGROUP_SIZES = [64, 128, 256];
const WORKGROUPS = 4;

/** Of every invocation, whether it finds others where kernels look for them: 0. */
const probe = (workgroupSize: number, subgroupSize: number): string => `enable subgroups;
@group(0) @binding(0) var<storage, read_write> strays: array<u32>;
@compute @workgroup_size(${workgroupSize}) fn probe(
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
  const label = "bcnorm subgroups";
  const size = 4 * WORKGROUPS * workgroupSize;
  const strays = device.createBuffer({ label, size, usage: STORAGE | COPY_SRC });
  try {
    const module = device.createShaderModule({ label, code: probe(workgroupSize, subgroupSize) });
    const compute = { module, entryPoint: "probe" };
    const pipeline = await device.createComputePipelineAsync({ label, layout: "auto", compute });
    const encoder = device.createCommandEncoder({ label });
    const pass = encoder.beginComputePass({ label });
    pass.setPipeline(pipeline);
    const entries = [{ binding: 0, resource: { buffer: strays } }];
    pass.setBindGroup(0, device.createBindGroup({ label, layout: pipeline.getBindGroupLayout(0), entries }));
    pass.dispatchWorkgroups(WORKGROUPS);
    pass.end();
    device.queue.submit([encoder.finish()]);
    const found = await readBack(device, [{ buffer: strays, offset: 0, bytes: size }]);
    return found.every((bytes) => bytes.every((byte) => byte === 0));
  } finally {
    strays.destroy();
  }
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
