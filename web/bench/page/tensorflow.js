// tf.js on its WebGPU backend: BCNorm in training, forward and backward, by its ops and their gradients, beside bcnorm on a
// device of its own, and beside bcnorm/tfjs on tf.js's.
import { attach } from "bcnorm/tfjs";
import { EPS, problem, reference, worst } from "/app/reference.js";
import { beside } from "./beside.js";
import { BAR, ours } from "./ours.js";
import { transposed } from "./transposed.js";

function script(src) {
  return new Promise((resolve, reject) => {
    const element = document.createElement("script");
    element.src = src;
    element.onload = resolve;
    element.onerror = () => reject(new Error(`${src} cannot be loaded`));
    document.head.append(element);
  });
}

/** How a layout sees the tensor (with space as one dimension), its channels, and its groups. */
function layouts([samples, channels], len, groups) {
  const per = channels / groups;
  return {
    "channels first": {
      dims: [samples, channels, len],
      channel: { shape: [1, channels, 1], axes: [0, 2] },
      grouped: [samples, groups, per * len],
      group: { shape: [1, groups, 1], axes: [2] },
      to: (values) => values,
      from: (values) => values,
    },
    "channels last": {
      dims: [samples, len, channels],
      channel: { shape: [1, 1, channels], axes: [0, 1] },
      grouped: [samples, len, groups, per],
      group: { shape: [1, 1, groups, 1], axes: [1, 3] },
      to: (values) => transposed(values, samples, channels, len),
      from: (values) => transposed(values, samples, len, channels),
    },
  };
}

/** BCNorm by tf.js's operations. */
function composition({ dims, channel, grouped, group }) {
  const standardize = (value, axes) => {
    const { mean, variance } = tf.moments(value, axes, true);
    return tf.mul(tf.sub(value, mean), tf.rsqrt(tf.add(variance, EPS)));
  };
  return (x, bnWeight, bnBias, weight, bias) => {
    const z = tf.add(tf.mul(standardize(x, channel.axes), bnWeight), bnBias);
    const each = standardize(tf.reshape(z, grouped), group.axes);
    return tf.reshape(tf.add(tf.mul(each, weight), bias), dims);
  };
}

/** A norm of five tensors, to be checked and timed. */
function make(norm, p, { dims, channel, group, to, from }) {
  const inputs = [
    tf.tensor(to(p.x), dims),
    tf.tensor(p.bnWeight, channel.shape),
    tf.tensor(p.bnBias, channel.shape),
    tf.tensor(p.weight, group.shape),
    tf.tensor(p.bias, group.shape),
  ];
  const gradY = tf.tensor(to(p.gradY), dims);
  const gradients = tf.grads(norm);
  const step = () => tf.tidy(() => gradients(inputs, gradY));
  const run = async (count) => {
    for (let i = 0; i < count; i++) {
      const found = step();
      if (i === count - 1) {
        // All work is done once a little of the last result can be read: one queue, in order.
        const little = tf.tidy(() => tf.slice(tf.reshape(found[0], [-1]), 0, 1));
        await little.data();
        little.dispose();
      }
      tf.dispose(found);
    }
  };
  const check = async () => {
    const results = [tf.tidy(() => norm(...inputs)), ...step()];
    const [y, gradX, ...rest] = await Promise.all(results.map((one) => one.data()));
    tf.dispose(results);
    const names = ["bn.weight", "bn.bias", "weight", "bias"];
    const parameters = names.map((name, i) => [`grad_${name}`, rest[i]]);
    return { y: from(y), grad_x: from(gradX), ...Object.fromEntries(parameters) };
  };
  return { check, run, dispose: () => tf.dispose([...inputs, gradY]) };
}

/** Loads tf.js; the problem, what comes of it, and the layouts. */
async function start(dims, groups) {
  // The layers bring the gradients, which the core by itself lacks.
  for (const name of ["core", "layers", "backend-webgpu"]) await script(`/tf/tfjs-${name}/dist/tf-${name}.min.js`);
  if (!(await tf.setBackend("webgpu"))) throw new Error("tf.js has no WebGPU backend here");
  await tf.ready();
  const p = problem(dims, groups);
  const expected = reference(p);
  const [samples, channels] = dims;
  const forms = layouts(dims, p.x.length / samples / channels, groups);
  const made = async (form) => {
    const { check, run, dispose } = make(composition(forms[form]), p, forms[form]);
    return { outputs: await check(), run, dispose };
  };
  return { p, expected, forms, made };
}

/** tf.js's operations beside bcnorm on a device of its own. */
export async function tensorflow(dims, groups, rounds) {
  const { p, expected, forms, made } = await start(dims, groups);
  return beside(await ours(p, expected, true), expected, Object.keys(forms), made, rounds);
}

/** tf.js's operations beside bcnorm/tfjs: the same tensors on the same device. */
export async function tfjs(dims, groups, rounds) {
  const { p, expected, forms, made } = await start(dims, groups);
  const bcnorm = await attach(tf);
  const last = forms["channels last"];
  const flat = { ...last, channel: { shape: [dims[1]] }, group: { shape: [groups] } };
  const norm = (x, channelGamma, channelBeta, gamma, beta) =>
    bcnorm.bcNorm(x, { channelGamma, channelBeta, gamma, beta, groups, epsilon: EPS, training: true });
  const { check, run, dispose } = make(norm, p, flat);
  const error = worst(expected, await check());
  if (!(error <= BAR)) throw new Error(`bcnorm/tfjs is off by ${error.toExponential(1)}, so it is not timed`);
  return beside({ run, destroy: dispose }, expected, Object.keys(forms), made, rounds);
}
