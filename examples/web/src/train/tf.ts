/** tf.js. Its builds for pages without a bundler are scripts that set a global `tf`; gradients are in the one of its layers. */
import type * as core from "@tensorflow/tfjs-core";
import type { WebGPUBackend } from "@tensorflow/tfjs-backend-webgpu";

for (const name of ["core", "layers", "backend-webgpu"]) {
  await import(new URL(`../tfjs/tf-${name}.es2017.min.js`, import.meta.url).href);
}

export const tf = (globalThis as unknown as { tf: typeof core & { WebGPUBackend: typeof WebGPUBackend } }).tf;
