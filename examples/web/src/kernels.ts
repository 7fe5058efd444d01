/** Kernels of a benchmark's baselines: their texts are those of the command (cli/shaders). */

/** A text beside this module. */
export async function shader(name: string): Promise<string> {
  const response = await fetch(new URL(`./shaders/${name}.wgsl`, import.meta.url));
  if (!response.ok) {
    throw new Error(`the shader ${name} cannot be loaded (${response.status})`);
  }
  return response.text();
}

/** Something to record. */
export type Dispatch = (pass: GPUComputePassEncoder) => void;

/** A dispatch of a text whose entry point has its name; buffers by binding. */
export function dispatch(
  device: GPUDevice,
  name: string,
  code: string,
  buffers: readonly (readonly [number, GPUBuffer])[],
  workgroups: number,
): Dispatch {
  const module = device.createShaderModule({ label: name, code });
  const pipeline = device.createComputePipeline({ label: name, layout: "auto", compute: { module, entryPoint: name } });
  const group = device.createBindGroup({
    layout: pipeline.getBindGroupLayout(0),
    entries: buffers.map(([binding, buffer]) => ({ binding, resource: { buffer } })),
  });
  // More workgroups than a dimension holds are folded into two.
  const y = Math.ceil(workgroups / device.limits.maxComputeWorkgroupsPerDimension);
  const x = Math.ceil(workgroups / y);
  return (pass) => {
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, group);
    pass.dispatchWorkgroups(x, y);
  };
}

/** A storage buffer with these numbers. */
export function upload(device: GPUDevice, values: Float32Array | Uint32Array, usage = 0): GPUBuffer {
  const { STORAGE, COPY_SRC, COPY_DST } = GPUBufferUsage;
  const buffer = device.createBuffer({
    size: Math.ceil(values.byteLength / 16) * 16,
    usage: usage === 0 ? STORAGE | COPY_SRC | COPY_DST : usage,
    mappedAtCreation: true,
  });
  const to = new Uint8Array(buffer.getMappedRange());
  to.set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
  buffer.unmap();
  return buffer;
}
