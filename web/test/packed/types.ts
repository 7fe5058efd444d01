// A user's types: what is expected to be an error is one, so no declaration has become `any`.
import { BcNorm, BcNormError, init, Tensor, type Gradients, type Norm, type Saved } from "bcnorm";
import { initCpu, runOnCpu } from "bcnorm/cpu";

export async function step(device: GPUDevice, values: Float32Array): Promise<Float32Array> {
  await Promise.all([init(), initCpu(new URL("https://localhost/cpu.wasm"))]);
  const norm: Norm = await BcNorm.create(device, { numChannels: 4, numGroups: 2, activation: "relu" });
  // @ts-expect-error: channels are a number
  await BcNorm.create(device, { numChannels: "4" });
  const x = Tensor.from(device, [2, 4, 3], values);
  const { y, saved }: { y: Tensor; saved: Saved } = await norm.forward({ x });
  // @ts-expect-error: backward takes gradY
  await norm.backward(saved, { y });
  const { gradX }: Gradients = await norm.backward(saved, { gradY: y });
  // @ts-expect-error: internal
  void norm.planner;
  const cpu = runOnCpu("bc_norm", { numChannels: 4 }, { dims: [2, 4, 3], training: true, x: values });
  // @ts-expect-error: there is no such norm
  runOnCpu("power_norm", { numChannels: 4 }, { dims: [2, 4, 3], training: true, x: values });
  const code: string | undefined = new BcNormError("argument", "no").code;
  return cpu[code] ?? gradX.read(device);
}
