// Compiled, never run: the declarations as a strict program meets them.
import {
  BatchNorm,
  BcNorm,
  BcNormError,
  GroupNorm,
  init,
  Norm,
  readSafetensors,
  requestDevice,
  Saved,
  Tensor,
  WeightStandardization,
  type ErrorCode,
  type StateDict,
} from "bcnorm";
import { initCpu, runOnCpu } from "bcnorm/cpu";

export async function program(own: GPUDevice, buffer: GPUBuffer): Promise<void> {
  await init();
  await init(new URL("planner.wasm", "https://example.org"));
  const device: GPUDevice = await requestDevice({ limits: "adapter" });
  const norm: BcNorm = await BcNorm.create(device, { numChannels: 64, numGroups: 8, momentum: null });
  await BatchNorm.create(own, { numChannels: 3, activation: "relu" });
  await WeightStandardization.create(own, { eps: 1e-5 });
  // @ts-expect-error a batch norm has no groups
  await BatchNorm.create(own, { numChannels: 3, numGroups: 2 });
  // @ts-expect-error its statistics are the batch's: with estimates it is EstBn
  await BatchNorm.create(own, { numChannels: 3, movingSpeed: 0.5 });
  // @ts-expect-error it has no statistics to keep
  await GroupNorm.create(own, { numChannels: 3, momentum: 0.5 });
  // @ts-expect-error filters have no channels of the norm's
  await WeightStandardization.create(own, { numChannels: 3 });
  // @ts-expect-error there is no such option
  await BcNorm.create(own, { numChannels: 3, numGroup: 3 });
  // @ts-expect-error there is no such activation
  await BcNorm.create(own, { numChannels: 3, activation: "gelu" });
  // @ts-expect-error there is no such norm
  await Norm.create(own, "power_norm", { numChannels: 3 });

  const x = new Tensor(buffer, [2, 64, 28, 28], { dtype: "f16", layout: "channels_last", offset: 256 });
  await norm.prepare(x, { residual: true });
  await norm.prepare({ dims: [2, 64, 28, 28], layout: "channels_last" });
  // @ts-expect-error a shape alone may be any tensor's
  await norm.prepare([2, 64, 28, 28]);
  const encoder = device.createCommandEncoder();
  const { y, saved }: { y: Tensor; saved: Saved } = norm.recordForward(encoder, { x, residual: x });
  const { gradX, gradResidual } = norm.recordBackward(encoder.beginComputePass(), saved, { gradY: y });
  const values: Float32Array = await gradX.read(device);
  // @ts-expect-error only with a residual there is one
  const length: number = gradResidual.elements;
  // @ts-expect-error the encoder comes first
  norm.recordForward({ x });
  norm.setStats({ momentum: 0.2 });
  norm.setStats({ movingSpeed: 0.2 });
  // @ts-expect-error one of them
  norm.setStats({ momentum: 0.2, movingSpeed: 0.2 });
  // @ts-expect-error backward goes back through what a forward saved
  await norm.backward({ gradY: y });
  // @ts-expect-error what it holds is the layer's
  const held = saved.held;
  (await norm.forward({ x, recompute: true })).saved.dispose();
  const bytes: number = norm.memory().idle;
  norm.release();
  const made: GPUDevice | undefined = gradX.device;
  // @ts-expect-error it is a getter
  norm.training = true;

  const state: StateDict = await norm.stateDict();
  norm.loadStateDict({ ...state, "bn.num_batches_tracked": 3n });
  const outputs: Record<string, Float32Array> = runOnCpu(
    "bc_norm",
    { numChannels: 64 },
    { dims: [1, 64], training: false, x: values, state },
  );
  await initCpu();
  const { tensors } = readSafetensors(new Uint8Array(length));
  try {
    norm.zeroGrad();
  } catch (error) {
    if (error instanceof BcNormError) {
      const code: ErrorCode = error.code;
      console.log(code, outputs, tensors, made, held, bytes);
    }
  }
}
