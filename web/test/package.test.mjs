// The package on a page's device: training, what goes wrong, what is kept.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { missing } from "./chromium.mjs";
import { testPage } from "./page.mjs";

const skip = missing ?? false;
let opened, page;

before(async () => {
  if (skip) return;
  opened = await testPage();
  page = opened.page;
});

after(() => opened?.close());

test("a training loop follows the CPU executor step by step", { skip }, async () => {
  const { losses, apart, batches } = await page.evaluate(() => training.train(device, 20));
  assert.ok(losses.at(-1) < 0.9 * losses[0], `losses ${losses}`);
  assert.ok(losses.every((loss, i) => i === 0 || loss <= losses[i - 1] + 1e-6), `losses ${losses}`);
  assert.ok(apart <= 1e-6, `parameters ${apart} apart after a step`);
  assert.equal(batches, "20");
  opened.failed();
});

test("what is wrong is told before anything is recorded", { skip }, async () => {
  const found = await page.evaluate(async () => {
    const { BcNorm, GroupNorm, Norm, Tensor, BcNormError } = bcnorm;
    const options = { numChannels: 4, numGroups: 2 };
    const norm = await BcNorm.create(device, options);
    const x = Tensor.zeros(device, [2, 4, 3]);
    const found = [];
    const wrong = async (what, run) => {
      device.pushErrorScope("validation");
      let error = "nothing";
      try {
        await run();
      } catch (caught) {
        error = caught instanceof BcNormError ? `${caught.code}: ${caught.message}` : `untyped ${caught}`;
      }
      const validation = await device.popErrorScope();
      found.push([what, validation === null ? error : `reached the device: ${validation.message}`]);
    };
    const encode = (args, layer = norm) => () => layer.recordForward(device.createCommandEncoder(), args);
    const storage = (size, usage = GPUBufferUsage.STORAGE) => device.createBuffer({ size, usage });
    await wrong("groups", () => BcNorm.create(device, { numChannels: 6, numGroups: 4 }));
    await wrong("no channels", () => GroupNorm.create(device, {}));
    await wrong("eps", () => BcNorm.create(device, { ...options, eps: -1 }));
    await wrong("kind", () => Norm.create(device, "power_norm", options));
    await wrong("activation", () => BcNorm.create(device, { ...options, activation: "gelu" }));
    await wrong("tuning", () => BcNorm.create(device, { ...options, tuning: "short_rows.max_row=-1" }));
    await wrong("both", () => BcNorm.create(device, { ...options, momentum: 0.1, movingSpeed: 0.1 }));
    await wrong("values", () => Tensor.from(device, [2, 4, 3], new Float32Array(23)));
    await wrong("size", () => new Tensor(x.buffer, [2, -4, 3]));
    await wrong("dtype", () => Tensor.zeros(device, [2, 4, 3], { dtype: "f64" }));
    await wrong("too large", () => Tensor.zeros(device, [1, 4, 2 ** 26]));
    await wrong("channels", encode({ x: Tensor.zeros(device, [2, 5, 3]) }));
    await wrong("rank", encode({ x: Tensor.zeros(device, [4]) }));
    await wrong("one value", encode({ x: Tensor.zeros(device, [1, 4, 1]) }));
    await wrong("small", encode({ x: new Tensor(storage(64), [2, 4, 3]) }));
    await wrong("small, given", encode({ x: new Tensor(storage(64), [2, 4, 3]), y: x }));
    await wrong("offset", encode({ x: new Tensor(storage(1024), [2, 4, 3], { offset: 4 }) }));
    await wrong("usage", encode({ x: new Tensor(storage(96, GPUBufferUsage.COPY_SRC), [2, 4, 3]) }));
    await wrong("aliasing", encode({ x, y: x }));
    await wrong("shape of y", encode({ x, y: Tensor.zeros(device, [2, 4, 4]) }));
    await wrong("type of the residual", encode({ x, residual: Tensor.zeros(device, [2, 4, 3], { dtype: "f16" }) }));
    await wrong("in place", encode({ x, inPlace: true }));
    await wrong("in place, again", encode({ x, inPlace: true, recompute: true }));
    await wrong("in place and y", encode({ x, y: x, inPlace: true }));
    await wrong("backward first", () => norm.backward({ gradY: x }));
    norm.eval();
    const inPlace = await norm.forward({ x, inPlace: true });
    await wrong("backward of in place", () => norm.backward(inPlace.saved, { gradY: x }));
    norm.setGradEnabled(false);
    const without = await norm.forward({ x });
    await wrong("backward without gradients", () => norm.backward(without.saved, { gradY: x }));
    await wrong("speed", () => norm.setStats({ movingSpeed: 2 }));
    const state = await norm.stateDict();
    await wrong("state", () => norm.loadStateDict({ ...state, weight: 3n, extra: 1n }));
    await wrong("safetensors", () => norm.loadSafetensors(new Uint8Array(20)));
    await wrong("usage to read", () => new Tensor(storage(96), [2, 4, 3]).read(device));
    // After all of it, the layer works.
    norm.train();
    norm.setGradEnabled(true);
    const { y } = await norm.forward({ x });
    return { found, y: [...(await y.read(device))] };
  });
  assert.deepEqual(found.y, Array(24).fill(0));
  const says = {
    groups: ["norm", "4", "6"],
    "no channels": ["norm", "numChannels"],
    eps: ["norm", "eps = -1"],
    kind: ["norm", "power_norm", "bc_norm"],
    activation: ["argument", "gelu", "silu"],
    tuning: ["tuning", "class is missing", "is not a whole number"],
    both: ["norm", "movingSpeed"],
    values: ["tensor", "23", "24"],
    size: ["tensor", "-4"],
    dtype: ["argument", "f64", "bf16"],
    "too large": ["limit", "1073741824", "maxBufferSize"],
    channels: ["norm", "5 channels", "numChannels = 4"],
    rank: ["tensor", "rank 1"],
    "one value": ["norm", "more than 1 value per channel"],
    small: ["buffer", "96 bytes", "64"],
    "small, given": ["buffer", "x needs 96 bytes", "64"],
    offset: ["buffer", "offset 4", "256"],
    usage: ["buffer", "STORAGE", "0x4"],
    aliasing: ["buffer", "x and y"],
    "shape of y": ["tensor", "y has shape [2, 4, 4]", "[2, 4, 3]"],
    "type of the residual": ["tensor", "residual is f16", "f32"],
    "in place": ["order", "in place"],
    "in place, again": ["order", "in place"],
    "in place and y": ["order", "inPlace", "give no y"],
    "backward first": ["argument", "saved is", "as forward returns it"],
    "backward of in place": ["order", "in place", "a y of its own"],
    "backward without gradients": ["order", "setGradEnabled(true)"],
    speed: ["norm", "movingSpeed = 2"],
    state: ["state-dict", "weight is i64", 'unexpected key "extra"'],
    safetensors: ["state-dict", "not a safetensors file"],
    "usage to read": ["buffer", "COPY_SRC"],
  };
  const missed = found.found.filter(([what, error]) => {
    const [code, ...words] = says[what];
    return !error.startsWith(`${code}: `) || !words.every((word) => error.includes(word));
  });
  assert.deepEqual(missed, []);
  assert.equal(found.found.length, Object.keys(says).length);
  opened.failed();
});

