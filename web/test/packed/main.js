// A user's page: one forward on the GPU and on the CPU.
import { BcNorm, init, requestDevice, Tensor } from "bcnorm";
import { initCpu, runOnCpu } from "bcnorm/cpu";

await Promise.all([init(), initCpu()]);
const options = { numChannels: 4, numGroups: 2 };
const dims = [2, 4, 3];
const x = Float32Array.from({ length: 24 }, (_, i) => 3 + (i % 5) * Math.sin(i));
const device = await requestDevice();
const norm = await BcNorm.create(device, options);
const { y } = await norm.forward({ x: Tensor.from(device, dims, x) });
const cpu = runOnCpu("bc_norm", options, { dims, training: true, x });
window.found = { x: [...x], gpu: [...(await y.read(device))], cpu: [...cpu.y] };
