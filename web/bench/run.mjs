// bcnorm in headless Chromium on SwiftShader, beside the native run on the same driver and beside its peers on the
// same page: node web/bench/run.mjs --root FOLDER [--native BCNORM] [--shape N,C,H,W]... [--json FILE] [--no-peers]
import { execFile } from "node:child_process";
import { writeFileSync } from "node:fs";
import { argv, env, exit, stderr } from "node:process";
import { parseArgs, promisify } from "node:util";
import { fileURLToPath } from "node:url";
import { launch, missing, open, serve } from "../test/chromium.mjs";
import { report } from "./report.mjs";

const GROUPS = 32;
const SHAPES = ["8,64,56,56", "4,256,56,56", "2,256,100,152", "1,64,224,224", "16,512,7,7"];
const REPEATS = 7;
const PEER_ROUNDS = 3;
/** Browser and native run alternate so many times: they cannot take turns submission by submission. */
const ALTERNATIONS = 3;
/** Where Debian's Chromium has SwiftShader for Vulkan programs. */
const ICD = env.SWIFTSHADER_ICD ?? "/usr/lib/chromium/vk_swiftshader_icd.json";

function usage(message) {
  stderr.write(`${message}\n`);
  exit(2);
}

let options;
try {
  options = parseArgs({
    args: argv.slice(2),
    options: {
      root: { type: "string" },
      native: { type: "string" },
      shape: { type: "string", multiple: true },
      json: { type: "string" },
      "no-peers": { type: "boolean" },
    },
  }).values;
} catch (error) {
  usage(error.message);
}
if (options.root === undefined) {
  usage("--root is missing: the folder that `cargo xtask web --build` leaves, target/web");
}
const shapes = (options.shape ?? SHAPES).map((shape) => {
  const dims = shape.split(",").map(Number);
  if (dims.length < 3 || !dims.every((size) => Number.isInteger(size) && size > 0) || dims[1] % GROUPS !== 0) {
    usage(`--shape ${shape}: N,C,H,W with C a multiple of ${GROUPS} is wanted`);
  }
  return dims;
});
if (missing !== undefined) {
  stderr.write(`${missing}\n`);
  exit(1);
}

/** The native run's medians on SwiftShader in ms, and those of its copy kernel. */
async function native(dims) {
  const args = ["bench", "--adapter", "swiftshader", "--json", "--no-cpu", "--repeats", String(REPEATS)];
  const { stdout } = await promisify(execFile)(
    options.native,
    [...args, "--shape", dims.join(","), "--groups", String(GROUPS)],
    // Vulkan's loader complains without XDG_RUNTIME_DIR.
    { env: { XDG_RUNTIME_DIR: "/tmp", ...env, VK_DRIVER_FILES: ICD, VK_ICD_FILENAMES: ICD } },
  );
  const lines = stdout.trim().split("\n").map((line) => JSON.parse(line));
  const [{ adapter, clock, copy_ms: copy }] = lines;
  return { adapter, clock, copy, ...Object.fromEntries(lines.map(({ direction, ms }) => [direction, ms])) };
}

/** One function of the page, in a fresh browser: nothing of one measurement is left in the next. */
async function inBrowser(address, name, ...args) {
  const browser = await launch();
  try {
    const { page } = await open(browser, address);
    await page.waitForSelector("html[data-ready]", { state: "attached" });
    return await page.evaluate(([name, args]) => window.bench[name](...args), [name, args]);
  } finally {
    await browser.close();
  }
}

const folder = (name) => fileURLToPath(new URL(name, import.meta.url));
const server = await serve({
  "/app/": options.root,
  "/tf/": folder("../node_modules/@tensorflow"),
  "/ort/": folder("node_modules/onnxruntime-web/dist"),
  "/": folder("page"),
});
const address = `${server.address}/`;

/** Of each number, the median over some runs; of anything else, the last. */
function medians(runs) {
  const of = (key) => {
    const values = runs.map((run) => run[key]);
    return typeof values[0] === "number" ? values.toSorted((a, b) => a - b)[values.length >> 1] : values.at(-1);
  };
  return Object.fromEntries(Object.keys(runs[0]).map((key) => [key, of(key)]));
}

const own = { browser: (dims) => inBrowser(address, "measure", dims, GROUPS, REPEATS) };
if (options.native !== undefined) {
  own.native = native;
}
const peers = options["no-peers"] ? [] : ["tensorflow", "tfjs", "onnxruntime"];
const results = [];
for (const dims of shapes) {
  const result = { dims };
  results.push(result);
  // One process measures at a time: the native run and a browser would slow each other down.
  const step = async (what, run) => {
    stderr.write(`(${dims.join(", ")}): ${what}...\n`);
    try {
      return await run();
    } catch (error) {
      // The others can still be measured.
      (result.failed ??= {})[what] = error.message;
    }
  };
  const runs = {};
  for (let i = 0; i < (options.native === undefined ? 1 : ALTERNATIONS); i++) {
    for (const [what, run] of Object.entries(own)) {
      const one = await step(what, () => run(dims));
      if (one !== undefined) (runs[what] ??= []).push(one);
    }
  }
  for (const [what, all] of Object.entries(runs)) {
    result[what] = medians(all);
  }
  for (const name of peers) {
    result[name] = await step(name, () => inBrowser(address, name, dims, GROUPS, PEER_ROUNDS));
  }
  if (options.json !== undefined) {
    writeFileSync(options.json, `${JSON.stringify(results, null, 1)}\n`);
  }
}
server.close();
exit(report(results, GROUPS) ? 0 : 1);
