// bcnorm on the page of a peer: what takes turns with it.
import { BcNorm, Tensor, requestDevice } from "bcnorm";
import { EPS, worst } from "/app/reference.js";

/** The library's bar, as `bcnorm bench` has it. */
export const BAR = 5e-6;

/** Running statistics of evaluation. */
export const running = (channels) => ({ mean: new Float32Array(channels), variance: new Float32Array(channels).fill(1) });

/** y in evaluation, in f64. */
export function evaluated(p) {
  const [samples, channels] = p.dims;
  const len = p.x.length / samples / channels;
  const size = (channels / p.groups) * len;
  const y = new Float64Array(p.x.length);
  for (let set = 0; set < samples * p.groups; set++) {
    const z = Float64Array.from(p.x.subarray(set * size, (set + 1) * size), (value, i) => {
      const channel = Math.floor((set * size + i) / len) % channels;
      return (value * p.bnWeight[channel]) / Math.sqrt(1 + EPS) + p.bnBias[channel];
    });
    const mean = z.reduce((a, b) => a + b, 0) / size;
    const variance = z.reduce((a, b) => a + (b - mean) ** 2, 0) / size;
    const group = set % p.groups;
    const factor = p.weight[group] / Math.sqrt(variance + EPS);
    z.forEach((value, i) => {
      y[set * size + i] = (value - mean) * factor + p.bias[group];
    });
  }
  const scale = y.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  return { y: { values: y, scale } };
}

/** Training forward and backward, or evaluation; checked against `expected`. */
export async function ours(p, expected, training) {
  const device = await requestDevice();
  const [, channels] = p.dims;
  const norm = await BcNorm.create(device, { numChannels: channels, numGroups: p.groups });
  const { mean, variance } = running(channels);
  const vector = (values) => ({ dims: [values.length], values });
  norm.loadStateDict({
    weight: vector(p.weight),
    bias: vector(p.bias),
    "bn.weight": vector(p.bnWeight),
    "bn.bias": vector(p.bnBias),
    "bn.running_mean": vector(mean),
    "bn.running_var": vector(variance),
    "bn.num_batches_tracked": 0n,
  });
  if (!training) {
    norm.eval();
    norm.setGradEnabled(false);
  }
  const [x, gradY] = [Tensor.from(device, p.dims, p.x), Tensor.from(device, p.dims, p.gradY)];
  const [y, gradX] = [Tensor.zeros(device, p.dims), Tensor.zeros(device, p.dims)];
  await norm.prepare(x);
  const run = async (count) => {
    const encoder = device.createCommandEncoder();
    for (let i = 0; i < count; i++) {
      const { saved } = norm.recordForward(encoder, { x, y });
      if (training) norm.recordBackward(encoder, saved, { gradY, gradX });
    }
    device.queue.submit([encoder.finish()]);
    await device.queue.onSubmittedWorkDone();
  };
  await run(1);
  const got = { y: await y.read(device) };
  if (training) {
    got.grad_x = await gradX.read(device);
    for (const [name, values] of Object.entries({ weight: p.weight, bias: p.bias, "bn.weight": p.bnWeight, "bn.bias": p.bnBias })) {
      got[`grad_${name}`] = await new Tensor(norm.buffer(`grad_${name}`), [values.length]).read(device);
    }
  }
  const error = worst(expected, got);
  if (!(error <= BAR)) throw new Error(`bcnorm is off by ${error.toExponential(1)}, so it is not timed`);
  return { run, destroy: () => device.destroy() };
}
