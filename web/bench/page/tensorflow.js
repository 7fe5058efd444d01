// tf.js on its WebGPU backend: BCNorm in training, forward and backward, by its ops and their gradients.
import { EPS, problem, reference } from "/app/reference.js";
import { beside } from "./beside.js";
import { ours } from "./ours.js";
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

function make(p, { dims, channel, grouped, group, to, from }) {
  const inputs = [
    tf.tensor(to(p.x), dims),
    tf.tensor(p.bnWeight, channel.shape),
    tf.tensor(p.bnBias, channel.shape),
    tf.tensor(p.weight, group.shape),
    tf.tensor(p.bias, group.shape),
  ];
  const gradY = tf.tensor(to(p.gradY), dims);
  const standardize = (value, axes) => {
    const { mean, variance } = tf.moments(value, axes, true);
    return tf.mul(tf.sub(value, mean), tf.rsqrt(tf.add(variance, EPS)));
  };
  const norm = (x, bnWeight, bnBias, weight, bias) => {
    const z = tf.add(tf.mul(standardize(x, channel.axes), bnWeight), bnBias);
    const each = standardize(tf.reshape(z, grouped), group.axes);
    return tf.reshape(tf.add(tf.mul(each, weight), bias), dims);
  };
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

export async function tensorflow(dims, groups, rounds) {
  // The core by itself has no gradients.
  await script("/tf/tf.min.js");
  await script("/tf-webgpu/tf-backend-webgpu.min.js");
  if (!(await tf.setBackend("webgpu"))) throw new Error("tf.js has no WebGPU backend here");
  await tf.ready();
  const p = problem(dims, groups);
  const expected = reference(p);
  const [samples, channels] = dims;
  const forms = layouts(dims, p.x.length / samples / channels, groups);
  const made = async (form) => {
    const { check, run, dispose } = make(p, forms[form]);
    return { outputs: await check(), run, dispose };
  };
  return beside(await ours(p, expected, true), expected, Object.keys(forms), made, rounds);
}
