// The example page, clicked through as a visitor would. Screenshots go to target/screenshots.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { missing, open, ROOT } from "./chromium.mjs";
import { DESKTOP, examplePage, PHONE, SHOTS } from "./example.mjs";

const skip = missing ?? false;
const site = examplePage();

const address = (query = "") => `${site.address}${query}`;
const state = (page, value, timeout = 60_000) =>
  page.waitForFunction((wanted) => document.body.dataset.state === wanted, value, { timeout });
const status = (page) => page.textContent("#status");
const says = (page, id, pattern) =>
  page.waitForFunction(
    ([id, source]) => new RegExp(source).test(document.getElementById(id).textContent),
    [id, pattern.source],
  );

/** Waits until what was chosen is computed and drawn. */
async function settled(page) {
  await state(page, "ready");
  assert.equal(await status(page), "Ready.");
}

/** A screenshot; of the whole page, without the bar, which would lie in the middle of it. */
async function shot(page, name, fullPage = false) {
  const style = fullPage ? "#bar { position: static !important; }" : "";
  await page.screenshot({ path: `${SHOTS}/${name}.png`, fullPage, style });
}

/** A picture that is kept: target/screenshots/page-*.jpg are what lies in docs, card.jpg what lies in examples/web. */
async function keep(page, name) {
  await page.waitForTimeout(300);
  await page.screenshot({ path: `${SHOTS}/${name}.jpg`, type: "jpeg", quality: 75 });
}

/** What the social card shows of the page. */
const CARD = `
  #controls, #bar, .tabs, #theme, .under, #scale, .cells, footer, figcaption small, #see > .panel:not(#maps) { display: none !important; }
  #see { grid-template-columns: minmax(0, 1fr); }
  body { max-width: none; padding: 0 2.5rem; }
  h1 { font-size: 2.4rem; }
  header p { font-size: 1.5rem; }
  .lead p { max-width: none; font-size: 1.15rem; line-height: 1.35; }
  .panel { padding: 0; border: 0; background: none; }
  .pair { max-width: 58.5rem; margin: 0 auto; gap: 2rem; }
  figcaption { min-height: 0; padding-bottom: 0.3rem; font-size: 1.15rem; }`;

/** How gray levels of a canvas spread: 0 where it is flat. */
const spread = (page, id) =>
  page.$eval(`#${id}`, (canvas) => {
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    const grays = data.filter((_, i) => i % 4 === 0);
    const mean = grays.reduce((a, b) => a + b, 0) / grays.length;
    return Math.sqrt(grays.reduce((a, b) => a + (b - mean) ** 2, 0) / grays.length);
  });

/** Waits until the gray levels of a canvas spread by more than that: what only changes how it is drawn is drawn soon. */
async function drawn(page, id, least) {
  for (let turn = 0; turn < 100; turn += 1) {
    const now = await spread(page, id);
    if (now > least) return;
    await page.waitForTimeout(100);
  }
  assert.fail(`the gray levels of #${id} spread by ${await spread(page, id)}, not by ${least}`);
}

const numbers = async (page, id) => {
  const [, mean, variance] = /mean (\S+), variance (\S+)/.exec(await page.textContent(`#${id}`));
  return { mean: Number(mean), variance: Number(variance) };
};

const focused = (page) => page.evaluate(() => document.activeElement.id || document.activeElement.ariaLabel);

/** The page's address, which follows the settings a little later. */
async function query(page) {
  await page.waitForTimeout(500);
  return Object.fromEntries(new URL(page.url()).searchParams);
}

/** What moved on the page that nobody had moved, by the browser's measure. */
const shift = (page) =>
  page.evaluate(
    () =>
      new Promise((resolve) => {
        new PerformanceObserver((list) =>
          resolve(list.getEntries().reduce((sum, { value, hadRecentInput }) => sum + (hadRecentInput ? 0 : value), 0)),
        ).observe({ type: "layout-shift", buffered: true });
        setTimeout(() => resolve(0), 500);
      }),
  );

