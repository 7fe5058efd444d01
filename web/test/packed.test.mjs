// The tarball that npm would publish, in projects of its users: nothing here sees the working tree's package.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { build, createLogger, createServer } from "vite";
import { launch, missing, open, ROOT, serve } from "./chromium.mjs";

const WEB = `${ROOT}web`;
const PACKAGE = JSON.parse(readFileSync(`${WEB}/package.json`, "utf8"));
const timeout = 60_000;
const browser = { skip: missing ?? false, timeout };
let scratch, tarball, project, installed;

/** Runs a program of npm's; what it says is in the error where it fails. */
function tool(name, args, cwd = project) {
  try {
    return execFileSync(name, args, { cwd, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
  } catch (error) {
    throw new Error(`${name} ${args.join(" ")}: ${error.message}\n${error.stdout}`);
  }
}

const bin = (name) => `${WEB}/node_modules/.bin/${name}`;

before(() => {
  scratch = mkdtempSync(join(tmpdir(), "bcnorm-packed-"));
  const [{ filename }] = JSON.parse(tool("npm", ["pack", "--json", "--pack-destination", scratch], WEB));
  tarball = join(scratch, filename);
  project = join(scratch, "project");
  cpSync(`${WEB}/test/packed`, project, { recursive: true });
  tool("npm", ["install", "--offline", "--no-audit", "--no-fund", tarball]);
  installed = join(project, "node_modules/bcnorm");
  symlinkSync(`${WEB}/node_modules/@tensorflow`, join(project, "node_modules/@tensorflow"));
});

after(() => rmSync(scratch, { recursive: true, force: true }));

test("it has the licences, a README, and every entry point that the READMEs name", { timeout }, () => {
  for (const name of ["LICENSE-APACHE", "LICENSE-MIT", "README.md"]) {
    const original = name === "README.md" ? `${WEB}/${name}` : `${ROOT}${name}`;
    assert.equal(readFileSync(join(installed, name), "utf8"), readFileSync(original, "utf8"), name);
  }
  const require = createRequire(join(project, "main.js"));
  const entries = Object.keys(PACKAGE.exports).map((name) => name.replace(".", PACKAGE.name));
  for (const entry of entries) {
    const file = require.resolve(entry);
    assert.ok(file.startsWith(installed), `${entry} is ${file}`);
    assert.ok(readFileSync(file).byteLength > 0, file);
  }
  for (const readme of ["README.md", "web/README.md"]) {
    const text = readFileSync(`${ROOT}${readme}`, "utf8");
    const named = [...text.matchAll(/from "(bcnorm[^"]*)"/g)].map(([, name]) => name);
    assert.ok(named.length > 1, `${readme} names no entry points`);
    assert.deepEqual(named.filter((name) => !entries.includes(name)), [], readme);
  }
});

test("publint and attw find nothing", { timeout }, () => {
  tool(bin("publint"), ["run", "--strict", tarball]);
  // WebAssembly has no declarations.
  const untyped = Object.keys(PACKAGE.exports).filter((name) => name.endsWith(".wasm"));
  tool(bin("attw"), ["--profile", "esm-only", "--no-definitely-typed", tarball, "--exclude-entrypoints", ...untyped]);
});

for (const resolution of ["bundler", "nodenext"]) {
  test(`TypeScript finds its declarations by ${resolution}`, { timeout }, () => {
    const common = ["--noEmit", "--strict", "--target", "es2022"];
    const how = ["--moduleResolution", resolution, "--module", resolution === "bundler" ? "esnext" : resolution];
    // The package's declarations are checked themselves; tf.js's cannot be.
    tool(bin("tsc"), [...common, ...how, "types.ts"]);
    tool(bin("tsc"), [...common, ...how, "--skipLibCheck", "tfjs.ts"]);
  });
}

/** (x - mean) / sqrt(var + 1e-5) within each set of the elements that have one key. */
function standardized(values, key) {
  const sets = new Map();
  values.forEach((value, i) => sets.set(key(i), [...(sets.get(key(i)) ?? []), value]));
  return values.map((value, i) => {
    const set = sets.get(key(i));
    const mean = set.reduce((a, b) => a + b) / set.length;
    const variance = set.reduce((a, b) => a + (b - mean) ** 2, 0) / set.length;
    return (value - mean) / Math.sqrt(variance + 1e-5);
  });
}

/** Opens a page with `main.js`, and compares its BCNorm, (2, 4, 3) in 2 groups, with the definition. */
async function check(address) {
  const chromium = await launch();
  try {
    const { page, errors } = await open(chromium, address);
    const found = page.waitForFunction(() => window.found, undefined, { timeout: 20_000 });
    await found.catch((error) => assert.fail([...errors, error].join("; ")));
    const { x, gpu, cpu } = await page.evaluate(() => window.found);
    const channels = standardized(x, (i) => Math.floor(i / 3) % 4);
    const expected = standardized(channels, (i) => Math.floor(i / 6));
    for (const [where, y] of Object.entries({ gpu, cpu })) {
      assert.equal(y.length, 24);
      const apart = Math.max(...y.map((value, i) => Math.abs(value - expected[i])));
      assert.ok(apart < 1e-5, `${where} is ${apart} apart`);
    }
    assert.deepEqual(errors, []);
  } finally {
    await chromium.close();
  }
}

/** Vite in the project, what it warns of, and no file of settings. */
function vite() {
  const warnings = [];
  const customLogger = createLogger("warn");
  customLogger.warn = customLogger.warnOnce = (message) => warnings.push(message);
  return { warnings, settings: { root: project, configFile: false, customLogger } };
}

test("Vite builds it", browser, async () => {
  const { warnings, settings } = vite();
  await build({ ...settings, base: "./" });
  assert.deepEqual(warnings, []);
  const server = await serve({ "/": join(project, "dist") });
  try {
    await check(`${server.address}/`);
  } finally {
    server.close();
  }
});

test("Vite serves it while one develops", browser, async () => {
  const { warnings, settings } = vite();
  const server = await createServer({ ...settings, server: { port: 0, host: "localhost" } });
  try {
    await server.listen();
    await check(server.resolvedUrls.local[0]);
    assert.deepEqual(warnings, []);
  } finally {
    await server.close();
  }
});

test("a page with an import map runs it", browser, async () => {
  const at = (entry) => `/bcnorm/${PACKAGE.exports[entry].default}`;
  const imports = { bcnorm: at("."), "bcnorm/cpu": at("./cpu") };
  const page = join(scratch, "page");
  mkdirSync(page);
  cpSync(join(project, "main.js"), join(page, "main.js"));
  const map = `<script type="importmap">${JSON.stringify({ imports })}</script>`;
  const html = readFileSync(join(project, "index.html"), "utf8");
  writeFileSync(join(page, "index.html"), html.replace("<script", `${map}<script`));
  const server = await serve({ "/bcnorm/": installed, "/": page });
  try {
    await check(`${server.address}/`);
  } finally {
    server.close();
  }
});
