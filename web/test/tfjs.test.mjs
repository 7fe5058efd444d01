// bcnorm in tf.js: on its WebGPU backend, beside its own operations.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { launch, missing, open, ROOT, serve } from "./chromium.mjs";

const skip = missing ?? false;
let server, browser, page, errors;

before(async () => {
  if (skip) return;
  server = await serve({
    "/bcnorm/": `${ROOT}web/dist`,
    "/tf/": `${ROOT}web/node_modules/@tensorflow`,
    "/": `${ROOT}web/test/page`,
  });
  browser = await launch();
  ({ page, errors } = await open(browser, `${server.address}/tfjs.html`));
  await page.waitForFunction(() => window.ready);
  await page.evaluate(() => window.ready);
});

after(async () => {
  await browser?.close();
  server?.close();
});

/** How far f32's rounding may make values that are sums of some hundred terms apart, relative to the largest. */
const BAR = 1e-5;

function close(found) {
  for (const [what, apart] of Object.entries(found)) {
    assert.ok(apart <= BAR, `${what} is ${apart} apart`);
  }
}

const C16 = { gamma: [16], beta: [16] };
const CHANNELS = { channelGamma: [16], channelBeta: [16] };
const G4 = { gamma: [4], beta: [4] };

for (const [name, cases] of Object.entries({
  batchNorm: [
    [[4, 6, 6, 16], { tensors: C16, training: true }],
    [[32, 16], { tensors: C16, training: true }],
    [[4, 3, 16], { tensors: { beta: [16] } }],
    [[3, 5, 7, 2, 6], { tensors: { gamma: [6], residual: [3, 5, 7, 2, 6] }, activation: "silu", training: true }],
  ],
  groupNorm: [
    [[4, 6, 6, 16], { tensors: C16, groups: 4 }],
    [[8, 16], { tensors: C16, groups: 2, epsilon: 1e-5 }],
    [[4, 9, 6], { tensors: { beta: [6], residual: [4, 9, 6] }, groups: 3, activation: "relu" }],
  ],
  instanceNorm: [
    [[2, 7, 5, 16], { tensors: C16 }],
    [[3, 10, 5], { tensors: { residual: [3, 10, 5] } }],
  ],
  layerNorm: [
    [[4, 6, 6, 16], { tensors: C16 }],
    [[9, 16], { tensors: C16, activation: "relu" }],
  ],
  bcNorm: [
    [[4, 6, 6, 16], { tensors: { ...G4, ...CHANNELS }, groups: 4, training: true }],
    [[16, 16], { tensors: { ...C16, ...CHANNELS }, groups: 4, training: true }],
    [[2, 5, 5, 16], { tensors: { ...G4, residual: [2, 5, 5, 16] }, groups: 4, activation: "relu", training: true }],
  ],
  weightStandardization: [[[3, 3, 4, 8], {}], [[12, 5], {}]],
})) {
  test(`${name} and its gradients are those of tf.js's operations`, { skip, timeout: 100_000 }, async () => {
    for (const [shape, options] of cases) {
      const found = await page.evaluate((args) => tfjs.compare(...args), [name, shape, options]);
      close(found);
      assert.equal(Object.keys(found).length, 2 + Object.keys(options.tensors ?? {}).length);
    }
    assert.deepEqual(errors.splice(0), []);
  });
}

test("a wrong output does not pass", { skip }, async () => {
  const found = await page.evaluate(() => tfjs.apartWhere());
  close([found[0]]);
  for (const wrong of found.slice(1)) {
    assert.throws(() => close([wrong]));
  }
});

test("running statistics move once a step, and evaluation takes them", { skip, timeout: 100_000 }, async () => {
  for (const [name, options] of [
    ["batchNorm", { momentum: 0.75 }],
    ["estBn", { movingSpeed: 0.25 }],
  ]) {
    const { kept, ...found } = await page.evaluate((args) => tfjs.statistics(...args), [name, options, 4]);
    close(found);
    assert.deepEqual(kept, [0.5, -1, 2]);
  }
  assert.deepEqual(errors.splice(0), []);
});

test("a read that ends after a step is not taken for what the step left", { skip, timeout: 100_000 }, async () => {
  const [batch, before, during, after, computed] = await page.evaluate(() => tfjs.readWhileMoving());
  // One step took a hundredth of the way.
  batch.forEach((mean, i) => assert.ok(Math.abs(before[i] - 0.01 * mean) < 1e-6, `${before}, expected a hundredth of ${batch}`));
  assert.deepEqual(during, before);
  assert.deepEqual(after, computed);
  assert.notDeepEqual(after, before);
  assert.deepEqual(errors.splice(0), []);
});

/** Whether a step leaves no more than the one before it, once the first have made what is kept. */
function flat(memories) {
  assert.ok(memories.length > 4);
  for (const memory of memories.slice(3)) {
    assert.deepEqual(memory, memories[2]);
  }
}

function same(losses) {
  const [ours, theirs] = losses;
  assert.ok(ours.at(-1) < 0.9 * ours[0], `losses ${ours}`);
  ours.forEach((loss, i) => assert.ok(Math.abs(loss - theirs[i]) <= 1e-4 * Math.abs(theirs[i]), `losses ${ours}, expected ${theirs}`));
}

test("a model trains as with tf.js's own batch norm, and leaves nothing behind", { skip, timeout: 100_000 }, async () => {
  const { losses, memories, weights, apart } = await page.evaluate(() => tfjs.train(10));
  same(losses);
  close({ predictions: apart });
  flat(memories[0]);
  assert.deepEqual(weights[0], weights[1]);
  assert.deepEqual(errors.splice(0), []);
});

