// The page's tab "Train": the networks against PyTorch's twin, and the tab clicked through as a visitor would. Screenshots go to
// target/screenshots.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { readSafetensors } from "bcnorm";
import { missing, open, ROOT } from "./chromium.mjs";
import { DESKTOP, examplePage, PHONE as LIGHT_PHONE, SHOTS } from "./example.mjs";

const skip = missing ?? false;
const site = examplePage();
const PHONE = { ...LIGHT_PHONE, colorScheme: "dark" };

const address = (query = "") => `${site.address}?tab=train${query}`;
const text = (page, id) => page.textContent(`#train-${id}`);

/** Waits until the tab is in a state. */
const state = (page, value) =>
  page.waitForFunction((value) => document.querySelector("#train").dataset.state === value, value, { timeout: 100_000 });

/** Waits until so many steps are done. */
const steps = (page, count) =>
  page.waitForFunction((count) => parseInt(document.querySelector("#train-steps").textContent) >= count, count, { timeout: 100_000 });

/** The losses of PyTorch's twin. */
function twin(norm) {
  const file = `${ROOT}integrations/burn/train-digits/tests/pytorch/${norm}.tsv`;
  const [head, , ...rows] = readFileSync(file, "utf8").trim().split("\n");
  const ws = norm.startsWith("bcn") ? 1 : 0;
  assert.equal(head, `# source=pytorch norm=${norm} ws=${ws} batch=2 lr=0.02 epochs=3 seed=0`);
  return rows.map((row) => Number(row.split("\t")[1]));
}

/** What the twin's runs of three seeds end with, in percent. */
function ends(norm) {
  const logs = [0, 1, 2].map((seed) => readFileSync(`${ROOT}integrations/burn/train-digits/pytorch/${norm}-${seed}.tsv`, "utf8"));
  const last = logs.map((log) => Number(log.trim().split("\n").at(-1).split("\t")[2]));
  return Math.round((100 * last.reduce((a, b) => a + b)) / last.length);
}

/** What f32's rounding makes of twenty steps' losses, of which the twin's are given to 1e-6. */
const BAR = 1e-4;

test("each norm's first losses are those of PyTorch's twin, and a step leaves nothing behind", { skip, timeout: 200_000 }, async () => {
  const { page, errors } = await open(site.browser, address(), DESKTOP);
  await state(page, "ready");
  const told = `${ends("bn")} % with BatchNorm, ${ends("gn")} % with GroupNorm, ${ends("bcn")} % with BCNorm and ${ends("bcn-est")} %`;
  const why = (await page.textContent("#train .why")).replace(/\s+/g, " ");
  assert.ok(why.includes(told), `${why}: expected ${told}`);
  const found = await page.evaluate(async () => {
    const [{ requestDevice }, { tf }, { open }, { Race }, { fetchDigits }] = await Promise.all([
      import("bcnorm"),
      ...["tf", "backend", "race", "digits"].map((name) => import(new URL(`train/${name}.js`, location.href).href)),
    ]);
    const folder = new URL("digits/", location.href);
    const bcnorm = await open(await requestDevice());
    const digits = [await fetchDigits(folder, "train"), await fetchDigits(folder, "test")];
    const before = tf.memory().numTensors;
    const found = {};
    for (const norms of [["bn", "bcn-est"], ["gn", "bcn"]]) {
      const sides = norms.map((norm) => ({ norm, ws: norm.startsWith("bcn") }));
      const race = new Race(bcnorm, { sides, batch: 2, lr: 0.02, epochs: 3, seed: 0 }, ...digits);
      const tensors = [];
      while (race.step < 20) {
        await race.turn();
        tensors.push(tf.memory().numTensors);
      }
      norms.forEach((norm, i) => (found[norm] = { losses: race.sides[i].losses, tensors }));
      race.dispose();
    }
    found.left = tf.memory().numTensors - before;
    return found;
  });
  assert.equal(found.left, 0);
  for (const norm of ["bn", "gn", "bcn", "bcn-est"]) {
    const expected = twin(norm);
    const { losses, tensors } = found[norm];
    assert.ok(tensors.every((count) => count === tensors[0]), `tensors after each turn: ${tensors}`);
    // A point is the mean loss of all steps so far; two of them give that of the steps between.
    let [done, sum] = [0, 0];
    for (const [step, mean] of losses) {
      const loss = (step * mean - sum) / (step - done);
      const wanted = expected.slice(done, step).reduce((a, b) => a + b, 0) / (step - done);
      assert.ok(Math.abs(loss - wanted) <= BAR, `${norm}, steps ${done + 1} to ${step}: loss ${loss}, PyTorch's ${wanted}`);
      [done, sum] = [step, step * mean];
    }
    assert.ok(done >= 20);
  }
  assert.deepEqual(errors, []);
  await page.close();
});