test("maps are flat before and have structure after", { skip, timeout: 120_000 }, async () => {
  const { page, errors } = await open(site.browser, address(), DESKTOP);
  await settled(page);
  const [before, after] = [await spread(page, "before"), await spread(page, "after")];
  assert.ok(after > 2 * before && after > 40, `gray levels spread by ${before} before, ${after} after`);
  const normalized = await numbers(page, "numbers-after");
  assert.ok(Math.abs(normalized.mean) < 0.3 && normalized.variance > 0.1 && normalized.variance < 4);
  await shot(page, "desktop-light", true);
  // A sentence each on what a visitor may wonder at; one of them with a number of these maps.
  for (const id of ["why-map", "why-dark", "why-bcnorm", "why-mode"]) {
    assert.match(await page.textContent(`#${id}`), /\w{4}.*\./s, id);
  }
  const [, times] = /spreads (\d+) times as far/.exec(await page.textContent("#spread"));
  assert.ok(Number(times) > 10, times);

  // Each map on its own scale: structure before, too. The numbers stay.
  const measured = await page.textContent("#numbers-before");
  await page.click("#scale");
  await says(page, "range-before", /own scale/);
  await drawn(page, "before", 2 * before);
  assert.equal(await page.textContent("#numbers-before"), measured);
  await shot(page, "own-scales");
  await page.click("#scale");

  // Every norm, and its controls.
  await page.selectOption("#norm", "batch_norm");
  await settled(page);
  const batch = await numbers(page, "numbers-after");
  assert.ok(Math.abs(batch.mean) < 1e-4 && Math.abs(batch.variance - 1) < 1e-2, JSON.stringify(batch));
  assert.ok(await page.isHidden("#groups"));
  assert.match(await page.textContent("#groups-none"), /BatchNorm has no groups/);
  await page.selectOption("#norm", "group_norm");
  assert.ok(await page.isHidden("#groups-none"));
  await page.fill("#groups", "0");
  await settled(page);
  assert.equal(await page.textContent("#groups-value"), "1 of 32 channels");
  // One group for maps of all scales leaves a small one flat.
  const group = await numbers(page, "numbers-after");
  assert.ok(group.variance < 0.05, JSON.stringify(group));
  // Evaluation goes by what training steps remember: after one step little, after many all of it.
  await page.selectOption("#norm", "batch_norm");
  await page.selectOption("#mode", "eval");
  await page.selectOption("#steps", "1");
  await settled(page);
  const early = await numbers(page, "numbers-after");
  await page.selectOption("#steps", "100");
  await settled(page);
  const late = await numbers(page, "numbers-after");
  assert.ok(early.variance > 2 && Math.abs(late.variance - 1) < 1e-2, `${JSON.stringify(early)}, ${JSON.stringify(late)}`);
  await page.selectOption("#mode", "train");
  assert.ok(await page.isHidden("#steps"));
  await page.selectOption("#norm", "bc_norm_estimate");
  await page.fill("#groups", "3");
  await page.fill("#speed", "0.5");
  await settled(page);
  const estimated = await numbers(page, "numbers-after");
  assert.ok(estimated.variance > 0.1 && estimated.variance < 4, JSON.stringify(estimated));

  // More photographs, and fewer.
  await page.click("#photo-coffee");
  await settled(page);
  assert.equal(await page.textContent("#batch-value"), "3 of 3");
  assert.match(await page.textContent("#timing"), /\(3, 32, 96, 96\)/);
  await page.selectOption("#shown", "2");
  await page.fill("#batch", "1");
  await settled(page);
  assert.match(await page.textContent("#timing"), /\(1, 32, 96, 96\)/);
  await page.selectOption("#size", "128");
  await settled(page);
  assert.match(await page.textContent("#timing"), /\(1, 32, 128, 128\)/);
  // A batch larger than there are photographs is refused, and why.
  await page.fill("#batch", "4");
  assert.equal(await page.textContent("#batch-note"), "Only 3 photographs are chosen: choose more for a larger batch.");
  assert.equal(await page.inputValue("#batch"), "3");
  await settled(page);
  // One's own picture, and what is none.
  await page.setInputFiles("#file", `${ROOT}docs/features-after.png`);
  await says(page, "batch-value", /1 of 1/);
  await settled(page);
  await page.setInputFiles("#file", `${ROOT}README.md`);
  await says(page, "status", /README.md is no picture/);
  assert.deepEqual(errors, []);
  await page.close();
});

test("works by keyboard, in the dark", { skip, timeout: 120_000 }, async () => {
  const { page, errors } = await open(site.browser, address("?norm=bc_norm_estimate"), { ...DESKTOP, colorScheme: "dark" });
  await settled(page);
  await page.keyboard.press("Tab");
  await page.keyboard.press("Tab");
  assert.equal(await focused(page), "theme");
  const reached = [];
  for (let i = 0; i < 30; i++) {
    await page.keyboard.press("Tab");
    reached.push(await focused(page));
  }
  // In the order in which they are seen: the picture's, then the settings', then the code's.
  const wanted = [
    "tab-see", "scale", "line 6 px 0°", "shown", "norm", "compare", "mode", "steps", "photo-chelsea", "file", "camera", "batch", "size",
    "groups", "eps", "speed", "copy-code", "run-code",
  ];
  const places = wanted.map((id) => reached.indexOf(id));
  assert.ok(!places.includes(-1) && places.every((place, i) => i === 0 || place > places[i - 1]), `${reached}`);
  const title = () => page.textContent("#map-title");
  await page.focus("#cells-after [aria-selected=true]");
  assert.equal(await title(), "Map: line 6 px 0°");
  await page.keyboard.press("ArrowRight");
  await page.keyboard.press("ArrowUp");
  assert.equal(await title(), "Map: band 8-16 px");
  assert.equal(await focused(page), "band 8-16 px");
  assert.equal((await query(page)).map, "band 8-16 px");
  await page.waitForTimeout(500);
  await shot(page, "desktop-dark", true);
  const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const dark = await ground();
  await page.click("#theme");
  assert.notEqual(await ground(), dark);
  assert.deepEqual(errors, []);
  await page.close();
});

