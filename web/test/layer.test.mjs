// A layer's calls: wrong arguments, their order, tensors of other devices, what it holds of the GPU's memory.
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { missing, ROOT } from "./chromium.mjs";
import { testPage } from "./page.mjs";

const skip = missing ?? false;
let opened, page;

before(async () => {
  if (skip) return;
  opened = await testPage();
  page = opened.page;
  await page.evaluate(() => {
    /** What is thrown: a typed error's code and message, or that it is another. */
    window.thrown = async (run) => {
      try {
        await run();
        return "nothing";
      } catch (error) {
        return error instanceof bcnorm.BcNormError ? `${error.code}: ${error.message}` : `untyped ${error}`;
      }
    };
    /** Counts the buffers of a device that live, by their labels. */
    window.counted = (device) => {
      const live = new Map();
      const create = device.createBuffer.bind(device);
      device.createBuffer = (descriptor) => {
        const buffer = create(descriptor);
        live.set(buffer, descriptor.label);
        const destroy = buffer.destroy.bind(buffer);
        buffer.destroy = () => {
          live.delete(buffer);
          destroy();
        };
        return buffer;
      };
      return live;
    };
  });
});

after(() => opened?.close());

test("arguments that are none are refused by name", { skip }, async () => {
  const found = await page.evaluate(async () => {
    const { BcNorm, BatchNorm, EstBn, GroupNorm, InstanceNorm, LayerNorm, Norm, Tensor, WeightStandardization } = bcnorm;
    const options = { numChannels: 4, numGroups: 2 };
    const norm = await BcNorm.create(device, options);
    const x = Tensor.zeros(device, [2, 4, 3]);
    const encoder = device.createCommandEncoder();
    const { saved } = await norm.forward({ x });
    const f = new Float32Array(24);
    const all = {
      device: () => BcNorm.create(undefined, options),
      "device of an adapter": () => BcNorm.create({}, options),
      options: () => BcNorm.create(device),
      "options null": () => BcNorm.create(device, null),
      "options text": () => BcNorm.create(device, "4"),
      numGroup: () => BcNorm.create(device, { numChannels: 4, numGroup: 2 }),
      "numChannels text": () => BcNorm.create(device, { numChannels: "4" }),
      "eps text": () => BcNorm.create(device, { ...options, eps: "1e-5" }),
      "weight text": () => BcNorm.create(device, { ...options, weight: "false" }),
      "groups of a batch norm": () => Norm.create(device, "batch_norm", options),
      "speed of a batch norm": () => BatchNorm.create(device, { numChannels: 4, movingSpeed: 0.5 }),
      "momentum of an EstBN": () => EstBn.create(device, { numChannels: 4, momentum: 0.5 }),
      "momentum of a group norm": () => GroupNorm.create(device, { ...options, momentum: 0.5 }),
      "momentum of a layer norm": () => LayerNorm.create(device, { numChannels: 4, momentum: 0.5 }),
      "channels of filters": () => WeightStandardization.create(device, { numChannels: 4 }),
      "kind of every object": () => Norm.create(device, "constructor", options),
      "x floats": () => norm.forward({ x: f }),
      "x alone": () => norm.forward(x),
      "x none": () => norm.forward(),
      "x null": () => norm.forward(null),
      inplace: () => norm.forward({ x, inplace: true }),
      "inPlace 1": () => norm.forward({ x, inPlace: 1 }),
      "recompute 1": () => norm.forward({ x, recompute: 1 }),
      "y floats": () => norm.forward({ x, y: f }),
      "residual floats": () => norm.forward({ x, residual: f }),
      "args none": () => norm.recordForward(encoder),
      "args empty": () => norm.recordForward(encoder, {}),
      "args of none such": () => norm.recordForward(encoder, { x, out: x }),
      "target none": () => norm.recordForward(undefined, { x }),
      "target a device": () => norm.recordForward(device, { x }),
      "prepare none": () => norm.prepare(),
      "prepare a shape": () => norm.prepare([2, 4, 3]),
      "prepare of none such": () => norm.prepare({ dim: [2, 4, 3] }),
      "prepare a layout": () => norm.prepare({ dims: [2, 4, 3], layout: "NHWC" }),
      "prepare a tensor": () => norm.prepare(x, { residual: x }),
      "saved none": () => norm.backward(),
      "saved a tensor": () => norm.backward(x, { gradY: x }),
      "gradY none": () => norm.backward(saved),
      "gradY floats": () => norm.backward(saved, { gradY: f }),
      "backward of none such": () => norm.backward(saved, { gradY: x, dx: x }),
      "recordBackward empty": () => norm.recordBackward(encoder, saved, {}),
      "recordBackward target": () => norm.recordBackward({}, saved, { gradY: x }),
      recordZeroGrad: () => norm.recordZeroGrad(device),
      grad: () => norm.setGradEnabled("no"),
      "stats none": () => norm.setStats(),
      "stats empty": () => norm.setStats({}),
      "stats both": () => norm.setStats({ momentum: 0.5, movingSpeed: 0.5 }),
      "stats of none such": () => norm.setStats({ momentun: 0.5 }),
      "stats text": () => norm.setStats({ momentum: "0.5" }),
      "state none": () => norm.loadStateDict(),
      "state arrays": () => norm.loadStateDict({ weight: [1, 1] }),
      "state numbers": () => norm.loadStateDict({ "bn.num_batches_tracked": 3 }),
      "bytes none": () => norm.loadSafetensors(),
      "bytes a buffer": () => norm.loadSafetensors(new ArrayBuffer(16)),
      "bytes, module": () => norm.loadSafetensors(new Uint8Array(16), { modul: "a" }),
      "from none": () => Tensor.from(),
      "from device": () => Tensor.from({}, [2, 4, 3], f),
      "from array": () => Tensor.from(device, [2, 4, 3], [...f]),
      "from size": () => Tensor.from(device, 24, f),
      "from -1": () => Tensor.from(device, [2, -4, 3], f),
      "from 1.5": () => Tensor.zeros(device, [2, 1.5, 3]),
      "from type": () => Tensor.from(device, [2, 4, 3], f, { type: "f16" }),
      "zeros, options": () => Tensor.zeros(device, [2, 4, 3], "f16"),
      "tensor none": () => new Tensor(),
      "tensor floats": () => new Tensor(f, [2, 4, 3]),
      "tensor dims": () => new Tensor(x.buffer, "2"),
      "tensor option": () => new Tensor(x.buffer, [2, 4, 3], { off: 256 }),
      read: () => x.read(),
      "adapter option": () => bcnorm.requestDevice({ limit: "adapter" }),
      "adapter limits": () => bcnorm.requestDevice({ limits: "all" }),
      "adapter preference": () => bcnorm.requestDevice({ powerPreference: "much" }),
    };
    const found = {};
    for (const [what, run] of Object.entries(all)) {
      found[what] = await thrown(run);
    }
    // Nothing of it has changed the layer: this backward is of the forward at the beginning.
    await norm.backward(saved, { gradY: x });
    await InstanceNorm.create(device, { numChannels: 4, momentum: 0.5, trackRunningStats: true, eps: undefined });
    return found;
  });
  const codes = {
    "kind of every object": "norm",
    "stats empty": "norm",
    "stats both": "norm",
    "state none": "state-dict",
    "state arrays": "state-dict",
    "state numbers": "state-dict",
    "from -1": "tensor",
    "from 1.5": "tensor",
  };
  const wrong = Object.entries(found).filter(([what, error]) => !error.startsWith(`${codes[what] ?? "argument"}: `));
  assert.deepEqual(wrong, []);
  const says = (what, ...words) => words.forEach((word) => assert.ok(found[what].includes(word), `${what}: ${found[what]}`));
  says("device", "device is undefined", "requestDevice()");
  says("numGroup", '"numGroup"', "numGroups", "perChannelAffine");
  says("groups of a batch norm", "batch_norm", '"numGroups"');
  says("x floats", "x is of type Float32Array", "Tensor.from");
  says("args empty", "x is undefined");
  says("inplace", '"inplace"', "inPlace");
  says("state arrays", "weight", "values");
  says("stats both", "momentum", "movingSpeed");
  opened.failed();
});