/** Names and shapes of the twin's state dict. */
function shapes(norm) {
  const convolutions = {
    conv1: [8, 1, 3, 3],
    "layer1.conv1": [8, 8, 3, 3],
    "layer1.conv2": [8, 8, 3, 3],
    "layer2.conv1": [16, 8, 3, 3],
    "layer2.conv2": [16, 16, 3, 3],
    "layer2.downsample.0": [16, 8, 1, 1],
  };
  const all = { "fc.weight": [10, 16], "fc.bias": [10] };
  for (const [name, shape] of Object.entries(convolutions)) {
    all[`${name}.weight`] = shape;
    const channels = [shape[0]];
    const at = name.replace("conv", "norm").replace("downsample.0", "downsample.1");
    const batch = { weight: channels, bias: channels, running_mean: channels, running_var: channels, num_batches_tracked: [] };
    const grouped = { weight: [1, 2, 1], bias: [1, 2, 1] };
    const own = norm === "bn" ? batch : grouped;
    Object.entries(own).forEach(([key, dims]) => (all[`${at}.${key}`] = dims));
    if (norm === "bcn-est") {
      Object.entries({ ...batch, estbn_moving_speed: [1] }).forEach(([key, dims]) => (all[`${at}.bn.${key}`] = dims));
    }
  }
  return all;
}

/** The steps of a run with the left loss after each that was shown. */
const watch = (page) =>
  page.evaluate(() => {
    const seen = (window.seen = {});
    const [steps, loss] = ["steps", "left-loss"].map((id) => document.querySelector(`#train-${id}`));
    new MutationObserver(() => (seen[parseInt(steps.textContent)] = loss.textContent)).observe(loss, { childList: true });
  });

