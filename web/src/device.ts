import { checkOptions, oneOf } from "./check.js";
import { BcNormError, text } from "./errors.js";

export interface DeviceOptions {
  powerPreference?: GPUPowerPreference;
  /** `"adapter"`: as large buffers and bindings as there are; default: WebGPU's default limits. */
  limits?: "default" | "adapter";
}

/**
 * A device for a page that has none yet, with subgroups and timestamp queries where the adapter has them. (Layers
 * take any device of the page's.)
 *
 * @throws {BcNormError} `argument`, `no-webgpu`, `no-adapter`, `device`.
 */
export async function requestDevice(options: DeviceOptions = {}): Promise<GPUDevice> {
  checkOptions("requestDevice", options, {
    powerPreference: oneOf("low-power", "high-performance"),
    limits: oneOf("default", "adapter"),
  });
  const gpu: GPU | undefined = globalThis.navigator?.gpu;
  if (gpu === undefined) {
    const insecure = globalThis.isSecureContext === false;
    throw new BcNormError(
      "no-webgpu",
      insecure
        ? "WebGPU needs a secure context: serve the page by https, or from localhost"
        : "this browser has no WebGPU: use a recent Chrome, Edge, Firefox or Safari, or enable it in the settings",
    );
  }
  const { powerPreference } = options;
  const adapter = await gpu
    .requestAdapter(powerPreference === undefined ? {} : { powerPreference })
    .catch((cause: unknown) => {
      throw new BcNormError("no-adapter", `WebGPU gives no adapter: ${text(cause)}`, { cause });
    });
  if (adapter === null) {
    throw new BcNormError(
      "no-adapter",
      "WebGPU finds no adapter: update the graphics driver, or enable hardware acceleration in the browser",
    );
  }
  const wanted: GPUFeatureName[] = ["subgroups", "timestamp-query"];
  const requiredFeatures = wanted.filter((feature) => adapter.features.has(feature));
  const { maxBufferSize, maxStorageBufferBindingSize } = adapter.limits;
  const requiredLimits = options.limits === "adapter" ? { maxBufferSize, maxStorageBufferBindingSize } : {};
  try {
    return await adapter.requestDevice({ label: "bcnorm", requiredFeatures, requiredLimits });
  } catch (cause) {
    throw new BcNormError("device", `the adapter gives no device: ${text(cause)}`, { cause });
  }
}