test("tabs open by click and by keyboard, and are in the address", { skip, timeout: 120_000 }, async () => {
  const { page, errors } = await open(site.browser, address("?norm=group_norm"), DESKTOP);
  let mounts = 0;
  await page.route("**/train.css", (route) => route.fulfill({ contentType: "text/css", body: "" }));
  await page.route("**/train/main.js", (route) => {
    mounts += 1;
    return route.fulfill({
      contentType: "text/javascript",
      body: 'export async function mount(panel) { panel.append("It trains."); }',
    });
  });
  await settled(page);
  const shown = () => page.$$eval("[role=tabpanel]", (all) => all.filter((one) => !one.hidden).map(({ id }) => id));
  const selected = () => page.$$eval("[role=tab]", (all) => all.filter((one) => one.ariaSelected === "true").map(({ id }) => id));
  assert.deepEqual([await shown(), await selected()], [["see"], ["tab-see"]]);
  // Each tab has its panel, and each panel its tab.
  const pairs = await page.$$eval("[role=tab]", (all) =>
    all.map((tab) => [tab.id, document.getElementById(tab.getAttribute("aria-controls")).getAttribute("aria-labelledby")]),
  );
  assert.deepEqual(pairs.map(([id]) => id), pairs.map(([, by]) => by));
  await page.focus("#tab-see");
  await page.keyboard.press("ArrowLeft");
  assert.equal(await focused(page), "tab-check");
  assert.deepEqual(await shown(), ["see"]);
  await page.keyboard.press("Enter");
  assert.deepEqual([await shown(), await selected()], [["check"], ["tab-check"]]);
  assert.deepEqual(await query(page), { tab: "check", norm: "group_norm" });
  await page.keyboard.press("Home");
  await page.keyboard.press("ArrowRight");
  await page.keyboard.press("Space");
  await says(page, "train", /^It trains\.$/);
  assert.equal((await query(page)).tab, "train");
  await page.goBack();
  assert.deepEqual(await shown(), ["check"]);
  await page.click("#tab-train");
  await page.click("#tab-see");
  assert.deepEqual(await shown(), ["see"]);
  assert.equal((await query(page)).tab, undefined);
  assert.equal(mounts, 1);
  assert.deepEqual(errors, []);

  // A module that does not load is told; the rest works on. The address opens a tab, too.
  await page.unroute("**/train/main.js");
  await page.route("**/train/main.js", (route) => route.abort());
  await page.goto(address("?tab=train"));
  await says(page, "train", /^Training cannot be loaded: .*Reload the page/);
  await page.click("#tab-see");
  await settled(page);
  assert.ok((await spread(page, "after")) > 40);
  await page.close();
});

test("says what it is doing, how far it is, and stops", { skip, timeout: 120_000 }, async () => {
  const { page, errors } = await open(site.browser, address(), { ...DESKTOP, reducedMotion: "reduce" });
  await settled(page);
  const picture = await spread(page, "after");
  // In one turn of the page: the status is true before anything else happens.
  const at = await page.$eval("#size", (size) => {
    size.value = "256";
    size.dispatchEvent(new Event("change"));
    return [document.body.dataset.state, document.getElementById("status").textContent, document.getElementById("maps").ariaBusy];
  });
  assert.deepEqual(at, ["working", "Loading photographs…", "true"]);
  await says(page, "status", /^Computing the maps of chelsea…$/);
  const progress = () => page.$eval("#progress", ({ value }) => value);
  const early = await progress();
  await page.waitForFunction((early) => document.getElementById("progress").value > early + 0.05, early);
  assert.ok((await progress()) < 1);
  await shot(page, "working");
  // What is shown can be looked at meanwhile.
  await page.click("#cells-after [aria-label=luma]");
  assert.equal(await page.textContent("#map-title"), "Map: luma");
  await page.focus("#stop");
  await page.keyboard.press("Enter");
  await state(page, "ready");
  assert.equal(await status(page), "Cancelled. The settings are those of the picture again.");
  assert.equal(await page.inputValue("#size"), "96");
  assert.equal((await query(page)).size, "96");
  assert.equal(await page.textContent("#map-title"), "Map: luma");
  assert.equal(await focused(page), "maps");
  assert.ok(await page.isHidden("#stop"));
  assert.equal(await spread(page, "after"), picture);

  // A later change takes the place of one that takes long.
  await page.selectOption("#size", "256");
  await says(page, "status", /^Computing the maps/);
  await page.waitForTimeout(400);
  const start = Date.now();
  await page.selectOption("#size", "64");
  await settled(page);
  assert.match(await page.textContent("#timing"), /\(2, 32, 64, 64\)/);
  assert.ok(Date.now() - start < 10_000, `${Date.now() - start} ms`);

  // Before there is any picture there is nothing to go back to: it can be asked for again.
  await page.goto(address("?size=256"));
  await says(page, "status", /^Computing the maps/);
  await page.click("#stop");
  await state(page, "ready");
  assert.deepEqual([await status(page), await page.textContent("#stop")], ["Cancelled.", "Compute"]);
  assert.equal(await page.inputValue("#size"), "256");
  await page.click("#stop");
  await says(page, "status", /^Computing the maps/);
  assert.equal(await page.textContent("#stop"), "Cancel");
  await page.selectOption("#size", "64");
  await settled(page);
  assert.ok(await page.isHidden("#stop"));
  assert.deepEqual(errors, []);
  await page.close();
});

