/** The code of what is shown: text that is shown, copied and run. */
import type { NormKind, NormOptions } from "bcnorm";
import { CHANNELS } from "./bank.js";
import { withoutParameters } from "./cpu.js";
import { OUTPUTS, type Engine, type Layer } from "./engine.js";
import { layerOf, normsOf, type Settings } from "./settings.js";

/** The functions of the text, in the order of the norms. */
const FUNCTIONS = ["normalize", "compare"] as const;

const CLASSES: Readonly<Partial<Record<NormKind, string>>> = {
  bc_norm: "BcNorm",
  batch_norm: "BatchNorm",
  group_norm: "GroupNorm",
};

const literal = (options: NormOptions): string => {
  const text = (value: unknown): string =>
    typeof value === "number" && value !== 0 && value < 1e-3 ? value.toExponential() : JSON.stringify(value);
  return `{ ${Object.entries(options).map(([name, value]) => `${name}: ${text(value)}`).join(", ")} }`;
};

/** What a module of the visitor's would say: by a GPU, or by the CPU. */
export function codeOf(settings: Settings, gpu: boolean): string {
  const layers = normsOf(settings).map((name) => layerOf(settings, name));
  const dims = `[${settings.batch}, ${CHANNELS}, ${settings.size}, ${settings.size}]`;
  const body = gpu ? onGpu : onCpu;
  const functions = layers.map((layer, index) => {
    const lines = body(layer, dims).map((line) => `  ${line}\n`);
    return `/** Feature maps ${dims} in, normalized ones out. */
export async function ${FUNCTIONS[index]}(values) {
${lines.join("")}}
`;
  });
  const classes = [...new Set(layers.map(({ kind }) => CLASSES[kind]))];
  const head = gpu
    ? `import { ${[...classes, "init", "requestDevice", "Tensor"].join(", ")} } from "bcnorm";

await init();
export const device = await requestDevice(); // Or your own.
`
    : `import { initCpu, runOnCpu } from "bcnorm/cpu";

await initCpu();
`;
  return [head, ...functions].join("\n");
}

function onGpu({ kind, options, before, training }: Layer, dims: string): string[] {
  const forward = "await norm.forward({ x, y });";
  return [
    `const x = Tensor.from(device, ${dims}, values);`,
    "const y = Tensor.zeros(device, x.dims);",
    `const norm = await ${CLASSES[kind]}.create(device, ${literal(options)});`,
    "norm.setGradEnabled(false); // No backward follows.",
    ...(before > 0
      ? [`for (let step = 0; step < ${before}; step++) {`, `  ${forward} // Moves the running statistics.`, "}"]
      : []),
    ...(training ? [] : ["norm.eval();"]),
    forward,
    "const result = await y.read(device);",
    "[x, y, norm].forEach((done) => done.destroy());",
    "return result;",
  ];
}

function onCpu({ kind, options, before, training }: Layer, dims: string): string[] {
  const call = (training: boolean, more = ""): string =>
    `runOnCpu("${kind}", options, { dims, training: ${training}, x: values${more} })`;
  const first = [`const dims = ${dims};`];
  if (before === 0) {
    return [...first, `const options = ${literal(options)};`, `return ${call(training)}.y;`];
  }
  const prefix = kind === "bc_norm" ? "bn." : "";
  const speed = options.movingSpeed;
  const names = ["mean", "var"].map((name) => `"${prefix}running_${name}"`);
  return [
    ...first,
    `const options = ${literal({ ...options, ...withoutParameters(kind) })};`,
    `const table = (value, len = ${CHANNELS}) => ({ dims: [len], values: new Float32Array(len).fill(value) });`,
    `const state = { ${names[0]}: table(0), ${names[1]}: table(1), "${prefix}num_batches_tracked": 0n };`,
    ...(speed === undefined ? [] : [`state["${prefix}estbn_moving_speed"] = table(${speed}, 1);`]),
    `for (let step = 0; step < ${before}; step++) {`,
    `  const after = ${call(true, ", state")};`,
    `  for (const name of [${names.join(", ")}]) state[name].values = after[name]; // They move.`,
    "}",
    `return ${call(training, ", state")}.y;`,
  ];
}

/** Runs such a text on the maps shown, and says how its values compare with those shown. */
export async function run(text: string, engine: Engine): Promise<string> {
  const values = await engine.read("before");
  const url = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
  const start = performance.now();
  const module: Record<string, unknown> & { device?: GPUDevice } = await import(url);
  URL.revokeObjectURL(url);
  try {
    let most = 0;
    for (const [index, name] of FUNCTIONS.entries()) {
      const normalize = module[name] as ((values: Float32Array) => Promise<Float32Array>) | undefined;
      if (normalize !== undefined) {
        most = Math.max(most, furthest(await normalize(values), await engine.read(OUTPUTS[index] ?? "after")));
      }
    }
    const took = `Ran here in ${Math.round(performance.now() - start)} ms: `;
    return most === 0
      ? `${took}its values are those of the picture, all of them.`
      : `${took}its values differ from those of the picture by up to ${most.toPrecision(2)}.`;
  } finally {
    module.device?.destroy();
  }
}

/** The largest difference; infinite where there is a NaN or another number of values. */
function furthest(a: Float32Array, b: Float32Array): number {
  let most = a.length === b.length ? 0 : Infinity;
  for (const [i, value] of a.entries()) {
    const off = Math.abs(value - (b[i] ?? Number.NaN));
    if (!(off <= most)) {
      most = Number.isNaN(off) ? Infinity : off;
    }
  }
  return most;
}
