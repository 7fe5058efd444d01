import { html, make } from "./dom.js";

const megabytes = (bytes: number): string => `${Math.round(bytes / 2 ** 20).toLocaleString()} MiB`;

/** What the browser says of its adapter, as far as it matters here. */
export function showAdapter(device: GPUDevice): void {
  const info: Partial<GPUAdapterInfo> = device.adapterInfo ?? {};
  const { limits, features } = device;
  const rows: [string, string | undefined][] = [
    ["vendor", info.vendor],
    ["architecture", info.architecture],
    ["device", info.device],
    ["description", info.description],
    ["fallback adapter", info.isFallbackAdapter === undefined ? undefined : info.isFallbackAdapter ? "yes" : "no"],
    ["largest binding", megabytes(limits.maxStorageBufferBindingSize)],
    ["largest buffer", megabytes(limits.maxBufferSize)],
    ["workgroup", `${limits.maxComputeInvocationsPerWorkgroup} invocations, ${limits.maxComputeWorkgroupStorageSize} bytes`],
    ["features", [...features].sort().join(", ")],
  ];
  const shown = rows.filter((row): row is [string, string] => row[1] !== undefined && row[1] !== "");
  html("adapter").replaceChildren(
    ...shown.flatMap(([name, value]) => [make("dt", name), make("dd", value)]),
  );
}
