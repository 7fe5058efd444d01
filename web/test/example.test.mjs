// The example of a Rust program in the browser (examples/wasm), which has a wgpu device of its own.
import assert from "node:assert/strict";
import { test } from "node:test";
import { launch, missing, ROOT, serve } from "./chromium.mjs";

test("a Rust program normalizes on its own device", { skip: missing ?? false, timeout: 60_000 }, async () => {
  const server = await serve({ "/": `${ROOT}target/wasm-example` });
  const browser = await launch();
  try {
    const page = await browser.newPage();
    // Any page of this origin will do.
    await page.goto(`${server.address}/example.js`);
    const y = await page.evaluate(async () => {
      const { default: init, normalize } = await import("/example.js");
      await init();
      return [...(await normalize())];
    });
    assert.equal(y.length, 24);
    // Two samples of two groups of six: each has mean 0 and variance 1.
    for (let at = 0; at < 24; at += 6) {
      const group = y.slice(at, at + 6);
      const mean = group.reduce((a, b) => a + b) / 6;
      const variance = group.reduce((a, b) => a + (b - mean) ** 2, 0) / 6;
      assert.ok(Math.abs(mean) < 1e-6 && Math.abs(variance - 1) < 1e-4, `${mean}, ${variance}`);
    }
  } finally {
    await browser.close();
    server.close();
  }
});
