// onnxruntime-web on its WebGPU backend: BCNorm in evaluation, tensors on the GPU.
import { problem } from "/app/reference.js";
import { beside } from "./beside.js";
import { MODELS } from "./onnx.js";
import { evaluated, ours } from "./ours.js";

/** Models, and which layout they ask of what depends on one. */
const FORMS = {
  decomposed: ["decomposed", "NCHW"],
  "decomposed, channels last": ["decomposedLast", "NHWC"],
  "LayerNormalization": ["layer", "NCHW"],
  "InstanceNormalization": ["instance", "NCHW"],
  "InstanceNormalization, NHWC preferred": ["instance", "NHWC"],
};

export async function onnxruntime(dims, groups, rounds) {
  const ort = await import("/ort/ort.webgpu.min.mjs");
  ort.env.wasm.wasmPaths = "/ort/";
  // More threads need a page that is isolated; the work is on the GPU.
  ort.env.wasm.numThreads = 1;
  const p = problem(dims, groups);
  const expected = evaluated(p);
  const make = async (form) => {
    const [name, preferredLayout] = FORMS[form];
    const { bytes, shape, to, from } = MODELS[name](p);
    const session = await ort.InferenceSession.create(bytes, {
      executionProviders: [{ name: "webgpu", preferredLayout }],
      preferredOutputLocation: "gpu-buffer",
      logSeverityLevel: 3,
    });
    const device = await ort.env.webgpu.device;
    const values = to(p.x);
    const buffer = device.createBuffer({
      size: values.byteLength,
      usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST,
    });
    device.queue.writeBuffer(buffer, 0, values);
    const x = ort.Tensor.fromGpuBuffer(buffer, { dataType: "float32", dims: shape });
    const { y } = await session.run({ x });
    const outputs = { y: from(await y.getData()) };
    y.dispose();
    const run = async (count) => {
      for (let i = 0; i < count; i++) {
        (await session.run({ x })).y.dispose();
      }
      await device.queue.onSubmittedWorkDone();
    };
    const dispose = async () => {
      await session.release();
      buffer.destroy();
    };
    return { outputs, run, dispose };
  };
  return beside(await ours(p, expected, false), expected, Object.keys(FORMS), make, rounds);
}
