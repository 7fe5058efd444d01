import { BcNormError } from "./errors.js";

/** How the devices that are in use were lost, if they were. */
const devices = new WeakMap<GPUDevice, { lost: GPUDeviceLostInfo | undefined }>();

/** Throws where a device is lost. The device is watched from the first call on. */
export function checkAlive(device: GPUDevice): void {
  let known = devices.get(device);
  if (known === undefined) {
    const watched: { lost: GPUDeviceLostInfo | undefined } = { lost: undefined };
    void device.lost.then((lost) => {
      watched.lost = lost;
    });
    devices.set(device, watched);
    known = watched;
  }
  if (known.lost !== undefined) {
    const { reason, message } = known.lost;
    throw new BcNormError(
      "device-lost",
      `the GPU device was lost (${reason || "unknown"}${message ? `: ${message}` : ""}): ` +
        "request a new one and make the layers anew",
    );
  }
}