test("no message speaks Rust", { skip }, async () => {
  const errors = readFileSync(`${ROOT}src/error.rs`, "utf8");
  const made = readFileSync(`${ROOT}web/planner/src/error.rs`, "utf8");
  const declared = [...errors.matchAll(/#\[error\(\s*"([^"]*)"[^\]]*\)\]\s*(\w+)/g)];
  assert.ok(declared.length > 20, `${declared.length} errors`);
  // Those that the planner makes, and what its plans and norms say in them.
  const apart = ["Checkpoint", "Device", "NoAdapter"];
  const own = declared.filter(([, , name]) => made.includes(`Error::${name}`) && !apart.includes(name));
  const sources = readdirSync(`${ROOT}src/plan`).map((name) => `plan/${name}`).concat("desc.rs");
  const code = sources.flatMap((name) => readFileSync(`${ROOT}src/${name}`, "utf8").split("\n"));
  const lines = code.filter((line) => !/^\s*(\/\/|#)/.test(line)).join("\n");
  // Whole texts, of more than one word.
  const said = [...lines.matchAll(/"([^"\n]* [^"\n]*)"/g)];
  assert.ok(own.length > 15 && said.length > 15, `${own.length}, ${said.length}`);
  const { inJavaScript } = await import("../dist/errors.js");
  const texts = [...own.map(([, text]) => text), ...said.map(([, text]) => text)];
  const spoken = texts.map((text) => inJavaScript("norm", text.replace(/\{[^}]*\}/g, "")));
  // Paths, methods by Rust's names, limits and options in snake case; a tuning's fields are called so here, too.
  const rust = /::|\b(?:with|set|forward|backward)_\w+|\bnum_\w+|\b(?:max|min)_(?:buffer|compute|storage|uniform)_\w+|moving_speed|\bNone\b|wgpu/;
  assert.deepEqual(spoken.filter((text) => rust.test(text)), []);
});

test("momentum and moving speed are the norm's own", { skip }, async () => {
  const found = await page.evaluate(async () => {
    const { BcNorm, BatchNorm, EstBn, GroupNorm, InstanceNorm, LayerNorm, WeightStandardization, Tensor } = bcnorm;
    const channels = { numChannels: 2 };
    const refused = {};
    for (const [name, norm, stats] of [
      ["group", await GroupNorm.create(device, channels), { momentum: 0.5 }],
      ["layer", await LayerNorm.create(device, channels), { momentum: 0.5 }],
      ["filters", await WeightStandardization.create(device, {}), { movingSpeed: 0.5 }],
      ["instance", await InstanceNorm.create(device, channels), { momentum: 0.5 }],
      ["instance, speed", await InstanceNorm.create(device, { ...channels, trackRunningStats: true }), { movingSpeed: 0.5 }],
      ["est", await EstBn.create(device, channels), { momentum: 0.5 }],
      ["batch", await BatchNorm.create(device, channels), { movingSpeed: 0.5 }],
    ]) {
      refused[name] = await thrown(() => norm.setStats(stats));
    }
    // What is refused leaves what create was given.
    const x = Tensor.from(device, [1, 2, 2], Float32Array.of(0, 2, 4, 8));
    const means = [];
    for (const momentum of [0.5, null, undefined]) {
      const norm = await BatchNorm.create(device, { ...channels, momentum });
      refused[`momentum ${momentum}`] = await thrown(() => norm.setStats({ momentum: 2 }));
      await norm.forward({ x });
      means.push([...(await norm.stateDict()).running_mean.values]);
    }
    const speed = await BcNorm.create(device, { ...channels, movingSpeed: 0.25 });
    refused.speed = await thrown(() => speed.setStats({ movingSpeed: 2 }));
    means.push([...(await speed.stateDict())["bn.estbn_moving_speed"].values]);
    return { refused, means };
  });
  const { refused, means } = found;
  assert.match(refused.group, /^norm: a group_norm keeps no statistics/);
  assert.match(refused.layer, /^norm: a layer_norm keeps no statistics/);
  assert.match(refused.filters, /^norm: a weight_standardization keeps no statistics/);
  assert.match(refused.instance, /^norm: .*trackRunningStats/);
  for (const name of ["instance, speed", "est", "batch"]) {
    assert.match(refused[name], /^argument: .*no option/);
  }
  for (const name of ["momentum 0.5", "momentum null", "momentum undefined"]) {
    assert.match(refused[name], /^norm: momentum = 2 is out of range/);
  }
  assert.match(refused.speed, /^norm: movingSpeed = 2 is out of range/);
  const [half, average, usual, speeds] = means;
  assert.deepEqual([half, average, speeds], [[0.5, 3], [1, 6], [0.25]]);
  assert.ok(Math.abs(usual[0] - 0.1) < 1e-7 && Math.abs(usual[1] - 0.6) < 1e-6, `${usual}`);
});

test("a destroyed layer says so, whatever it is asked", { skip }, async () => {
  const found = await page.evaluate(async () => {
    const { GroupNorm, Norm, Tensor } = bcnorm;
    const x = Tensor.zeros(device, [2, 4, 3]);
    const calls = {
      train: (norm) => norm.train(),
      eval: (norm) => norm.eval(),
      setGradEnabled: (norm) => norm.setGradEnabled(true),
      setStats: (norm) => norm.setStats({ momentum: 0.5 }),
      buffer: (norm) => norm.buffer("weight"),
      prepare: (norm) => norm.prepare(x),
      recordForward: (norm) => norm.recordForward(device.createCommandEncoder(), { x }),
      recordBackward: (norm) => norm.recordBackward(device.createCommandEncoder(), saved, { gradY: x }),
      forward: (norm) => norm.forward({ x }),
      backward: (norm) => norm.backward(saved, { gradY: x }),
      recordZeroGrad: (norm) => norm.recordZeroGrad(device.createCommandEncoder()),
      zeroGrad: (norm) => norm.zeroGrad(),
      stateDict: (norm) => norm.stateDict(),
      loadStateDict: (norm) => norm.loadStateDict({}),
      saveSafetensors: (norm) => norm.saveSafetensors(),
      loadSafetensors: (norm) => norm.loadSafetensors(new Uint8Array(16)),
      memory: (norm) => norm.memory(),
      release: (norm) => norm.release(),
    };
    const methods = Object.getOwnPropertyNames(Norm.prototype);
    const said = [];
    let saved;
    for (const affine of [true, false]) {
      const norm = await GroupNorm.create(device, { numChannels: 4, weight: affine, bias: affine });
      ({ saved } = await norm.forward({ x }));
      const waiting = norm.forward({ x });
      norm.destroy();
      saved.dispose();
      norm.destroy();
      said.push(["forward meanwhile", await thrown(() => waiting)]);
      for (const [name, call] of Object.entries(calls)) {
        said.push([name, await thrown(() => call(norm))]);
      }
    }
    const y = Tensor.zeros(device, [2, 4, 3]);
    y.destroy();
    const norm = await GroupNorm.create(device, { numChannels: 4 });
    const tensors = [
      await thrown(() => norm.forward({ x: y })),
      await thrown(() => norm.forward({ x, y })),
      await thrown(() => norm.recordForward(device.createCommandEncoder(), { x: y })),
      await thrown(() => y.read(device)),
    ];
    // Destroyed by the page, which nothing here sees.
    x.buffer.destroy();
    tensors.push(await thrown(() => norm.forward({ x })), await thrown(() => x.read(device)));
    return { said, tensors, calls: Object.keys(calls), methods };
  });
  const wrong = found.said.filter(([, error]) => error !== "order: the layer was destroyed: create a new one");
  assert.deepEqual(wrong, []);
  // All that there are: the rest are getters, destroy, and what is private.
  const source = readFileSync(`${ROOT}web/dist/norm.d.ts`, "utf8");
  const declared = [...source.matchAll(/^ {4}(?!private|static|constructor|get )(\w+)\(/gm)].map(([, name]) => name);
  assert.deepEqual(declared.filter((name) => name !== "destroy").sort(), found.calls.sort());
  assert.ok(found.tensors.every((error) => error.startsWith("buffer: ")), found.tensors.join("; "));
});

test("backward goes back through the forward that it is given, or says why not", { skip }, async () => {
  const found = await page.evaluate(async () => {
    const { BcNorm, Tensor } = bcnorm;
    const create = () => BcNorm.create(device, { numChannels: 2 });
    const [norm, other] = [await create(), await create()];
    const values = (seed) => Float32Array.from({ length: 12 }, (_, i) => Math.sin(seed * (i + 1)));
    const tensor = (seed) => Tensor.from(device, [2, 2, 3], values(seed));
    const [a, b, g] = [1, 2, 3].map(tensor);
    const back = async (saved) => [...(await (await norm.backward(saved, { gradY: g })).gradX.read(device))];
    const grad = async () => String(await new Tensor(norm.buffer("grad_bias"), [1]).read(device));
    const [ofA, ofB] = [await back((await norm.forward({ x: a })).saved), await back((await norm.forward({ x: b })).saved)];
    const said = {};
    // Two in flight, in either order, and forwards in between.
    const flights = [];
    for (const reversed of [false, true]) {
      const [one, two] = [await norm.forward({ x: a }), await norm.forward({ x: b })];
      norm.setGradEnabled(false);
      await norm.forward({ x: b });
      norm.eval();
      await norm.forward({ x: tensor(4), inPlace: true });
      await norm.forward({ x: Tensor.zeros(device, [5, 2, 700]) });
      norm.train();
      norm.setGradEnabled(true);
      const held = norm.memory().saved;
      const second = reversed ? await back(two.saved) : undefined;
      flights.push([await back(one.saved), second ?? (await back(two.saved)), held, norm.memory().saved]);
      said.again = await thrown(() => norm.backward(one.saved, { gradY: g }));
    }
    const before = await grad();
    const { saved } = await norm.forward({ x: a });
    said.foreign = await thrown(() => other.backward(saved, { gradY: g }));
    said.recorded = await thrown(() => other.recordBackward(device.createCommandEncoder(), saved, { gradY: g }));
    said.shape = await thrown(() => norm.backward(saved, { gradY: Tensor.zeros(device, [2, 2, 4]) }));
    said.residual = await thrown(() => norm.backward(saved, { gradY: g, gradResidual: b }));
    const same = before === (await grad());
    // A call that was refused used nothing up; of two at once, one gets it.
    const both = await Promise.all([back(saved), thrown(() => norm.backward(saved, { gradY: g }))]);
    said.both = both[1];
    // Settings that change in between are not those of the forward.
    const changed = await norm.forward({ x: a });
    norm.setStats({ movingSpeed: 0.5 });
    norm.eval();
    const state = await norm.stateDict();
    norm.loadStateDict({ ...state, "bn.weight": { dims: [2], values: Float32Array.of(3, 4) } });
    norm.release();
    const after = await back(changed.saved);
    norm.loadStateDict(state);
    norm.train();
    norm.setStats({ momentum: 0.1 });
    // What the layer writes over what a backward reads.
    const spoiled = await norm.forward({ x: a });
    norm.eval();
    await norm.forward({ x: b, y: a });
    said.over = await thrown(() => norm.backward(spoiled.saved, { gradY: g }));
    // Without a channel part backward reads weight.
    const grouped = await bcnorm.GroupNorm.create(device, { numGroups: 1, numChannels: 2 });
    const loaded = await grouped.forward({ x: b });
    grouped.loadStateDict(await grouped.stateDict());
    said.loaded = await thrown(() => grouped.backward(loaded.saved, { gradY: g }));
    return { ofA, ofB, said, flights, same, after, both: both[0] };
  });
  const { ofA, ofB, said, flights } = found;
  assert.notDeepEqual(ofA, ofB);
  for (const [a, b, held, left] of flights) {
    assert.deepEqual([a, b], [ofA, ofB]);
    assert.ok(held > 0 && left === 0, `${held}, ${left}`);
  }
  for (const name of ["again", "both"]) {
    assert.match(said[name], /^order: this Saved was used.*call forward again/);
  }
  assert.match(said.foreign, /^order: this Saved is another layer's/);
  assert.equal(said.recorded, said.foreign);
  assert.match(said.shape, /^tensor: gradY has shape/);
  assert.match(said.residual, /^order: forward had no residual.*leave gradResidual out/);
  assert.match(said.over, /^order: .*wrote over/);
  assert.match(said.loaded, /^order: .*whose weight.*load parameters after backward/);
  assert.ok(found.same, "a refused backward adds to the gradients");
  assert.deepEqual([found.both, found.after], [ofA, ofA]);
  opened.failed();
});

test("a layer used twice, and a checkpointed one", { skip }, async () => {
  const found = await page.evaluate(async () => {
    const { BcNorm, EstBn, InstanceNorm, Tensor } = bcnorm;
    const values = (seed) => Float32Array.from({ length: 24 }, (_, i) => Math.sin(seed * (i + 1)));
    const [x, gradY] = [1, 2].map((seed) => Tensor.from(device, [2, 2, 6], values(seed)));
    const read = async (...tensors) => Promise.all(tensors.map(async (tensor) => [...(await tensor.read(device))]));
    // norm(norm(x)) of one layer, and of two with the same parameters; into an encoder, and into a compute pass.
    const twice = async (inPass, ...layers) => {
      const encoder = device.createCommandEncoder();
      const target = inPass ? encoder.beginComputePass() : encoder;
      const [first, second] = [layers[0], layers.at(-1)];
      const one = first.recordForward(target, { x });
      const two = second.recordForward(target, { x: one.y });
      const back = second.recordBackward(target, two.saved, { gradY });
      const { gradX } = first.recordBackward(target, one.saved, { gradY: back.gradX });
      if (inPass) target.end();
      device.queue.submit([encoder.finish()]);
      const gradients = await Promise.all(layers.map((norm) => new Tensor(norm.buffer("grad_bn.weight"), [2]).read(device)));
      const sum = [0, 1].map((i) => Math.fround(gradients.reduceRight((sum, values) => sum + values[i], 0)));
      return [...(await read(one.y, two.y, gradX)), sum];
    };
    const create = () => BcNorm.create(device, { numChannels: 2 });
    const shared = [
      await twice(false, await create(), await create()),
      await twice(false, await create()),
      await twice(true, await create()),
    ];
    // The first forward is forgotten, the second one moves no statistics.
    const text = (state) => JSON.stringify(Object.values(state).map((v) => (typeof v === "bigint" ? `${v}` : [...v.values])));
    const checkpointed = [];
    for (const make of [
      create,
      () => BcNorm.create(device, { numChannels: 2, momentum: null }),
      () => EstBn.create(device, { numChannels: 2, movingSpeed: 0.25 }),
      () => InstanceNorm.create(device, { numChannels: 2, trackRunningStats: true }),
    ]) {
      const [plain, block] = [await make(), await make()];
      const whole = await plain.forward({ x });
      const expected = await plain.backward(whole.saved, { gradY });
      const first = await block.forward({ x });
      first.saved.dispose();
      const second = await block.forward({ x, recompute: true });
      const got = await block.backward(second.saved, { gradY });
      checkpointed.push({
        expected: await read(whole.y, expected.gradX),
        got: await read(second.y, got.gradX),
        states: [text(await plain.stateDict()), text(await block.stateDict())],
        moved: text(await (await make()).stateDict()),
      });
    }
    return { shared, checkpointed };
  });
  const [two, one, passed] = found.shared;
  assert.deepEqual(one, two);
  assert.deepEqual(passed, two);
  for (const { expected, got, states, moved } of found.checkpointed) {
    assert.equal(states[0], states[1]);
    assert.notEqual(states[0], moved);
    got.flat().forEach((value, i) => assert.ok(Math.abs(value - expected.flat()[i]) < 1e-5, `${got}, ${expected}`));
  }
  opened.failed();
});

test("tables return to the pool", { skip }, async () => {
  const found = await page.evaluate(async () => {
    const { BcNorm, Tensor } = bcnorm;
    const own = await newDevice();
    const live = counted(own);
    const norm = await BcNorm.create(own, { numChannels: 2 });
    const x = Tensor.zeros(own, [2, 2, 6]);
    const empty = live.size;
    const memory = [norm.memory()];
    const [one, two] = [await norm.forward({ x }), await norm.forward({ x })];
    memory.push(norm.memory());
    one.saved.dispose();
    one.saved.dispose();
    memory.push(norm.memory());
    const three = await norm.forward({ x });
    // Disposed of long ago: the tables are another forward's now.
    one.saved.dispose();
    memory.push(norm.memory());
    three.saved.dispose();
    norm.release();
    memory.push(norm.memory());
    await norm.backward(two.saved, { gradY: x });
    norm.release();
    memory.push(norm.memory());
    [one, two, three].forEach(({ y }) => y.destroy());
    const left = live.size - empty;
    own.destroy();
    return { memory, left };
  });
  const [fresh, both, one, again, kept, none] = found.memory;
  const half = both.saved / 2;
  // bn.weight, bn.bias and their gradients, two running statistics; weight, bias and theirs; the count.
  const state = 4 * (6 * 2 + 4 + 1);
  assert.deepEqual(fresh, { state, saved: 0, idle: 0 });
  assert.ok(half > 0);
  assert.deepEqual([one.saved, one.idle], [half, half]);
  assert.deepEqual([again.saved, again.idle], [2 * half, 0]);
  assert.deepEqual([kept.saved, kept.idle], [half, 0]);
  assert.deepEqual(none, fresh);
  // The gradient of x, which backward made.
  assert.equal(found.left, 1);
});

test("tables that a page forgets to dispose of return by themselves", { skip }, async () => {
  const least = await page.evaluate(async () => {
    const { BcNorm, Tensor } = bcnorm;
    window.forgetful = await BcNorm.create(device, { numChannels: 2 });
    const x = Tensor.zeros(device, [2, 2, 6]);
    const held = [];
    for (let i = 0; i < 20; i++) {
      const result = await forgetful.forward({ x });
      // The collector may have been here already, but not for what is still in use.
      held.push(forgetful.memory().saved);
      result.y.destroy();
    }
    return Math.min(...held);
  });
  assert.ok(least > 0);
  const held = () => page.evaluate(() => forgetful.memory().saved);
  // The collector comes when it likes.
  for (let i = 0; i < 50 && (await held()) > 0; i++) {
    await page.requestGC();
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  assert.equal(await held(), 0);
  opened.failed();
});

test("a tensor of another device is refused", { skip }, async () => {
  const found = await page.evaluate(async () => {
    const { BcNorm, Tensor } = bcnorm;
    const [one, other] = [await newDevice(), await newDevice()];
    const create = (device) => BcNorm.create(device, { numChannels: 4 });
    const [norm, stranger] = [await create(one), await create(other)];
    const [x, foreign] = [one, other].map((device) => Tensor.zeros(device, [2, 4, 3]));
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC;
    const pages = new Tensor(other.createBuffer({ size: 96, usage }), [2, 4, 3]);
    const own = new Tensor(one.createBuffer({ size: 96, usage }), [2, 4, 3]);
    const encoder = () => one.createCommandEncoder();
    const devices = [x.device === one, foreign.device === other, pages.device];
    const said = {
      forward: await thrown(() => norm.forward({ x: foreign })),
      y: await thrown(() => norm.forward({ x, y: foreign })),
      residual: await thrown(() => norm.forward({ x, residual: foreign })),
      recorded: await thrown(() => norm.recordForward(encoder(), { x, y: foreign })),
      read: await thrown(() => foreign.read(one)),
      parameter: await thrown(() => new Tensor(stranger.buffer("bn.weight"), [4]).read(one)),
      // Buffers of the page's, of which WebGPU alone knows the device.
      pagesX: await thrown(() => norm.forward({ x: pages })),
      pagesY: await thrown(() => norm.forward({ x, y: pages })),
      pagesRead: await thrown(() => pages.read(one)),
    };
    const { saved } = await norm.forward({ x });
    said.gradY = await thrown(() => norm.backward(saved, { gradY: foreign }));
    said.gradX = await thrown(() => norm.backward(saved, { gradY: x, gradX: foreign }));
    said.pagesGrad = await thrown(() => norm.backward(saved, { gradY: pages }));
    // After all of it, the layer works, with a buffer of the page's too.
    const { y, saved: again } = await norm.forward({ x: own });
    const values = [...(await y.read(one))];
    await norm.backward(again, { gradY: own, gradX: x });
    return { said, devices, values };
  });
  assert.deepEqual(found.devices, [true, true, undefined]);
  const wrong = Object.entries(found.said).filter(([, error]) => !/^buffer: .*another device/.test(error));
  assert.deepEqual(wrong, []);
  assert.deepEqual(found.values, Array(24).fill(0));
});

test("buffers that there cannot be are errors", { skip }, async () => {
  const found = await page.evaluate(async () => {
    const { BatchNorm, Tensor } = bcnorm;
    const own = await newDevice();
    const limit = own.limits.maxBufferSize;
    const floats = limit / 4 + 64;
    const said = {
      zeros: await thrown(() => Tensor.zeros(own, [1, 1, floats])),
      from: await thrown(() => Tensor.from(own, [1, 1, floats], new Float32Array(floats))),
      parameters: await thrown(() => BatchNorm.create(own, { numChannels: floats })),
      most: await thrown(() => BatchNorm.create(own, { numChannels: 0xffffffff })),
    };
    const norm = await BatchNorm.create(own, { numChannels: 4 });
    const x = Tensor.zeros(own, [2, 4, 64]);
    await norm.prepare(x);
    // As a device without memory: some buffers come out invalid, or not at all.
    const create = own.createBuffer.bind(own);
    const without = async (labels, run, make) => {
      own.createBuffer = (descriptor) => (labels.test(descriptor.label) ? make(descriptor) : create(descriptor));
      const error = await thrown(run);
      own.createBuffer = create;
      return error;
    };
    const invalid = (descriptor) => create({ ...descriptor, size: 2 * limit, mappedAtCreation: false });
    const none = () => {
      throw new RangeError("createBuffer failed, size is too large");
    };
    said.y = await without(/^tensor$/, () => norm.forward({ x }), invalid);
    said.tables = await without(/^(?!tensor)/, () => norm.forward({ x }), (d) => (d.mappedAtCreation ? create(d) : invalid(d)));
    said.staging = await without(/readback/, () => x.read(own), invalid);
    said.layer = await without(/^weight$/, () => BatchNorm.create(own, { numChannels: 4 }), none);
    said.upload = await without(/^tensor$/, () => Tensor.from(own, [1, 1, 4], new Float32Array(4)), none);
    const memory = own.popErrorScope.bind(own);
    let calls = 0;
    // The second scope that is popped is that of memory.
    own.popErrorScope = async () => ((await memory()), ++calls === 2 ? new GPUOutOfMemoryError("none left") : null);
    said.told = await thrown(() => norm.forward({ x }));
    own.popErrorScope = memory;
    said.held = norm.memory().saved;
    const { y } = await norm.forward({ x });
    return { said, values: [...(await y.read(own))].every((value) => value === 0) };
  });
  const { said } = found;
  for (const name of ["zeros", "from", "parameters", "most"]) {
    assert.match(said[name], /^limit: .*maxBufferSize|^limit: .*maxStorageBufferBindingSize/, name);
  }
  for (const name of ["y", "tables", "staging"]) {
    assert.match(said[name], /^buffer: |^limit: /, name);
  }
  assert.equal(said.held, 0, "a forward that the browser refused holds tables");
  for (const name of ["layer", "upload", "told"]) {
    assert.match(said[name], /^limit: .*no memory/, name);
  }
  assert.ok(found.values);
});

test("a device lost at any point is told, and nothing hangs", { skip, timeout: 120_000 }, async () => {
  const found = await page.evaluate(async () => {
    const { BcNorm, Tensor } = bcnorm;
    const create = (device) => BcNorm.create(device, { numChannels: 4, numGroups: 2 });
    const within = (promise) =>
      Promise.race([promise, new Promise((resolve) => setTimeout(resolve, 10_000, "hangs"))]);
    const calls = {
      create: ({ lost }) => create(lost),
      from: ({ lost }) => Tensor.from(lost, [2, 4, 3], new Float32Array(24)),
      zeros: ({ lost }) => Tensor.zeros(lost, [2, 4, 3]),
      read: ({ lost, x }) => x.read(lost),
      prepare: ({ norm, x }) => norm.prepare(x),
      forward: ({ norm, x }) => norm.forward({ x }),
      recordForward: ({ norm, lost, x }) => norm.recordForward(lost.createCommandEncoder(), { x }),
      backward: ({ norm, saved, x }) => norm.backward(saved, { gradY: x }),
      zeroGrad: ({ norm }) => norm.zeroGrad(),
      stateDict: ({ norm }) => norm.stateDict(),
      saveSafetensors: ({ norm }) => norm.saveSafetensors(),
      loadStateDict: ({ norm, state }) => norm.loadStateDict(state),
    };
    const found = {};
    for (const [name, call] of Object.entries(calls)) {
      for (const when of ["before", "as it begins", "in the middle"]) {
        const lost = await newDevice();
        const norm = await create(lost);
        const x = Tensor.zeros(lost, [2, 4, 3]);
        const state = await norm.stateDict();
        const { saved } = name === "backward" ? await norm.forward({ x }) : {};
        if (when !== "in the middle") {
          lost.destroy();
        }
        if (when === "before") {
          await lost.lost;
        }
        const running = within(thrown(() => call({ lost, norm, x, state, saved })));
        if (when === "in the middle") {
          // Once it waits for the first time.
          await undefined;
          lost.destroy();
        }
        found[`${name}, ${when}`] = (await running).split(":")[0];
        await lost.lost;
        norm.destroy();
        x.destroy();
      }
    }
    return found;
  });
  for (const [what, code] of Object.entries(found)) {
    // A call that is done before the loss is told may succeed; after it, none does.
    const allowed = what.endsWith("before") ? ["device-lost"] : ["device-lost", "nothing"];
    assert.ok(allowed.includes(code), `${what}: ${code}`);
  }
  for (const name of ["read", "stateDict", "saveSafetensors"]) {
    assert.equal(found[`${name}, as it begins`], "device-lost");
    assert.equal(found[`${name}, in the middle`], "device-lost");
  }
});

test("no buffer is left behind", { skip, timeout: 120_000 }, async () => {
  const found = await page.evaluate(async () => {
    const { BcNorm, Tensor } = bcnorm;
    const own = await newDevice();
    const live = counted(own);
    const labels = () => [...live.values()].sort().join(" ");
    const create = () => BcNorm.create(own, { numChannels: 4, numGroups: 2 });
    const g = (size) => Tensor.zeros(own, [2, 4, size]);
    const found = {};
    // Layers come and go.
    for (let i = 0; i < 30; i++) {
      const norm = await create();
      const x = g(3);
      const { y, saved } = await norm.forward({ x });
      const { gradX } = await norm.backward(saved, { gradY: y });
      [x, y, gradX].forEach((tensor) => tensor.destroy());
      norm.destroy();
    }
    found.layers = labels();
    // Shapes come and go: plans are evicted, tables grow.
    const norm = await create();
    const empty = live.size;
    const sizes = [];
    for (let i = 1; i <= 40; i++) {
      const x = g(60 * i);
      const { y, saved } = await norm.forward({ x });
      const { gradX } = await norm.backward(saved, { gradY: y });
      await norm.stateDict();
      [x, y, gradX].forEach((tensor) => tensor.destroy());
      sizes.push(live.size - empty);
    }
    found.sizes = [sizes[8], sizes[20], sizes[39]];
    norm.release();
    found.released = live.size - empty;
    // Into an encoder of the page's, what is not submitted yet stays whole.
    const encoder = own.createCommandEncoder();
    const tensors = [];
    own.pushErrorScope("validation");
    for (let i = 1; i <= 20; i++) {
      const x = g(60 * i);
      const { y, saved } = norm.recordForward(encoder, { x });
      const { gradX } = norm.recordBackward(encoder, saved, { gradY: y });
      tensors.push(x, y, gradX);
    }
    own.queue.submit([encoder.finish()]);
    found.refused = (await own.popErrorScope())?.message;
    tensors.forEach((tensor) => tensor.destroy());
    norm.destroy();
    found.end = labels();
    return found;
  });
  assert.equal(found.layers, "");
  const [some, more, most] = found.sizes;
  assert.equal(more, some, `${found.sizes} buffers`);
  assert.equal(most, some, `${found.sizes} buffers`);
  assert.equal(found.released, 0);
  assert.equal(found.refused, undefined);
  assert.equal(found.end, "");
});

test("the README's program runs, and leaves no buffer behind", { skip }, async () => {
  const readme = readFileSync(`${ROOT}web/README.md`, "utf8");
  const [, program] = /<script type="module">\n([^]*?)<\/script>/.exec(readme);
  const left = await page.evaluate(async (text) => {
    let live;
    const { requestDevice } = bcnorm;
    const made = {
      ...bcnorm,
      requestDevice: async () => {
        const own = await requestDevice();
        live = counted(own);
        return own;
      },
    };
    const body = text.replace(/import \{(.*)\} from "bcnorm";/, "const {$1} = bcnorm;");
    await new (async () => {}).constructor("bcnorm", "console", body)(made, { log() {} });
    return [...live.values()];
  }, program);
  assert.deepEqual(left, []);
  opened.failed();
});

test("the program of docs/calls.md runs", { skip }, async () => {
  const text = readFileSync(`${ROOT}docs/calls.md`, "utf8");
  const [, program] = /```js\n([^]*?)```/.exec(text);
  const found = await page.evaluate(async (program) => {
    const { BcNorm, Tensor } = bcnorm;
    const norm = await BcNorm.create(device, { numChannels: 2 });
    const x = Tensor.from(device, [2, 2, 3], Float32Array.from({ length: 12 }, (_, i) => i ** 2));
    const run = new (async () => {}).constructor("norm", "x", "gradY", `${program}; return [y, gradX];`);
    const [y, gradX] = await run(norm, x, x);
    const batches = String((await norm.stateDict())["bn.num_batches_tracked"]);
    return { y: [...(await y.read(device))], gradX: [...(await gradX.read(device))], batches, ...norm.memory() };
  }, program);
  assert.equal(found.batches, "1");
  assert.equal(found.saved, 0);
  assert.ok(found.y.concat(found.gradX).every(Number.isFinite));
  opened.failed();
});

test("what was prepared by a shape alone is not compiled again", { skip }, async () => {
  const compiled = await page.evaluate(async () => {
    const { BcNorm, Tensor } = bcnorm;
    const own = await newDevice();
    const norm = await BcNorm.create(own, { numChannels: 4, numGroups: 2, activation: "relu" });
    const counts = [0, 0];
    ["createComputePipelineAsync", "createComputePipeline"].forEach((name, i) => {
      const real = own[name].bind(own);
      own[name] = (descriptor) => {
        counts[i] += 1;
        return real(descriptor);
      };
    });
    const form = { dtype: "f16", layout: "channels_last" };
    await norm.prepare({ dims: [2, 4, 5], ...form }, { residual: true });
    const x = Tensor.zeros(own, [2, 4, 5], form);
    const encoder = own.createCommandEncoder();
    const { y, saved } = norm.recordForward(encoder, { x, residual: x });
    norm.recordBackward(encoder, saved, { gradY: y });
    own.queue.submit([encoder.finish()]);
    return counts;
  });
  assert.ok(compiled[0] >= 8, `${compiled[0]} kernels`);
  assert.equal(compiled[1], 0);
  opened.failed();
});

test("x at an offset, with a y of the layer's own", { skip }, async () => {
  const values = await page.evaluate(async () => {
    const { GroupNorm, Tensor } = bcnorm;
    const buffer = Tensor.from(device, [68], Float32Array.from({ length: 68 }, (_, i) => i ** 2)).buffer;
    const norm = await GroupNorm.create(device, { numChannels: 1, eps: 0 });
    const { y } = await norm.forward({ x: new Tensor(buffer, [1, 1, 4], { offset: 256 }) });
    const mean = [64, 65, 66, 67].reduce((sum, i) => sum + i ** 2 / 4, 0);
    const deviation = Math.sqrt([64, 65, 66, 67].reduce((sum, i) => sum + (i ** 2 - mean) ** 2 / 4, 0));
    return [[...(await y.read(device))], [64, 65, 66, 67].map((i) => (i ** 2 - mean) / deviation), y.offset];
  });
  const [got, expected, offset] = values;
  assert.equal(offset, 0);
  got.forEach((value, i) => assert.ok(Math.abs(value - expected[i]) < 1e-5, `${got}`));
});