test("subgroups are used where the device has them, and asked for in vain without", { skip }, async () => {
  const found = await page.evaluate(async () => {
    const { BcNorm, Tensor, requestDevice } = bcnorm;
    const adapter = await navigator.gpu.requestAdapter();
    const own = await requestDevice();
    const without = await adapter.requestDevice();
    const size = own.adapterInfo.subgroupMinSize;
    const run = async (device, subgroupSize) => {
      const tuning = `class=gpu\nlimits.subgroup_size=${subgroupSize}`;
      const norm = await BcNorm.create(device, { numChannels: 4, numGroups: 2, tuning });
      try {
        const x = Tensor.from(device, [2, 4, 999], new Float32Array(7992).map((_, i) => Math.sin(i)));
        const { y } = await norm.forward({ x });
        return [...(await y.read(device))].slice(0, 4);
      } catch (error) {
        return `${error.code}: ${error.message}`;
      }
    };
    const results = {
      has: [own.features.has("subgroups"), without.features.has("subgroups")],
      shared: await run(own, 1),
      smallest: await run(own, size),
      more: await run(own, 2 * size),
      without: await run(without, size),
    };
    own.destroy();
    without.destroy();
    return { size, ...results };
  });
  assert.deepEqual(found.has, [true, false]);
  assert.ok(found.size > 1);
  assert.deepEqual(found.smallest, found.shared);
  for (const [error, most] of [[found.more, found.size], [found.without, 1]]) {
    assert.match(error, new RegExp(`^limit: .*subgroup size of row_moments.* ${most}\\b.*limits\\.subgroup_size=1`));
  }
  opened.failed();
});

