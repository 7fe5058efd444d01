// The same plans on the same SwiftShader, by wgpu and by Chromium: the same bits.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { missing, ROOT } from "./chromium.mjs";
import { testPage } from "./page.mjs";

const COMMAND = process.env.BCNORM ?? `${ROOT}target/release/bcnorm`;
const ICD = process.env.SWIFTSHADER_ICD ?? "/usr/lib/chromium/vk_swiftshader_icd.json";
const skip =
  missing ??
  (existsSync(COMMAND) ? false : `there is no ${COMMAND}: cargo build --release -p bcnorm-cli`);
const FOLDER = `${ROOT}tests/golden`;
let opened, page, scratch;

before(async () => {
  if (skip) return;
  scratch = mkdtempSync(join(tmpdir(), "bcnorm-"));
  opened = await testPage();
  page = opened.page;
});

after(async () => {
  await opened?.close();
  if (scratch !== undefined) rmSync(scratch, { recursive: true });
});

/** `bcnorm run` on SwiftShader: what it writes, by name. */
function native(file, { eval: evaluation, groups, eps, params, momentum }) {
  const out = join(scratch, "out.safetensors");
  const paramsFile = join(scratch, "params.safetensors");
  writeFileSync(paramsFile, Uint8Array.from(params));
  const args = ["run", "--input", file, "--input-name", "x", "--grad", file, "--grad-name", "grad_y"];
  args.push("--params", paramsFile, "--groups", String(groups), "--eps", String(eps), "--output", out);
  args.push(evaluation ? "--eval" : "--train", "--adapter", "swiftshader", "--force");
  args.push(...momentum);
  // The folder only quiets EGL.
  const env = { XDG_RUNTIME_DIR: scratch, ...process.env, VK_DRIVER_FILES: ICD, VK_ICD_FILENAMES: ICD };
  execFileSync(COMMAND, args, { env, stdio: ["ignore", "ignore", "inherit"] });
  return readFileSync(out);
}

test("wgpu and Chromium leave the same bits on SwiftShader", { skip }, async () => {
  const files = readdirSync(FOLDER).filter((name) => name.endsWith(".safetensors"));
  assert.ok(files.length >= 48);
  const wrong = [];
  let compared = 0;
  for (const name of files) {
    // The parameters as the command takes them.
    const call = await page.evaluate(async (file) => {
      const bytes = new Uint8Array(await (await fetch(`/golden/${file}`)).arrayBuffer());
      window.call = golden.parse(bytes);
      const { options, state, training } = window.call;
      const { numGroups: groups, eps } = options;
      const momentum = options.movingSpeed === undefined ? ["--momentum", String(options.momentum ?? "none")] : [];
      const params = [...bcnorm.writeStateDict(state)];
      return { eval: !training, groups, eps, params, momentum };
    }, name);
    const bytes = native(join(FOLDER, name), call);
    const differing = await page.evaluate(async (encoded) => {
      const { tensors } = bcnorm.readSafetensors(Uint8Array.fromBase64?.(encoded) ?? Uint8Array.from(atob(encoded), (c) => c.charCodeAt(0)));
      const outputs = await golden.onGpu(device, window.call);
      const bits = (values) => new Uint32Array(values.buffer, values.byteOffset, values.length);
      const found = Object.entries(outputs).map(([output, values]) => {
        const other = tensors[output]?.values;
        if (other === undefined || other.length !== values.length) {
          return [output, "missing"];
        }
        const [a, b] = [bits(values), bits(other)];
        return [output, a.reduce((count, bit, i) => count + Number(bit !== b[i]), 0)];
      });
      return { outputs: found.length, wrong: found.filter(([, differ]) => differ !== 0) };
    }, bytes.toString("base64"));
    compared += differing.outputs;
    wrong.push(...differing.wrong.map(([output, differ]) => `${name}: ${output}: ${differ}`));
  }
  console.log(`${files.length} files, ${compared} outputs`);
  assert.deepEqual(wrong, []);
  assert.ok(compared >= 48 * 8);
});