test("quick clicks count, whatever a photograph takes to load", { skip, timeout: 120_000 }, async () => {
  const { page } = await open(site.browser, address(), DESKTOP);
  await settled(page);
  const pressed = () => page.$$eval(".photos [aria-pressed=true]", (all) => all.map(({ id }) => id.slice(6)));
  // The page has them as thumbnails already: asked for again they take a while, or fail.
  let fails = false;
  await page.route("**/photos/*.jpg", async (route) => {
    await new Promise((resolve) => setTimeout(resolve, 500));
    return fails ? route.fulfill({ status: 503 }) : route.continue();
  });
  await page.evaluate(() => {
    document.getElementById("photo-astronaut").click();
    document.getElementById("photo-coffee").click();
  });
  assert.deepEqual(await pressed(), ["astronaut", "chelsea", "coffee", "rocket"]);
  await settled(page);
  assert.match(await page.textContent("#timing"), /\(4, 32, 96, 96\)/);
  const names = await page.$$eval("#shown option", (all) => all.map(({ text }) => text));
  assert.deepEqual(names, ["chelsea", "rocket", "astronaut", "coffee"]);
  // One is always left.
  for (const name of names) await page.click(`#photo-${name}`);
  assert.deepEqual(await pressed(), ["coffee"]);
  assert.match(await page.textContent("#batch-note"), /One photograph stays/);
  await settled(page);

  // One that cannot be loaded is told, and the settings are those of the picture.
  await page.goto(address("?photos=chelsea"));
  await settled(page);
  fails = true;
  await page.click("#photo-rocket");
  await says(page, "status", /^The photograph rocket cannot be loaded \(503\)\. The settings are those of the picture again\.$/);
  assert.deepEqual(await pressed(), ["chelsea"]);
  fails = false;
  await page.click("#photo-rocket");
  await settled(page);
  assert.match(await page.textContent("#timing"), /\(2, 32, 96, 96\)/);
  await page.close();
});

test("shows two norms side by side", { skip, timeout: 120_000 }, async () => {
  const { page, errors } = await open(site.browser, address("?norm=group_norm"), DESKTOP);
  await settled(page);
  const [alone, picture] = [await page.textContent("#numbers-after"), await spread(page, "after")];
  assert.ok(await page.isHidden("#second"));
  await page.selectOption("#compare", "group_norm");
  await settled(page);
  // The same norm twice is the same twice.
  assert.equal(await page.textContent("#numbers-second"), alone);
  assert.equal(await spread(page, "second"), await spread(page, "after"));
  await page.selectOption("#norm", "batch_norm");
  await settled(page);
  assert.equal(await page.textContent("#numbers-second"), alone);
  assert.notEqual(await page.textContent("#numbers-after"), alone);
  assert.notEqual(await spread(page, "second"), await spread(page, "after"));
  assert.deepEqual([await page.textContent("#name-after"), await page.textContent("#name-second")], ["BatchNorm", "GroupNorm"]);
  assert.ok(await page.isVisible("#groups"), "the second one has groups");
  const tops = await page.$$eval("#before, #after, #second", (all) => all.map((one) => Math.round(one.getBoundingClientRect().top)));
  assert.equal(new Set(tops).size, 1, `${tops}`);
  await page.selectOption("#norm", "bc_norm");
  await page.selectOption("#compare", "batch_norm");
  await settled(page);
  await keep(page, "page-desktop");
  await page.selectOption("#compare", "none");
  await settled(page);
  assert.ok(await page.isHidden("#second"));
  assert.ok(picture > 0);
  assert.deepEqual(errors, []);
  await page.close();
});

/** Presses "Run it here", and what it says. */
async function ran(page) {
  await page.$eval("#ran", (ran) => (ran.textContent = ""));
  await page.click("#run-code");
  await says(page, "ran", /./);
  return page.textContent("#ran");
}

const SAME = /^Ran here in \d+ ms: its values are those of the picture, all of them\.$/;

test("the code shown computes what is shown", { skip, timeout: 120_000 }, async () => {
  const context = await site.browser.newContext({ ...DESKTOP, permissions: ["clipboard-read", "clipboard-write"] });
  const page = await context.newPage();
  for (const asked of [
    "?size=64",
    "?size=64&norm=bc_norm_estimate&speed=0.3&groups=4&eps=1e-3&steps=5&compare=group_norm",
    "?size=64&norm=batch_norm&mode=eval&steps=5&photos=coffee,chelsea,rocket&compare=bc_norm&batch=2",
    "?size=64&norm=group_norm&mode=eval&groups=1&eps=3.16e-2&compare=bc_norm_estimate&steps=1",
  ]) {
    await page.goto(address(asked));
    await settled(page);
    assert.match(await ran(page), SAME, asked);
  }
  assert.match(await page.textContent("#code"), /GroupNorm\.create\(device, \{ numChannels: 32, numGroups: 1, eps: 0\.0316 \}\)/);
  await page.click("#copy-code");
  await says(page, "copy-code", /^Copied$/);
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), await page.textContent("#code"));
  // Another one computes something else, and that is said; so is what is no code.
  await page.$eval("#code", (code) => (code.textContent = code.textContent.replaceAll("eps: 0.0316", "eps: 0.1")));
  assert.match(await ran(page), /differ from those of the picture by up to [\d.e-]+\.$/);
  await page.$eval("#code", (code) => (code.textContent = "export const normalize = async (values) => values.slice(1);"));
  assert.match(await ran(page), /by up to Infinity\.$/);
  await page.$eval("#code", (code) => (code.textContent = "what?"));
  await page.click("#run-code");
  await says(page, "status", /Unexpected/);
  await context.close();
});

