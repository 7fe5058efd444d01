/** Golden vectors (tests/golden/README.md): PyTorch's results in f64, and what an f32 library may be off by. */
import { Norm, readSafetensors, Tensor, type DType, type NormKind, type NormOptions, type StateDict } from "bcnorm";
import { runOnCpu } from "bcnorm/cpu";

/** An output as it should be. */
export interface Expected {
  readonly name: string;
  readonly values: ArrayLike<number>;
  readonly scale: number;
  readonly bar: number;
}

/** A call of a norm. */
export interface Call {
  readonly kind: NormKind;
  readonly options: NormOptions;
  readonly state: StateDict;
  readonly dims: readonly number[];
  readonly dtype: DType;
  readonly training: boolean;
  readonly x: Float32Array;
  readonly gradY: Float32Array;
  readonly residual?: Float32Array;
  readonly expected: readonly Expected[];
}

/** Outputs by their names in the files. */
export type Outputs = Record<string, Float32Array>;

/** What a file says; undefined where it holds more than a norm (a convolution, too). */
export function parse(bytes: Uint8Array): Call | undefined {
  const { tensors, metadata } = readSafetensors(bytes);
  const kind = metadata["norm"] ?? "bc_norm";
  if (kind === "ws_conv_bc_norm") {
    return undefined;
  }
  const get = (name: string): { dims: readonly number[]; values: Float32Array } => {
    const tensor = tensors[name];
    if (tensor === undefined || !(tensor.values instanceof Float32Array)) {
      throw new Error(`the file has no floats "${name}"`);
    }
    return { dims: tensor.dims, values: tensor.values };
  };
  const has = (name: string): boolean => name in tensors;
  const both = kind === "bc_norm";
  const inner = both ? "bn." : "";
  const estimate = metadata["stats"] === "estimate";
  const { dims, values: x } = get("x");
  const tracked = has(`${inner}running_mean`);
  const options: NormOptions = {
    eps: Number(metadata["eps"]),
    activation: (metadata["activation"] ?? "none") as "none" | "relu" | "silu",
  };
  if (kind !== "weight_standardization") {
    options.numChannels = dims[1] ?? 0;
    options.weight = has("weight");
    options.bias = has("bias");
  }
  if (both || kind === "group_norm") {
    options.numGroups = Number(metadata["groups"]);
  }
  if (both) {
    options.bnWeight = has("bn.weight");
    options.bnBias = has("bn.bias");
    options.perChannelAffine = metadata["affine"] === "per_channel";
  }
  const movingSpeed = Number(metadata["moving_speed"]);
  if (estimate) {
    options.movingSpeed = movingSpeed;
  } else if (["batch_norm", "bc_norm", "instance_norm"].includes(kind)) {
    options.trackRunningStats = tracked;
    const momentum = metadata["momentum"] ?? "";
    options.momentum = ["", "None", "none"].includes(momentum) ? null : Number(momentum);
  }
  const state: StateDict = {};
  const names = ["weight", "bias", "bn.weight", "bn.bias", `${inner}running_mean`, `${inner}running_var`];
  for (const name of names.filter(has)) {
    state[name] = get(name);
  }
  if (tracked) {
    state[`${inner}num_batches_tracked`] = BigInt(metadata["num_batches_tracked"] ?? 0);
  }
  if (estimate) {
    state[`${inner}estbn_moving_speed`] = { dims: [1], values: Float32Array.of(movingSpeed) };
  }
  const expected = Object.entries(tensors).filter(([name]) => name.startsWith("expected."));
  return {
    kind: kind as NormKind,
    options,
    state,
    dims,
    dtype: (metadata["dtype"] ?? "f32") as DType,
    training: metadata["training"] === "true",
    x,
    gradY: get("grad_y").values,
    ...(has("residual") ? { residual: get("residual").values } : {}),
    expected: expected.map(([entry, { values }]) => {
      const name = entry.slice("expected.".length);
      return {
        name: name.replace(/_after$/, ""),
        values: values as Float64Array,
        scale: Number(metadata[`scale.${name}`]),
        bar: Math.max(1e-6, Number(metadata[`pytorch_f32_error.${name}`] ?? 0)),
      };
    }),
  };
}

/** Everything that a call leaves, from the GPU. */
export async function onGpu(device: GPUDevice, call: Call, options: NormOptions = {}): Promise<Outputs> {
  const { dims, dtype } = call;
  const norm = await Norm.create(device, call.kind, { ...call.options, ...options });
  norm.loadStateDict(call.state);
  if (!call.training) {
    norm.eval();
  }
  const made: Tensor[] = [];
  const tensor = (values: Float32Array): Tensor => {
    const uploaded = Tensor.from(device, dims, values, { dtype });
    made.push(uploaded);
    return uploaded;
  };
  const residual = call.residual === undefined ? {} : { residual: tensor(call.residual) };
  const { y, saved } = await norm.forward({ x: tensor(call.x), ...residual });
  const { gradX, gradResidual } = await norm.backward(saved, { gradY: tensor(call.gradY) });
  const outputs: Outputs = { y: await y.read(device), grad_x: await gradX.read(device) };
  if (gradResidual !== undefined) {
    outputs["grad_residual"] = await gradResidual.read(device);
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
  [...made, y, gradX].forEach((each) => each.destroy());
  return outputs;
}

/** The same from the CPU executor. */
export function onCpu(call: Call): Outputs {
  const { kind, options, expected: _, ...rest } = call;
  const outputs = runOnCpu(kind, options, rest);
  if (call.residual !== undefined && options.activation === "none") {
    outputs["grad_residual"] = call.gradY;
  }
  return outputs;
}

/** A unit in the last place of a 16-bit type. */
function ulp(value: number, dtype: DType): number {
  const [least, bits] = dtype === "f16" ? [-14, 10] : [-126, 7];
  const exponent = value === 0 ? least : Math.max(least, Math.floor(Math.log2(Math.abs(value))));
  return 2 ** (exponent - bits);
}

const TENSORS = ["y", "grad_x", "grad_residual"];

/** An output's error. */
export interface Verdict {
  readonly name: string;
  /** max |got - expected| / scale. */
  readonly error: number;
  /** How much of what it may be off by that is; NaN where an output is missing or NaN. More than 1 is wrong. */
  readonly fraction: number;
}

function verdict(call: Call, { name, values, scale, bar }: Expected, got?: Float32Array): Verdict {
  if (got === undefined || got.length !== values.length) {
    return { name, error: Number.NaN, fraction: Number.NaN };
  }
  const rounded = call.dtype !== "f32" && TENSORS.includes(name);
  let [error, fraction] = [0, 0];
  for (let i = 0; i < values.length; i++) {
    const expected = values[i] ?? Number.NaN;
    const off = Math.abs((got[i] ?? Number.NaN) - expected);
    if (Number.isNaN(off)) {
      return { name, error: off, fraction: off };
    }
    const allowed = rounded ? Math.max(ulp(expected, call.dtype), 1e-6 * scale) : bar * scale;
    error = Math.max(error, off === 0 ? 0 : off / scale);
    fraction = Math.max(fraction, off === 0 ? 0 : off / allowed);
  }
  return { name, error, fraction };
}

/** The worst output of a call. */
export function judge(call: Call, outputs: Outputs): Verdict {
  const all = call.expected.map((expected) => verdict(call, expected, outputs[expected.name]));
  // NaN is worse than anything, and stays.
  return all.reduce((worst, one) =>
    !Number.isNaN(worst.fraction) && !(one.fraction <= worst.fraction) ? one : worst,
  );
}
