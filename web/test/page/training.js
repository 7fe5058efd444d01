// A training loop on the page's device: forward, a loss, backward and an optimizer's own kernel, one submission a
// step.
import { BcNorm, Tensor } from "bcnorm";
import { runOnCpu } from "bcnorm/cpu";

const DIMS = [4, 8, 6, 5];
const GROUPS = 4;
const RATE = 0.5;

const LOSS = `
@group(0) @binding(0) var<storage, read> y: array<f32>;
@group(0) @binding(1) var<storage, read> wanted: array<f32>;
@group(0) @binding(2) var<storage, read_write> grad_y: array<f32>;
@compute @workgroup_size(64) fn loss(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x < arrayLength(&y)) { grad_y[id.x] = 2.0 * (y[id.x] - wanted[id.x]) / f32(arrayLength(&y)); }
}`;

const STEP = `
@group(0) @binding(0) var<storage, read> gradient: array<f32>;
@group(0) @binding(1) var<storage, read_write> parameter: array<f32>;
@compute @workgroup_size(64) fn step(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x < arrayLength(&parameter)) { parameter[id.x] -= ${RATE} * gradient[id.x]; }
}`;

/** Numbers from -1 to 1 that are the same each time. */
function numbers(count, seed) {
  let state = seed;
  return Float32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  });
}

const PARAMETERS = ["weight", "bias", "bn.weight", "bn.bias"];

/** Trains on the GPU and, step by step, on the CPU; the losses, and how far the two come apart. */
export async function train(device, steps) {
  const count = DIMS.reduce((a, b) => a * b);
  const [xs, targets] = [numbers(count, 1), numbers(count, 2)];
  const options = { numChannels: DIMS[1], numGroups: GROUPS };
  const norm = await BcNorm.create(device, options);
  const x = Tensor.from(device, DIMS, xs);
  const target = Tensor.from(device, DIMS, targets);
  const [y, gradY, gradX] = [0, 0, 0].map(() => Tensor.zeros(device, DIMS));
  await norm.prepare(x);
  const kernel = (code) => {
    const module = device.createShaderModule({ code });
    const pipeline = device.createComputePipeline({ layout: "auto", compute: { module } });
    return (encoder, buffers) => {
      const entries = buffers.map((buffer, binding) => ({ binding, resource: { buffer } }));
      const pass = encoder.beginComputePass();
      pass.setPipeline(pipeline);
      pass.setBindGroup(
        0,
        device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries }),
      );
      pass.dispatchWorkgroups(Math.ceil(buffers.at(-1).size / 4 / 64));
      pass.end();
    };
  };
  const [loss, step] = [kernel(LOSS), kernel(STEP)];
  let state = await norm.stateDict();
  const [losses, apart] = [[], []];
  for (let i = 0; i < steps; i++) {
    const encoder = device.createCommandEncoder();
    norm.recordZeroGrad(encoder);
    // Into a pass of the page's own, and into an encoder.
    const pass = encoder.beginComputePass();
    const { saved } = norm.recordForward(pass, { x, y });
    pass.end();
    loss(encoder, [y.buffer, target.buffer, gradY.buffer]);
    norm.recordBackward(encoder, saved, { gradY, gradX });
    for (const name of PARAMETERS) {
      step(encoder, [norm.buffer(`grad_${name}`), norm.buffer(name)]);
    }
    device.queue.submit([encoder.finish()]);
    const ys = await y.read(device);
    losses.push(ys.reduce((sum, v, j) => sum + (v - targets[j]) ** 2, 0) / count);

    const call = { dims: DIMS, training: true, x: xs, state };
    const forward = runOnCpu("bc_norm", options, call);
    const dys = forward.y.map((v, j) => (2 * (v - targets[j])) / count);
    const cpu = runOnCpu("bc_norm", options, { ...call, gradY: dys });
    const now = await norm.stateDict();
    for (const name of PARAMETERS) {
      const stepped = state[name].values.map((v, j) => v - RATE * cpu[`grad_${name}`][j]);
      apart.push(Math.max(...stepped.map((v, j) => Math.abs(v - now[name].values[j]))));
    }
    state = now;
  }
  return {
    losses,
    apart: Math.max(...apart),
    batches: String(state["bn.num_batches_tracked"]),
  };
}