test("a lost device is told, a new one works", { skip }, async () => {
  const found = await page.evaluate(async () => {
    const { BcNorm, Tensor } = bcnorm;
    const lost = await newDevice();
    const code = async (run) => {
      try {
        await run();
        return "nothing";
      } catch (error) {
        return error.code ?? String(error);
      }
    };
    const norm = await BcNorm.create(lost, { numChannels: 2 });
    const x = Tensor.zeros(lost, [2, 2, 3]);
    const reading = norm.forward({ x }).then(({ y }) => {
      const read = code(() => y.read(lost));
      lost.destroy();
      return read;
    });
    const during = await reading;
    await lost.lost;
    const after = [
      await code(() => norm.forward({ x })),
      await code(() => norm.stateDict()),
      await code(() => norm.prepare(x)),
      await code(() => x.read(lost)),
      await code(() => BcNorm.create(lost, { numChannels: 2 })),
    ];
    const again = await BcNorm.create(await newDevice(), { numChannels: 2 });
    const { y } = await again.forward({ x: Tensor.zeros(again.device, [2, 2, 3]) });
    return { during, after, y: [...(await y.read(again.device))] };
  });
  assert.equal(found.during, "device-lost");
  assert.deepEqual(found.after, Array(5).fill("device-lost"));
  assert.deepEqual(found.y, Array(12).fill(0));
});

test("state dicts return as they were, by safetensors too", { skip }, async () => {
  const found = await page.evaluate(async () => {
    const { BcNorm, Tensor } = bcnorm;
    const options = { numChannels: 4, numGroups: 2, movingSpeed: 0.25 };
    const x = Tensor.from(device, [2, 4, 2], Float32Array.from({ length: 16 }, (_, i) => Math.sin(i)));
    const one = await BcNorm.create(device, options);
    await one.forward({ x });
    const bytes = await one.saveSafetensors();
    const other = await BcNorm.create(device, { ...options, movingSpeed: 0.5 });
    other.loadSafetensors(bytes);
    const text = (state) =>
      JSON.stringify(state, (_, value) =>
        typeof value === "bigint" ? `${value}n` : value instanceof Float32Array ? [...value] : value,
      );
    // Both go on alike: the moving speed came along.
    const ys = [];
    for (const norm of [one, other]) {
      const { y } = await norm.forward({ x });
      ys.push(String([...(await y.read(device))]));
    }
    const states = [text(await one.stateDict()), text(await other.stateDict())];
    // As one module of a model.
    const model = bcnorm.writeStateDict(
      Object.fromEntries(
        Object.entries(await one.stateDict()).map(([name, value]) => [`layer1.0.bn1.${name}`, value]),
      ),
    );
    other.loadSafetensors(model, { module: "layer1.0.bn1" });
    states.push(text(await other.stateDict()));
    return { ys, states };
  });
  assert.equal(found.ys[0], found.ys[1]);
  assert.equal(found.states[0], found.states[1]);
  assert.equal(found.states[0], found.states[2]);
  assert.match(found.states[0], /"bn.estbn_moving_speed":\{"dims":\[1\],"values":\[0.25\]\}/);
});

test("a loop with the same tensors binds once", { skip }, async () => {
  const made = await page.evaluate(async () => {
    const { BcNorm, Tensor } = bcnorm;
    const own = await newDevice();
    const norm = await BcNorm.create(own, { numChannels: 4, numGroups: 2 });
    const [x, y, gradY, gradX] = [0, 0, 0, 0].map(() => Tensor.zeros(own, [2, 4, 5]));
    let made = 0;
    for (const name of ["createBindGroup", "createBuffer", "createComputePipeline", "createShaderModule"]) {
      const real = own[name].bind(own);
      own[name] = (...args) => {
        made += 1;
        return real(...args);
      };
    }
    const counts = [];
    for (let step = 0; step < 4; step++) {
      made = 0;
      const encoder = own.createCommandEncoder();
      const { saved } = norm.recordForward(encoder, { x, y });
      norm.recordBackward(encoder, saved, { gradY, gradX });
      own.queue.submit([encoder.finish()]);
      counts.push(made);
    }
    return counts;
  });
  assert.ok(made[0] > 10);
  assert.deepEqual(made.slice(2), [0, 0]);
});

test("without WebGPU or an adapter, that is said", { skip }, async () => {
  const codes = await page.evaluate(async () => {
    const gpu = navigator.gpu;
    const code = async (value) => {
      Object.defineProperty(navigator, "gpu", { value, configurable: true });
      try {
        await bcnorm.requestDevice();
        return "nothing";
      } catch (error) {
        return `${error.code}: ${error.message}`;
      }
    };
    const found = [await code(undefined), await code({ requestAdapter: async () => null })];
    Object.defineProperty(navigator, "gpu", { value: gpu, configurable: true });
    const device = await bcnorm.requestDevice({ limits: "adapter" });
    return [...found, device instanceof GPUDevice];
  });
  assert.match(codes[0], /^no-webgpu: .*no WebGPU/);
  assert.match(codes[1], /^no-adapter: .*driver/);
  assert.equal(codes[2], true);
});
