// The package by its own names, as its exports have them, and what loads its modules.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { test } from "node:test";
import { BcNormError, init, readSafetensors, readStateDict, writeStateDict } from "bcnorm";
import { initCpu, runOnCpu } from "bcnorm/cpu";
import { attach } from "bcnorm/tfjs";

const bytes = (name) => readFileSync(createRequire(import.meta.url).resolve(name));
/** A module that is none of ours. */
const EMPTY = Uint8Array.of(0, 0x61, 0x73, 0x6d, 1, 0, 0, 0);

test("what is no planner is refused by a typed error, and the next call may try again", { timeout: 30_000 }, async () => {
  const server = createServer((_, response) => response.writeHead(404).end("no"));
  await new Promise((resolve) => server.listen(0, "localhost", resolve));
  const missing = `http://localhost:${server.address().port}/planner.wasm`;
  try {
    for (const load of [init, initCpu]) {
      const wrong = [
        [missing, /404/],
        [new URL(missing), /404/],
        [new Response("no", { status: 404 }), /404/],
        [new TextEncoder().encode("garbage"), /WebAssembly/],
        [new Response("garbage"), /WebAssembly/],
        [EMPTY, /another one/],
        [new WebAssembly.Module(EMPTY), /another one/],
        [42, /42/],
        [null, /./],
        ["no address", /no address/],
      ];
      for (const [source, says] of wrong) {
        await assert.rejects(load(source), (error) => {
          assert.ok(error instanceof BcNormError, `${source}: ${error}`);
          assert.equal(error.code, "not-initialized");
          assert.match(error.message, says);
          assert.match(error.message, /could not be loaded.*bcnorm_(planner|cpu)_bg\.wasm/);
          return true;
        });
      }
    }
  } finally {
    server.close();
  }
  assert.throws(() => runOnCpu("batch_norm", { numChannels: 1 }, {}), { code: "not-initialized" });
  await init(bytes("bcnorm/planner.wasm"));
  await initCpu(bytes("bcnorm/cpu.wasm"));
  // Once it is there, what is given matters no more.
  await init(EMPTY);
});

test("bcnorm/tfjs loads without tf.js, and says what it wants", async () => {
  await assert.rejects(attach({}), { code: "tfjs", message: /@tensorflow\/tfjs/ });
});

test("the CPU executor runs in Node", () => {
  const call = { dims: [1, 2, 2], training: false, x: Float32Array.of(1, 3, 5, 9) };
  const { y } = runOnCpu("instance_norm", { numChannels: 2, eps: 0 }, call);
  assert.deepEqual([...y], [-1, 1, -1, 1]);
  const wrong = [
    [["batch_norm", { numChannels: 2 }, undefined], "argument"],
    [["batch_norm", { numChannels: 2 }, {}], "argument"],
    [["batch_norm", { numChannels: 2 }, { ...call, x: [1, 3, 5, 9] }], "argument"],
    [["batch_norm", { numChannels: 2 }, { ...call, train: true }], "argument"],
    [["batch_norm", { numChannels: 2 }, { ...call, dims: 4 }], "argument"],
    [["batch_norm", { numChannels: 2 }, { ...call, dims: [1, -2, 2] }], "tensor"],
    [["batch_norm", { numChannels: 2 }, { ...call, state: { weight: [1, 1] } }], "state-dict"],
    [["batch_norm", undefined, call], "argument"],
    [["batch_norm", { numChannel: 2 }, call], "argument"],
    [["toString", { numChannels: 2 }, call], "norm"],
  ];
  for (const [args, code] of wrong) {
    assert.throws(() => runOnCpu(...args), (error) => {
      assert.ok(error instanceof BcNormError && error.code === code, `${error}, expected ${code}`);
      return true;
    });
  }
});

test("a file's entry may be called __proto__, and a name may be of any length in bytes", () => {
  const value = (number) => ({ dims: [1], values: Float32Array.of(number) });
  const dict = Object.fromEntries([["__proto__", value(1)], ["modèle.weight", value(2)], ["count", 3n]]);
  const file = writeStateDict(dict);
  assert.equal(new DataView(file.buffer).getBigUint64(0, true) % 8n, 0n);
  const read = readStateDict(file);
  assert.deepEqual(Object.keys(read).sort(), ["__proto__", "count", "modèle.weight"]);
  assert.deepEqual(Object.getOwnPropertyDescriptor(read, "__proto__").value, value(1));
  assert.deepEqual(read["modèle.weight"], value(2));
  assert.deepEqual(readStateDict(file, "modèle"), { weight: value(2) });
  assert.throws(() => readStateDict(file, "model"), { code: "state-dict", message: /no module "model".*modèle/ });
});

test("a file says of itself what it is told to", () => {
  const dict = { weight: { dims: [1], values: Float32Array.of(1) } };
  const metadata = { norm: "bcn-est", "für": "„2“" };
  const file = writeStateDict(dict, metadata);
  assert.deepEqual(readSafetensors(file).metadata, metadata);
  assert.deepEqual(readStateDict(file), dict);
  assert.deepEqual(writeStateDict(dict, {}), writeStateDict(dict));
  for (const wrong of [{ norm: 2 }, { norm: "\ud800" }]) {
    assert.throws(() => writeStateDict(dict, wrong), { code: "state-dict", message: /metadata's "norm" is .*expected text/ });
  }
});

test("what a file cannot hold is not written", () => {
  const wrong = {
    length: { weight: { dims: [3], values: new Float32Array(2) } },
    array: { weight: [1, 1] },
    floats: { weight: { dims: [1], values: [1] } },
    dims: { weight: { dims: 1, values: new Float32Array(1) } },
    undefined: { weight: undefined },
    count: { count: 1n << 63n },
    metadata: { __metadata__: 1n },
    surrogate: { "\ud800": 1n },
  };
  for (const [what, dict] of Object.entries(wrong)) {
    assert.throws(() => writeStateDict(dict), { code: "state-dict", message: /weight|count|__metadata__|ud800/ }, what);
  }
  assert.throws(() => writeStateDict(null), { code: "state-dict" });
  assert.throws(() => readStateDict("text"), { code: "argument" });
  assert.throws(() => readStateDict(new Uint8Array(9), 3), { code: "argument" });
});

test("a value that f32 does not hold is refused", () => {
  const header = JSON.stringify({ x: { dtype: "F64", shape: [2], data_offsets: [0, 16] } });
  const file = new Uint8Array(8 + header.length + 16);
  const view = new DataView(file.buffer);
  view.setBigUint64(0, BigInt(header.length), true);
  file.set(new TextEncoder().encode(header), 8);
  view.setFloat64(8 + header.length, Number.POSITIVE_INFINITY, true);
  assert.equal(readStateDict(file).x.values[0], Number.POSITIVE_INFINITY);
  view.setFloat64(16 + header.length, 1e300, true);
  assert.throws(() => readStateDict(file), { code: "state-dict", message: /x has 1e\+300/ });
});