test("verifies, and stops when asked", { skip, timeout: 120_000 }, async () => {
  const context = await site.browser.newContext({ ...DESKTOP, permissions: ["clipboard-read", "clipboard-write"] });
  const page = await context.newPage();
  await page.goto(address("?tab=check"));
  await state(page, "ready");
  // Stopped: what was, and what was not.
  await page.focus("#verify");
  await page.keyboard.press("Enter");
  await says(page, "status", /^Verifying family/);
  assert.equal(await page.getAttribute("#benchmark", "aria-disabled"), "true");
  assert.equal(await focused(page), "verify");
  await page.focus("#stop");
  await page.keyboard.press("Enter");
  await state(page, "ready");
  const stopped = await page.textContent("#verified-title");
  const [, ran, total, passed] = /^Verification was stopped after (\d+) of (\d+) cases: (\d+) pass\.$/.exec(stopped);
  assert.ok(passed === ran && Number(ran) < 100 && Number(total) > 170, stopped);
  assert.equal(await page.$$eval("#verified-table tbody tr", (all) => all.length), Number(ran));
  assert.equal(await status(page), stopped);
  assert.equal(await focused(page), "verified-title");

  await page.focus("#verify");
  await page.keyboard.press("Enter");
  await state(page, "working");
  await state(page, "ready", 70_000);
  assert.match(await status(page), /^Verification: (\d+) of \1 cases pass\.$/);
  assert.match(await page.textContent("#verified-details"), /^On this GPU and with the CPU executor/);
  // The results scroll into view.
  await page.waitForFunction(() => {
    const { top } = document.getElementById("verified-title").getBoundingClientRect();
    return top >= 0 && top < innerHeight;
  });
  assert.equal(await focused(page), "verified-title");
  const rows = await page.$$eval("#verified-table tbody tr", (all) => all.map((row) => row.children[1].textContent));
  assert.ok(rows.length >= 170 && rows.every((verdict) => verdict === "pass"), `${rows.length} rows`);
  await page.click("#copy-verified");
  await says(page, "copy-verified", /^Copied$/);
  const copied = await page.evaluate(() => navigator.clipboard.readText());
  assert.match(copied, /^bcnorm: Verification: (\d+) of \1 cases pass[^]*- architecture: swiftshader[^]*- browser: .*Chrome/);
  await shot(page, "verified");
  await page.fill("#filter", "silu");
  const some = await page.$$eval("#verified-table tbody tr", (all) => all.map((row) => row.firstChild.textContent));
  assert.ok(some.length > 3 && some.length < 60 && some.every((name) => name.includes("silu")), `${some}`);
  await page.click("#verified-table th:nth-child(4) button");
  const errorsShown = await page.$$eval("#verified-table tbody tr", (all) => all.map((row) => Number(row.children[3].textContent)));
  assert.deepEqual(errorsShown, errorsShown.toSorted((a, b) => a - b));
  await context.close();
});

test("measures, and says what is gained", { skip, timeout: 300_000 }, async () => {
  const context = await site.browser.newContext({ ...DESKTOP, reducedMotion: "reduce", permissions: ["clipboard-read", "clipboard-write"] });
  const page = await context.newPage();
  await page.goto(address("?tab=check"));
  await state(page, "ready");
  // What is timed on a busy machine may be its other work: three times at most.
  let cells;
  for (let turn = 1; turn <= 3; turn += 1) {
    await page.evaluate(() => document.querySelector("#measured-table tbody")?.replaceChildren());
    await page.click("#benchmark");
    await page.waitForSelector("#measured-table tbody tr", { timeout: 120_000 });
    await page.click("#stop");
    await state(page, "ready", 120_000);
    assert.match(await status(page), /^The benchmark was stopped: [1-3] of 4 shapes measured\.$/);
    cells = await page.$$eval("#measured-table tbody tr:first-child td", (all) => all.map((cell) => cell.textContent));
    const [, forward, opForward, backward, opBackward, , copy] = cells.slice(1).map(Number);
    const plain = copy > 0 && forward > copy && backward > forward;
    if (plain && opForward > 1.2 * forward && opBackward > 1.2 * backward) break;
    assert.ok(turn < 3, `${cells}`);
  }
  const [shape, times, forward, opForward, backward, opBackward] = cells.map((text, i) => (i === 0 ? text : Number(text)));
  assert.ok(Math.abs((opForward + opBackward) / (forward + backward) - times) < 0.1, `${cells}`);
  const headline = await page.textContent("#measured-title");
  assert.equal(headline, `BCNorm is ${times.toFixed(1)} times faster than op by op here: forward and backward of ${shape}.`);
  assert.ok(Number(cells.at(-1)) < 5e-6, `${cells}`);
  const tops = await page.$$eval("#measured-title, #measured-chart svg, #measured-table", (all) => all.map((one) => one.getBoundingClientRect().top));
  assert.ok(tops[0] >= 0 && tops[0] < 900 && tops[0] < tops[1] && tops[1] < tops[2], `${tops}`);
  assert.equal(await focused(page), "measured-title");
  await page.click("#copy-measured");
  await says(page, "copy-measured", /^Copied$/);
  const copied = await page.evaluate(() => navigator.clipboard.readText());
  assert.ok(copied.startsWith(`bcnorm: ${headline} The benchmark was stopped`) && copied.includes(`| ${cells.join(" | ")} |`), copied);
  await shot(page, "benchmark");
  // It says what is, whatever that is.
  const said = await page.evaluate(async () => {
    const { headline } = await import("./benchmark.js");
    const one = (ours, theirs) => ({ dims: [1, 2], forwardMs: ours, backwardMs: ours, compositionForwardMs: theirs, compositionBackwardMs: theirs });
    return [[one(1, 2), one(1, 5)], [one(1, 1)], [one(3, 1)], []].map(headline);
  });
  assert.match(said[0], /^BCNorm is 5\.0 times faster/);
  assert.match(said[1], /takes as long as op by op/);
  assert.match(said[2], /slower than op by op here: it takes 3\.0 times as long/);
  assert.equal(said[3], "Nothing was measured.");
  // What was going on before goes on.
  await page.click("#tab-see");
  await settled(page);
  assert.ok((await spread(page, "after")) > 40);
  await context.close();
});

