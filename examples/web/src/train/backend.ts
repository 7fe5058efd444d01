/** tf.js on a device of the page's, with bcnorm attached. */
import { attach, type Bcnorm } from "bcnorm/tfjs";
import { tf } from "./tf.js";

const NAME = "webgpu";

/** Sets tf.js's backend up anew, on this device. */
export async function open(device: GPUDevice): Promise<Bcnorm> {
  // The one that tf.js would make, or the one whose device was lost.
  if (tf.findBackendFactory(NAME) !== null) {
    tf.removeBackend(NAME);
  }
  tf.registerBackend(NAME, () => new tf.WebGPUBackend(device, device.adapterInfo));
  await tf.setBackend(NAME);
  return attach(tf);
}