test("two networks train side by side, pause, go on, are reset, and read what is drawn", { skip, timeout: 300_000 }, async () => {
  const { page, errors } = await open(site.browser, address(), DESKTOP);
  await state(page, "ready");
  assert.equal(await text(page, "steps"), "0 of 6,000 steps");
  await watch(page);
  await page.click("#train-start");
  await steps(page, 40);
  for (const side of ["left", "right"]) {
    assert.ok(Number(await text(page, `${side}-loss`)) > 1);
    assert.ok(Number(await text(page, `${side}-rate`)) > 0);
    const path = await page.getAttribute(`#train-loss .line.${side}`, "d");
    assert.ok(path.split("L").length > 5, path);
  }
  assert.ok(await page.isDisabled("#train-left-norm"));
  await page.click("#train-start");
  await state(page, "paused");
  const paused = await text(page, "steps");
  assert.match(await text(page, "status"), /^Paused after \d+ steps\.$/);
  await page.waitForTimeout(1000);
  assert.equal(await text(page, "steps"), paused);

  // A 7, with the mouse.
  await page.locator("#train-pad").scrollIntoViewIfNeeded();
  const { x, y, width } = await page.locator("#train-pad").boundingBox();
  const at = (across, down) => [x + across * width, y + down * width];
  await page.mouse.move(...at(0.3, 0.2));
  await page.mouse.down();
  await page.mouse.move(...at(0.7, 0.2), { steps: 4 });
  await page.mouse.move(...at(0.45, 0.85), { steps: 4 });
  await page.mouse.up();
  await page.waitForFunction(() => /BatchNorm: \d, .*BCNorm/.test(document.querySelector("#train-heard").textContent));
  for (const side of ["left", "right"]) {
    assert.match(await text(page, `${side}-says`), /^\d, \d+ % sure$/);
    const shares = await page.$$eval(`#train-${side}-bars i`, (bars) => bars.map((bar) => Number(bar.style.getPropertyValue("--share"))));
    assert.ok(Math.abs(shares.reduce((a, b) => a + b) - 1) < 1e-5, `${shares}`);
  }
  await page.screenshot({ path: `${SHOTS}/train-light.png`, fullPage: true });
  await page.click("#train-clear");
  await page.waitForFunction(() => document.querySelector("#train-left-says").textContent === "Nothing to read yet");

  // Both files, by PyTorch's names.
  for (const [side, norm, ws] of [["left", "bn", "0"], ["right", "bcn-est", "1"]]) {
    const [download] = await Promise.all([page.waitForEvent("download"), page.click(`#train-${side}-save`)]);
    assert.equal(download.suggestedFilename(), `bcnorm-digits-${norm}.safetensors`);
    const { tensors, metadata } = readSafetensors(new Uint8Array(readFileSync(await download.path())));
    assert.deepEqual(metadata, { norm, ws });
    assert.deepEqual(Object.fromEntries(Object.entries(tensors).map(([name, { dims }]) => [name, [...dims]])), shapes(norm));
    const batches = Object.entries(tensors).filter(([name]) => name.endsWith("num_batches_tracked"));
    assert.ok(batches.length === 6 && batches.every(([, { values }]) => `${values[0]} of 6,000 steps` === paused));
  }

  // On, to the first test; then from the beginning.
  await page.click("#train-start");
  await steps(page, parseInt(paused) + 1);
  await page.waitForFunction(() => /^\d/.test(document.querySelector("#train-right-accuracy").textContent), undefined, { timeout: 100_000 });
  const first = await page.evaluate(() => ({ ...window.seen }));
  await page.click("#train-reset");
  await state(page, "ready");
  assert.equal(await text(page, "steps"), "0 of 6,000 steps");
  assert.deepEqual([await text(page, "left-loss"), await text(page, "left-accuracy")], ["–", "–"]);
  await page.evaluate(() => Object.keys(window.seen).forEach((step) => delete window.seen[step]));
  await page.click("#train-start");
  await steps(page, 3);
  const second = await page.evaluate(() => ({ ...window.seen }));
  const both = Object.keys(second).filter((step) => step !== "0" && step in first);
  assert.ok(both.includes("1"), `${Object.keys(first)}; ${Object.keys(second)}`);
  both.forEach((step) => assert.equal(second[step], first[step], `step ${step}`));
  assert.deepEqual(errors, []);
  await page.close();
});

test("works by keyboard, on a phone, in the dark", { skip, timeout: 200_000 }, async () => {
  const { page, errors } = await open(site.browser, address(), PHONE);
  await state(page, "ready");
  const focused = () => page.evaluate(() => document.activeElement.id || document.activeElement.ariaLabel);
  await page.focus("#tab-train");
  const reached = [];
  for (let i = 0; i < 14; i++) {
    await page.keyboard.press("Tab");
    reached.push(await focused());
  }
  for (const id of ["train-start", "train-reset", "train-left-norm", "train-left-ws", "train-right-save", "train-clear", "Test digit 1 of 12"]) {
    assert.ok(reached.includes(id), `${id} is not reached by Tab: ${reached}`);
  }
  // A test digit by arrow keys.
  await page.focus("#train-choices button");
  await page.keyboard.press("ArrowRight");
  assert.equal(await focused(), "Test digit 2 of 12");
  await page.waitForFunction(() => /GroupNorm: \d|BatchNorm: \d/.test(document.querySelector("#train-heard").textContent));
  // Another norm, from its first letter, at batch 1.
  await page.focus("#train-left-norm");
  await page.keyboard.press("g");
  await page.waitForFunction(() => document.querySelector("#train-left-answer-name").textContent === "GroupNorm");
  await page.focus("#train summary");
  await page.keyboard.press("Enter");
  await page.selectOption("#train-batch", "1");
  await page.waitForFunction(() => document.querySelector("#train-steps").textContent === "0 of 12,000 steps");
  assert.match(await text(page, "chosen"), /^batch 1, /);
  await page.focus("#train-start");
  await page.keyboard.press("Enter");
  await steps(page, 4);
  // Behind another tab nothing is trained.
  await page.click("#tab-see");
  await page.waitForFunction(() => document.querySelector("#train-status").textContent === "Paused while this tab is hidden.");
  await page.click("#tab-train");
  await page.waitForFunction(() => document.querySelector("#train-status").textContent === "Training…");
  await page.click("#train-start");
  await state(page, "paused");

  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 360);
  const small = await page.$$eval("#train :is(button, select, summary, label:has(input))", (all) =>
    all.filter((one) => one.offsetParent !== null && one.getBoundingClientRect().height < 44).map((one) => one.id || one.textContent),
  );
  assert.deepEqual(small, [], "too small for fingers");
  await page.screenshot({ path: `${SHOTS}/train-phone.png`, fullPage: true });
  assert.deepEqual(errors, []);
  await page.close();
});

