// Golden vectors in a real browser, on a device of the page's.
import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { after, before, test } from "node:test";
import { missing, ROOT } from "./chromium.mjs";
import { testPage } from "./page.mjs";

const FOLDER = `${ROOT}tests/golden`;
const skip = missing ?? false;
let opened, page;

before(async () => {
  if (skip) return;
  opened = await testPage();
  page = opened.page;
});

after(() => opened?.close());

test("golden vectors on the page's device and on the CPU executor", { skip }, async () => {
  const files = readdirSync(FOLDER, { recursive: true }).filter((file) => file.endsWith(".safetensors"));
  const results = await page.evaluate(async (names) => {
    const results = [];
    for (const name of names) {
      results.push([name, await check(device, `/golden/${name}`)]);
    }
    return results;
  }, files.sort());
  const norms = results.filter(([, result]) => result !== undefined);
  const wrong = norms.flatMap(([name, { outputs, differing, ...executors }]) => {
    assert.deepEqual(differing, [], `${name}: other bits with subgroups`);
    assert.ok(outputs >= 2, `${name}: ${outputs} outputs`);
    const off = Object.entries(executors).filter(([, { fraction }]) => !(fraction <= 1));
    return off.map(([executor, worst]) => `${name}, ${executor}: ${worst.name} by ${worst.fraction} of what it may`);
  });
  assert.deepEqual(wrong, []);
  assert.ok(norms.length >= 170, `${norms.length} files`);
  const worst = norms.reduce((a, b) => (b[1].gpu.fraction > a[1].gpu.fraction ? b : a));
  console.log(`${norms.length} files; worst ${worst[0]}: ${worst[1].gpu.name}, ${worst[1].gpu.fraction.toFixed(2)} of its bar`);
  opened.failed();
});

test("a wrong output does not pass", { skip }, async () => {
  const found = await page.evaluate(async () => {
    const bytes = new Uint8Array(await (await fetch("/golden/small.batch.train.safetensors")).arrayBuffer());
    const call = golden.parse(bytes);
    const right = await golden.onGpu(device, call);
    const judge = (change) => {
      const outputs = structuredClone(right);
      change(outputs);
      return golden.judge(call, outputs).fraction;
    };
    return {
      right: judge(() => {}),
      swapped: judge((o) => ([o.y, o.grad_x] = [o.grad_x, o.y])),
      one: judge((o) => (o.grad_x[7] += 1e-4)),
      nan: String(judge((o) => (o.y[3] = Number.NaN))),
      missing: String(judge((o) => delete o.grad_bias)),
    };
  });
  assert.ok(found.right <= 1);
  assert.ok(found.swapped > 1 && found.one > 1, JSON.stringify(found));
  assert.deepEqual([found.nan, found.missing], ["NaN", "NaN"]);
});