/** Elements that a finger could miss. */
const small = (page) =>
  page.$$eval("button, select, input, a, summary, label.button, [role=option], [role=tab]", (all) =>
    all
      .filter((one) => one.checkVisibility() && !one.matches(".visually-hidden, .skip"))
      .map((one) => ({ name: one.id || one.ariaLabel || one.textContent, ...one.getBoundingClientRect().toJSON() }))
      .filter(({ width, height }) => width < 44 || height < 44)
      .map(({ name, width, height }) => `${name} ${width} x ${height}`),
  );

test("fits a phone, picture first", { skip, timeout: 120_000 }, async () => {
  const { page, errors } = await open(site.browser, address(), PHONE);
  // Before the first picture there are the places of the maps, none of them black.
  assert.match(await page.$eval("#after", (one) => getComputedStyle(one.parentElement, "::after").backgroundImage), /gradient/);
  assert.notEqual(await page.$eval("#after", (one) => getComputedStyle(one).backgroundColor), "rgb(0, 0, 0)");
  await shot(page, "phone-first");
  await settled(page);
  assert.equal(await page.$eval("#after", (one) => getComputedStyle(one.parentElement, "::after").content), "none");
  assert.ok((await shift(page)) < 0.02, `the layout shifts by ${await shift(page)}`);
  const wide = () => page.evaluate(() => document.documentElement.scrollWidth);
  assert.equal(await wide(), 360);
  // The explanation and the whole picture are on the first screen, above the bar; the settings come after it.
  const box = (id) => page.$eval(`#${id}`, (one) => one.getBoundingClientRect().toJSON());
  const [lead, picture, settings, bar] = [await page.$eval(".lead p", (one) => one.getBoundingClientRect().toJSON()), await box("after"), await box("controls"), await box("bar")];
  assert.ok(lead.top > 0 && lead.bottom <= picture.top && picture.bottom <= bar.top && picture.bottom <= settings.top, JSON.stringify([lead, picture, settings, bar]));
  assert.ok(picture.width > 290);
  // Before and after lie in the same place.
  assert.ok(await page.isHidden("#before"));
  await page.check("#view-before-input");
  const before = await box("before");
  assert.deepEqual([before.top, before.width], [picture.top, picture.width]);
  await drawn(page, "before", 0);
  await shot(page, "phone-before");
  await page.selectOption("#compare", "batch_norm");
  await settled(page);
  await page.check("#view-second-input");
  await drawn(page, "second", 40);
  assert.deepEqual(await small(page), [], "too small for fingers");
  assert.equal(await wide(), 360);
  await page.selectOption("#compare", "none");
  await settled(page);
  assert.ok(await page.isVisible("#after"), "a norm that is gone is not looked at");
  await shot(page, "phone", true);
  await page.evaluate(() => scrollTo(0, 0));
  await page.emulateMedia({ colorScheme: "dark" });
  await keep(page, "page-phone");
  await page.click("#tab-check");
  assert.deepEqual(await small(page), [], "too small for fingers");
  assert.equal(await wide(), 360);
  assert.deepEqual(errors, []);
  await page.close();
});

test("nothing is cut off or moves on a desktop", { skip, timeout: 120_000 }, async () => {
  const { page, errors } = await open(site.browser, address(), DESKTOP);
  await settled(page);
  assert.ok((await shift(page)) < 0.02, `the layout shifts by ${await shift(page)}`);
  for (const id of ["norm", "compare", "mode"]) {
    const [text, room] = await page.$eval(`#${id}`, (select) => {
      const style = getComputedStyle(select);
      const context = document.createElement("canvas").getContext("2d");
      context.font = style.font;
      const widths = [...select.options].map(({ text }) => context.measureText(text).width);
      // The arrow takes some 20 pixels.
      return [Math.max(...widths), select.clientWidth - Number.parseFloat(style.paddingLeft) - Number.parseFloat(style.paddingRight) - 20];
    });
    assert.ok(text <= room, `#${id}: ${text} of ${room} pixels`);
  }
  assert.deepEqual(await small(page), [], "too small for fingers");
  // The first screen: what it is about, before and after, the norm.
  for (const id of ["before", "after", "norm", "compare", "mode"]) {
    const { bottom } = await page.$eval(`#${id}`, (one) => one.getBoundingClientRect().toJSON());
    assert.ok(bottom < 900, `#${id} ends at ${bottom}`);
  }
  // Ids are unique, and what ARIA refers to is there.
  const lost = await page.evaluate(() => {
    const ids = [...document.querySelectorAll("[id]")].map(({ id }) => id);
    const twice = ids.filter((id, i) => ids.indexOf(id) !== i);
    const names = ["for", "aria-labelledby", "aria-describedby", "aria-controls"];
    const asked = names.flatMap((name) => [...document.querySelectorAll(`[${name}]`)].map((one) => one.getAttribute(name)));
    const unnamed = [...document.querySelectorAll("button, select, input")].filter(
      (one) => !(one.textContent.trim() || one.ariaLabel || one.labels?.length || one.querySelector("img[alt]")),
    );
    return [...twice, ...asked.filter((id) => !ids.includes(id)), ...unnamed.map(({ id }) => id)];
  });
  assert.deepEqual(lost, []);
  assert.deepEqual(errors, []);
  await page.close();
});

