// A layer of bcnorm's behind a network that onnxruntime-web runs: one device, the same buffers.
import { runOnCpu } from "bcnorm/cpu";
import { model, node, tensor } from "/bench/onnx-file.js";

const values = (length, seed) => Float32Array.from({ length }, (_, i) => Math.sin(seed + 1.3 * i + (i % 7)));
const X = [2, 3, 6, 6];
const Y = [2, 8, 6, 6];
const apart = (one, other) => one.reduce((most, value, i) => Math.max(most, Math.abs(value - other[i])), 0);

/** Runs the documentation's program, and compares it with onnxruntime-web's features through the CPU executor. */
export async function run(program) {
  const backbone = model(
    [node("Conv", ["x", "w"], ["c"], { pads: [1, 1, 1, 1], kernel_shape: [3, 3] }), node("Relu", ["c"], ["y"])],
    [tensor("w", [8, 3, 3, 3], values(8 * 27, 1))],
    X,
    Y,
  );
  const image = new ort.Tensor("float32", values(2 * 3 * 36, 2), X);
  const targets = values(2 * 8 * 36, 3);
  const end = "const { location } = features; return { device, location, read: await features.getData(), norm, y, gradX };";
  const body = `${program.replace(/^import .*$/gm, "")}\n${end}`;
  // A tensor of another device would be refused by WebGPU.
  const made = { ...bcnorm, ort, backbone, image, gradient: (device) => bcnorm.Tensor.from(device, Y, targets) };
  const names = Object.keys(made);
  const { device, location, read, norm, y, gradX } = await new (async () => {}).constructor(...names, body)(...Object.values(made));
  const state = await norm.stateDict();
  state["bn.running_mean"].values.fill(0);
  state["bn.running_var"].values.fill(1);
  const call = { dims: Y, training: true, x: read, state, gradY: targets };
  const expected = runOnCpu("bc_norm", { numChannels: 8, numGroups: 2 }, call);
  const gradient = await new bcnorm.Tensor(norm.buffer("grad_weight"), [2]).read(device);
  return {
    location,
    y: apart(await y.read(device), expected.y),
    gradX: apart(await gradX.read(device), expected.grad_x),
    gradient: apart(gradient, expected.grad_weight),
    moved: Math.max(...read.map(Math.abs)),
  };
}