test("a drawing is centred and scaled as MNIST's digits are", { skip, timeout: 100_000 }, async () => {
  const { page } = await open(site.browser, address(), DESKTOP);
  const found = await page.evaluate(async () => {
    const { centred } = await import(new URL("train/centre.js", location.href).href);
    const ink = new Uint8Array(280 * 280);
    // A bar of 40 by 100, and a heavier foot, in a corner.
    for (let y = 10; y < 110; y++) ink.fill(y < 90 ? 128 : 255, 280 * y + 200, 280 * y + 240);
    const pixels = centred(ink, 280);
    let [mass, x, y] = [0, 0, 0];
    const rows = new Set();
    const columns = new Set();
    pixels.forEach((value, i) => {
      if (value > 0) {
        [mass, x, y] = [mass + value, x + value * ((i % 28) + 0.5), y + value * (Math.floor(i / 28) + 0.5)];
        rows.add(Math.floor(i / 28));
        columns.add(i % 28);
      }
    });
    return { size: [columns.size, rows.size], centre: [x / mass, y / mass], nothing: centred(new Uint8Array(100), 10) ?? "nothing" };
  });
  // 8 by 20 pixels, and what the edges cover.
  const [wide, high] = found.size;
  assert.ok(wide >= 8 && wide <= 9 && high >= 20 && high <= 21, `${found.size}`);
  found.centre.forEach((at) => assert.ok(Math.abs(at - 14) < 0.2, `${found.centre}`));
  assert.equal(found.nothing, "nothing");
  await page.close();
});

test("says so where WebGPU is missing, and starts again after a loss", { skip, timeout: 200_000 }, async () => {
  const context = await site.browser.newContext(DESKTOP);
  await context.addInitScript(() => {
    // Remembers devices, so that the test can lose them; &without=gpu hides WebGPU.
    if (location.search.includes("without=gpu")) {
      Object.defineProperty(navigator, "gpu", { value: undefined });
      return;
    }
    window.devices = [];
    const real = GPUAdapter.prototype.requestDevice;
    GPUAdapter.prototype.requestDevice = async function (...args) {
      window.devices.push(await real.apply(this, args));
      return window.devices.at(-1);
    };
  });
  const page = await context.newPage();
  await page.goto(address("&without=gpu"));
  await state(page, "unsupported");
  assert.match(await text(page, "problem"), /No WebGPU here.*has no WebGPU.*cargo xtask train/s);
  assert.ok(await page.isDisabled("#train-start"));
  await page.screenshot({ path: `${SHOTS}/train-no-webgpu.png` });

  await page.goto(address());
  await state(page, "ready");
  await page.click("#train-start");
  await steps(page, 2);
  await page.evaluate(() => window.devices.forEach((device) => device.destroy()));
  await state(page, "lost");
  assert.match(await text(page, "problem"), /The GPU was lost/);
  await page.click("#train-restart");
  await state(page, "ready");
  assert.equal(await page.evaluate(() => document.activeElement.id), "train-start");
  await page.click("#train-start");
  await steps(page, 2);
  assert.ok(await page.isHidden("#train-problem"));
  await context.close();
});