test("settings are in the address", { skip, timeout: 120_000 }, async () => {
  const asked = {
    photos: "coffee,rocket,chelsea", batch: "2", size: "64", norm: "bc_norm_estimate", compare: "batch_norm", mode: "eval", groups: "16",
    eps: "0.001", speed: "0.6", steps: "5", scale: "own", map: "luma",
  };
  const { page, errors } = await open(site.browser, address(`?${new URLSearchParams(asked)}`), DESKTOP);
  await settled(page);
  assert.deepEqual(await query(page), asked);
  assert.ok(await page.isHidden("#notice"));
  const values = await page.$$eval("#norm, #compare, #mode, #groups, #eps, #speed, #steps, #size, #batch", (all) =>
    Object.fromEntries(all.map(({ id, value }) => [id, value])),
  );
  assert.deepEqual(values, {
    norm: "bc_norm_estimate", compare: "batch_norm", mode: "eval", groups: "4", eps: "-3", speed: "0.6", steps: "5", size: "64", batch: "2",
  });
  assert.match(await page.textContent("#timing"), /\(2, 32, 64, 64\)/);
  assert.equal(await page.textContent("#map-title"), "Map: luma");
  // The same address shows the same.
  const numbersShown = await page.textContent("#numbers-after");
  await page.goto(page.url());
  await settled(page);
  assert.equal(await page.textContent("#numbers-after"), numbersShown);
  // What is as usual is left out.
  await page.selectOption("#norm", "bc_norm");
  assert.equal((await query(page)).norm, undefined);

  // What there is not is told, and the usual taken.
  const wrong = "?norm=foo&eps=-1&groups=3&photos=chelsea,nobody&batch=9&size=97&speed=fast&steps=2&tab=look&map=nothing&mode=test";
  await page.goto(address(wrong));
  await settled(page);
  const told = await page.$$eval("#notice li", (all) => all.map((one) => one.textContent));
  assert.equal(told.length, 11, `${told}`);
  assert.ok(told.includes("norm=foo: it must be one of bc_norm, bc_norm_estimate, batch_norm, group_norm. The default is used."), `${told}`);
  await shot(page, "address");
  assert.deepEqual(await query(page), {});
  assert.equal(await page.inputValue("#norm"), "bc_norm");
  await page.goto(address("?photos=chelsea&batch=3"));
  await settled(page);
  assert.match(await page.textContent("#notice"), /batch=3: it must be at most the number of photographs, 1\. 1 is used/);
  assert.match(await page.textContent("#timing"), /\(1, 32, 96, 96\)/);
  assert.deepEqual(errors, []);
  await page.close();
});

test("has links that lead somewhere, and a card", { skip, timeout: 120_000 }, async () => {
  const { page } = await open(site.browser, address(), { ...DESKTOP, colorScheme: "dark" });
  await settled(page);
  await page.addStyleTag({ content: CARD });
  await page.setViewportSize({ width: 1200, height: 630 });
  await keep(page, "card");
  const links = await page.$$eval("a[href]", (all) => all.map((one) => one.getAttribute("href")));
  assert.ok(links.includes("https://arxiv.org/abs/1911.09738"), `${links}`);
  for (const link of links) {
    assert.ok(/^https:\/\/[a-z]+\.[a-z]+\/./.test(link) || (await page.$(link)) !== null, link);
  }
  const card = await page.$eval("meta[property='og:image']", ({ content }) => content);
  const size = await page.evaluate(async (card) => {
    const { width, height } = await createImageBitmap(await (await fetch(card)).blob());
    return [width, height];
  }, card);
  assert.deepEqual(size, [1200, 630]);
  const meta = (name) => page.$eval(`meta[property='og:${name}']`, ({ content }) => content);
  assert.deepEqual([String(size[0]), String(size[1])], [await meta("image:width"), await meta("image:height")]);
  assert.ok((await meta("title")).length > 10 && (await meta("description")).length > 40);
  assert.ok(readFileSync(`${ROOT}target/web/${card}`).byteLength < 300_000);
  await page.close();
});

