import { html, make } from "./dom.js";

const megabytes = (bytes: number): string => `${Math.round(bytes / 2 ** 20).toLocaleString("en")} MiB`;

/** What the browser says of its adapter, as far as it matters here; of none, that. */
function facts(device: GPUDevice | undefined): [string, string][] {
  if (device === undefined) {
    return [["adapter", "none: the CPU computes, in WebAssembly"]];
  }
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
  return rows.filter((row): row is [string, string] => row[1] !== undefined && row[1] !== "");
}

export function showAdapter(device: GPUDevice | undefined): void {
  html("adapter").replaceChildren(...facts(device).flatMap(([name, value]) => [make("dt", name), make("dd", value)]));
}

/** The same as text, with the browser. */
export function environment(device: GPUDevice | undefined): string {
  return [...facts(device), ["browser", navigator.userAgent]].map(([name, value]) => `- ${name}: ${value}`).join("\n");
}
