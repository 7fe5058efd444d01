// Golden vectors (tests/golden/README.md) through the package.
import { Norm, readSafetensors, Tensor } from "bcnorm";
import { runOnCpu } from "bcnorm/cpu";

/** What a golden file says, as the package takes it. undefined: a file that holds more than a norm. */
export function parse(bytes) {
  const { tensors, metadata } = readSafetensors(bytes);
  const kind = metadata.norm ?? "bc_norm";
  if (kind === "ws_conv_bc_norm") {
    return undefined;
  }
  const dims = tensors.x.dims;
  const has = (name) => name in tensors;
  const both = kind === "bc_norm";
  const estimate = metadata.stats === "estimate";
  const options = {
    numChannels: dims[1],
    eps: Number(metadata.eps),
    weight: has("weight"),
    bias: has("bias"),
    trackRunningStats: has(both ? "bn.running_mean" : "running_mean"),
    activation: metadata.activation ?? "none",
  };
  if (both || kind === "group_norm") {
    options.numGroups = Number(metadata.groups);
  }
  if (both) {
    options.bnWeight = has("bn.weight");
    options.bnBias = has("bn.bias");
    options.perChannelAffine = metadata.affine === "per_channel";
  }
  if (estimate) {
    options.movingSpeed = Number(metadata.moving_speed);
  } else if (["batch_norm", "bc_norm", "instance_norm"].includes(kind)) {
    const none = ["", "None", "none"].includes(metadata.momentum);
    options.momentum = none ? null : Number(metadata.momentum);
  }
  const inner = both ? "bn." : "";
  const state = {};
  const names = ["weight", "bias", "bn.weight", "bn.bias", `${inner}running_mean`, `${inner}running_var`];
  for (const name of names.filter(has)) {
    state[name] = { dims: tensors[name].dims, values: tensors[name].values };
  }
  if (options.trackRunningStats) {
    state[`${inner}num_batches_tracked`] = BigInt(metadata.num_batches_tracked ?? 0);
  }
  if (estimate) {
    state[`${inner}estbn_moving_speed`] = { dims: [1], values: Float32Array.of(options.movingSpeed) };
  }
  const expected = Object.entries(tensors).filter(([name]) => name.startsWith("expected."));
  return {
    kind,
    options,
    state,
    dims,
    dtype: metadata.dtype ?? "f32",
    training: metadata.training === "true",
    x: tensors.x.values,
    gradY: tensors.grad_y.values,
    residual: tensors.residual?.values,
    expected: expected.map(([entry, { values }]) => {
      const name = entry.slice("expected.".length);
      return {
        name: name.replace(/_after$/, ""),
        values,
        scale: Number(metadata[`scale.${name}`]),
        bar: Math.max(1e-6, Number(metadata[`pytorch_f32_error.${name}`] ?? 0)),
      };
    }),
  };
}

/** Everything that a call leaves, by the names of the golden files, from the GPU. */
export async function onGpu(device, call, options = {}) {
  const { dims, dtype } = call;
  const norm = await Norm.create(device, call.kind, { ...call.options, ...options });
  norm.loadStateDict(call.state);
  if (!call.training) {
    norm.eval();
  }
  const tensor = (values) => Tensor.from(device, dims, values, { dtype });
  const residual = call.residual === undefined ? {} : { residual: tensor(call.residual) };
  const y = await norm.forward(tensor(call.x), residual);
  const { gradX, gradResidual } = await norm.backward(tensor(call.gradY));
  const outputs = { y: await y.read(device), grad_x: await gradX.read(device) };
  if (gradResidual !== undefined) {
    outputs.grad_residual = await gradResidual.read(device);
  }
  for (const [name, value] of Object.entries(await norm.stateDict())) {
    if (typeof value === "bigint" || name.endsWith("estbn_moving_speed")) {
      continue;
    }
    const gradient = norm.buffer(`grad_${name}`);
    if (gradient === undefined) {
      outputs[name] = value.values;
    } else {
      outputs[`grad_${name}`] = await new Tensor(gradient, [value.values.length]).read(device);
    }
  }
  norm.destroy();
  return outputs;
}

/** The same from the CPU executor. */
export function onCpu(call) {
  const { kind, options, residual, ...rest } = call;
  const outputs = runOnCpu(kind, options, residual === undefined ? rest : { ...rest, residual });
  if (residual !== undefined && options.activation === "none") {
    outputs.grad_residual = call.gradY;
  }
  return outputs;
}

/** A unit in the last place of a 16-bit type. */
function ulp(value, dtype) {
  const [least, bits] = dtype === "f16" ? [-14, 10] : [-126, 7];
  const exponent = value === 0 ? least : Math.max(least, Math.floor(Math.log2(Math.abs(value))));
  return 2 ** (exponent - bits);
}

const TENSORS = ["y", "grad_x", "grad_residual"];

/** How much of what it may be off by an output is, at worst; NaN where it must not be. */
export function fraction(call, { name, values, scale, bar }, got) {
  if (got === undefined || got.length !== values.length) {
    return Number.NaN;
  }
  const rounded = call.dtype !== "f32" && TENSORS.includes(name);
  let worst = 0;
  for (let i = 0; i < values.length; i++) {
    const off = Math.abs(got[i] - values[i]);
    const allowed = rounded ? Math.max(ulp(values[i], call.dtype), 1e-6 * scale) : bar * scale;
    const part = off === 0 ? 0 : off / allowed;
    if (!(part <= worst)) {
      worst = part;
    }
    if (Number.isNaN(part)) {
      return part;
    }
  }
  return worst;
}

/** The worst output of a call. */
export function judge(call, outputs) {
  const all = call.expected.map((expected) => ({
    name: expected.name,
    fraction: fraction(call, expected, outputs[expected.name]),
  }));
  // NaN is worse than anything, and stays.
  const worse = (one, other) => !(one.fraction <= other.fraction) && !Number.isNaN(other.fraction);
  return all.reduce((worst, one) => (worse(one, worst) ? one : worst));
}

/** Runs a file on both executors; undefined where it holds more than a norm. */
export async function check(device, url) {
  const bytes = new Uint8Array(await (await fetch(url)).arrayBuffer());
  const call = parse(bytes);
  if (call === undefined) {
    return undefined;
  }
  return {
    outputs: call.expected.length,
    gpu: judge(call, await onGpu(device, call)),
    // The tuning for GPUs takes other kernels: lanes, barriers.
    gpuTuning: judge(call, await onGpu(device, call, { tuning: "class=gpu" })),
    cpu: judge(call, onCpu(call)),
  };
}