test("computes on the CPU where WebGPU is missing", { skip, timeout: 120_000 }, async () => {
  const { page: other } = await open(site.browser, address("?size=64"), DESKTOP);
  await settled(other);
  const [onGpu, afterOnGpu] = [await numbers(other, "numbers-before"), await spread(other, "after")];
  await other.close();
  const context = await site.browser.newContext(PHONE);
  await context.addInitScript(() => {
    if (new URLSearchParams(location.search).has("adapter")) {
      navigator.gpu.requestAdapter = async () => null;
    } else {
      Object.defineProperty(navigator, "gpu", { value: undefined });
    }
  });
  const page = await context.newPage();
  await page.goto(address("?size=64"));
  await settled(page);
  assert.match(await page.textContent("#cpu"), /No GPU here, so the CPU computes/);
  assert.match(await page.textContent("#cpu-why"), /has no WebGPU/);
  await shot(page, "no-webgpu");
  // The same maps, the same norm. The pictures have other sizes.
  const onCpu = await numbers(page, "numbers-before");
  assert.ok(Math.abs(onCpu.variance / onGpu.variance - 1) < 1e-2, JSON.stringify([onCpu, onGpu]));
  const afterOnCpu = await spread(page, "after");
  assert.ok(Math.abs(afterOnCpu / afterOnGpu - 1) < 0.05, `${afterOnCpu}, ${afterOnGpu}`);
  // Its code runs on the CPU, and leaves what is shown; so do steps that move statistics.
  assert.match(await page.textContent("#code"), /import \{ initCpu, runOnCpu \} from "bcnorm\/cpu"/);
  assert.match(await ran(page), SAME);
  for (const asked of ["?size=64&norm=bc_norm_estimate&steps=5&compare=batch_norm&mode=eval", "?size=64&norm=bc_norm_estimate&steps=5&compare=group_norm"]) {
    await page.goto(address(asked));
    await settled(page);
    assert.match(await ran(page), SAME, asked);
  }
  // Long work says how far it is, and stops.
  await page.selectOption("#size", "384");
  await page.waitForFunction(() => document.getElementById("progress").value > 0.02);
  await page.click("#stop");
  await state(page, "ready");
  assert.match(await status(page), /^Cancelled\./);
  // What can be verified without a GPU is; what cannot is told.
  await page.click("#tab-check");
  assert.ok(await page.isVisible("#verify-cpu"));
  assert.match(await page.textContent("#benchmark-cpu"), /needs a browser with WebGPU/);
  assert.equal(await page.getAttribute("#benchmark", "aria-disabled"), "true");
  await page.focus("#benchmark");
  await page.keyboard.press("Enter");
  assert.ok(await page.isHidden("#measured"));
  await shot(page, "no-webgpu-check");
  await page.click("#verify");
  await page.waitForFunction(() => document.body.dataset.state === "working");
  await state(page, "ready", 60_000);
  assert.match(await status(page), /^Verification: (\d+) of \1 cases pass\.$/);
  assert.match(await page.textContent("#verified-details"), /^By the CPU executor in WebAssembly; no GPU was verified/);

  await page.goto(address("?adapter=none"));
  await settled(page);
  assert.match(await page.textContent("#cpu-why"), /finds no adapter/);
  await context.close();
});

test("looks through the camera", { skip, timeout: 120_000 }, async () => {
  const context = await site.browser.newContext(DESKTOP);
  await context.addInitScript(() => {
    // A camera that sees stripes, which move.
    navigator.mediaDevices.getUserMedia = async () => {
      const canvas = Object.assign(document.createElement("canvas"), { width: 320, height: 240 });
      const draw = canvas.getContext("2d");
      let turn = 0;
      setInterval(() => {
        for (let x = 0; x < 320; x += 1) {
          draw.fillStyle = ((x + turn) >> 4) % 2 ? "white" : "black";
          draw.fillRect(x, 0, 1, 240);
        }
        turn += 3;
      }, 50);
      return canvas.captureStream(20);
    };
  });
  const page = await context.newPage();
  await page.goto(address("?size=64"));
  await settled(page);
  const photograph = await page.textContent("#numbers-before");
  await page.click("#camera");
  await says(page, "status", /^The camera is on\.$/);
  await page.waitForFunction((photograph) => document.getElementById("numbers-before").textContent !== photograph, photograph);
  assert.equal(await page.getAttribute("#camera", "aria-pressed"), "true");
  assert.equal(await page.getAttribute("#maps", "aria-busy"), "false");
  const first = await page.textContent("#numbers-before");
  await page.waitForFunction((first) => document.getElementById("numbers-before").textContent !== first, first);
  // More looks than there are photographs.
  await page.fill("#batch", "3");
  await says(page, "timing", /\(3, 32, 64, 64\)/);
  // Nobody looks while another tab is open.
  await page.click("#tab-check");
  await state(page, "ready");
  await page.click("#tab-see");
  await settled(page);
  assert.equal(await page.getAttribute("#camera", "aria-pressed"), "false");
  assert.equal(await page.textContent("#numbers-before"), photograph);
  assert.match(await page.textContent("#timing"), /\(2, 32, 64, 64\)/);
  await context.close();
});

test("starts again after a loss", { skip, timeout: 120_000 }, async () => {
  const context = await site.browser.newContext(DESKTOP);
  await context.addInitScript(() => {
    // Remembers devices, so that the test can lose one.
    const real = GPUAdapter.prototype.requestDevice;
    GPUAdapter.prototype.requestDevice = async function (...args) {
      window.lastDevice = await real.apply(this, args);
      return window.lastDevice;
    };
  });
  const page = await context.newPage();
  await page.goto(address());
  await settled(page);
  await page.selectOption("#norm", "group_norm");
  await settled(page);
  await page.evaluate(() => window.lastDevice.destroy());
  await state(page, "lost");
  assert.match(await page.textContent("#problem"), /GPU was lost/);
  assert.equal(await status(page), "The GPU was lost.");
  await page.focus("#restart");
  await page.keyboard.press("Enter");
  await settled(page);
  assert.ok((await spread(page, "after")) > 40);
  assert.equal(await page.inputValue("#norm"), "group_norm");
  assert.equal(await focused(page), "maps");
  await context.close();
});