test("a layer may stand twice in a network, with a residual", { skip, timeout: 100_000 }, async () => {
  const { losses, memories, moved } = await page.evaluate(() => tfjs.trainTwice(10));
  same(losses);
  flat(memories);
  assert.ok(moved.every((mean) => mean !== 0));
  assert.deepEqual(errors.splice(0), []);
});

test("models are saved and loaded", { skip, timeout: 100_000 }, async () => {
  const found = await page.evaluate(() => tfjs.roundTrip());
  const affine = ["gamma", "beta"];
  const moving = ["moving_mean", "moving_variance"];
  const says = {
    batchNorm: ["BatchNorm", [...affine, ...moving], { momentum: 0.8, epsilon: 0.01, activation: "silu" }],
    estBn: ["EstBn", [...affine, ...moving], { moving_speed: 0.25 }],
    groupNorm: ["GroupNorm", ["gamma"], { groups: 4, center: false }],
    instanceNorm: ["InstanceNorm", ["beta"], { scale: false }],
    layerNorm: ["LayerNorm", affine, { name: "last" }],
    bcNorm: ["BcNorm", [...affine, "channel_beta", ...moving], { groups: 4, channel_scale: false, per_channel_affine: true }],
  };
  for (const [name, [className, weights, config]] of Object.entries(says)) {
    assert.equal(found[name].apart, 0, name);
    assert.equal(found[name].className, className);
    assert.deepEqual(found[name].weights, weights);
    assert.deepEqual({ ...found[name].config, ...config }, found[name].config);
  }
  // With the initializers, regularizers and constraints of tf.layers.
  assert.deepEqual(found.batchNorm.begin, [0, 0, 0, 4]);
  assert.deepEqual(found.bcNorm.begin, [1, 0, 0, 0, 1]);
  assert.deepEqual([found.batchNorm.losses, found.bcNorm.losses], [1, 0]);
  assert.equal(found.batchNorm.config.gamma_constraint.class_name, "NonNeg");
  assert.deepEqual(errors.splice(0), []);
});

test("steps copy nothing, and leave nothing; what was prepared compiles nothing", { skip, timeout: 100_000 }, async () => {
  assert.deepEqual(await page.evaluate(() => tfjs.recorded()), { copies: 0, compiled: 0, buffers: 0, tensors: 0 });
  assert.deepEqual(errors.splice(0), []);
});

test("the READMEs' programs run", { skip, timeout: 100_000 }, async () => {
  for (const file of ["README.md", "web/README.md"]) {
    const text = readFileSync(`${ROOT}${file}`, "utf8");
    const [program] = [...text.matchAll(/```js\n([^]*?)```/g)].map(([, code]) => code).filter((code) => code.includes("bcnorm/tfjs"));
    assert.deepEqual(await page.evaluate((program) => tfjs.program(program), program), "it ran", file);
  }
  assert.deepEqual(errors.splice(0), []);
});

test("what is wrong is told", { skip, timeout: 100_000 }, async () => {
  const found = await page.evaluate(() => tfjs.refused());
  const says = {
    groups: ["norm", "4", "6"],
    "default groups": ["norm", "32", "6"],
    gamma: ["tensor", "gamma has shape [5]", "[6]"],
    "group gamma": ["tensor", "gamma has shape [2]", "[3] or [6]"],
    rank: ["tensor", "[6]", "[N, ...spatial, C]"],
    empty: ["tensor", "[0, 4, 6]"],
    integers: ["tensor", "int32", "tf.cast"],
    "no arguments": ["argument", "batchNorm", "null"],
    "no residual": ["argument", "residual is 3", "a tensor"],
    "no model": ["argument", "a model"],
    "no tensor": ["argument", "x is of type Array", "a tensor"],
    option: ["argument", "batchNorm", '"groups"', "momentum"],
    activation: ["argument", "gelu", "silu"],
    residual: ["tensor", "residual", "[2, 4, 4, 5]", "[2, 4, 4, 6]"],
    "one of two": ["argument", "movingVariance", "both"],
    "no variable": ["argument", "movingMean", "tf.variable"],
    "one value": ["norm", "more than 1 value per channel"],
    "no estimates": ["argument", "movingMean"],
    "no speed": ["argument", "movingSpeed"],
    filters: ["tensor", "[1, 1, 1, 8]"],
    config: ["argument", '"axis"', "momentum"],
    initializer: ["argument", "gammaInitializer", '"sevens"', "tf.initializers", "zeros"],
    channels: ["tensor", "number of channels"],
    inputs: ["argument", "[x, residual]", "3 tensors"],
    "second derivative": ["order", "first derivatives"],
    sizes: ["tensor", "layer.prepare"],
    "not tf.js": ["tfjs", "namespace"],
    "no layers": ["tfjs", "no layers"],
    version: ["tfjs", "uploadToGPU", "4.22"],
    backend: ["tfjs", '"cpu"', "setBackend"],
    "backend by now": ["tfjs", '"cpu"', "attach anew"],
  };
  for (const [what, [code, ...words]] of Object.entries(says)) {
    const error = found[what];
    assert.ok(error.startsWith(`BcNormError ${code}: `) && words.every((word) => error.includes(word)), `${what}: ${error}`);
  }
  assert.equal(found.last, "nothing");
  assert.equal(Object.keys(found).length, Object.keys(says).length + 1);
  assert.deepEqual(errors.splice(0), []);
});
