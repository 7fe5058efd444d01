// onnxruntime-web's outputs on the GPU as inputs of a layer, without a copy.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { launch, missing, open, ROOT, serve } from "./chromium.mjs";

test("a layer trains on the features of a network that onnxruntime-web runs", { skip: missing ?? false, timeout: 120_000 }, async () => {
  const server = await serve({
    "/bcnorm/": `${ROOT}web/dist`,
    "/ort/": `${ROOT}web/bench/node_modules/onnxruntime-web/dist`,
    "/bench/": `${ROOT}web/bench/page`,
    "/": `${ROOT}web/test/page`,
  });
  const browser = await launch();
  try {
    const { page, errors } = await open(browser, `${server.address}/onnxruntime.html`);
    await page.waitForFunction(() => window.ready);
    await page.evaluate(() => window.ready);
    const text = readFileSync(`${ROOT}web/README.md`, "utf8");
    const [program] = [...text.matchAll(/```js\n([^]*?)```/g)].map(([, code]) => code).filter((code) => code.includes("onnxruntime"));
    const found = await page.evaluate((program) => beside.run(program), program);
    assert.equal(found.location, "gpu-buffer");
    assert.ok(found.moved > 0.1);
    // f32 of values up to some units; the gradient is a sum of 288 of them.
    for (const what of ["y", "gradX", "gradient"]) {
      assert.ok(found[what] <= 2e-5, `${what} is ${found[what]} apart`);
    }
    assert.deepEqual(errors, []);
  } finally {
    await browser.close();
    server.close();
  }
});
