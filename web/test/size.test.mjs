// What a page downloads.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { gzipSync } from "node:zlib";
import { ROOT } from "./chromium.mjs";

test("the planner is small", () => {
  const wasm = readFileSync(`${ROOT}web/dist/planner/bcnorm_planner_bg.wasm`);
  const zipped = gzipSync(wasm, { level: 9 });
  console.log(`${wasm.byteLength} bytes, gzipped ${zipped.byteLength}`);
  assert.ok(wasm.byteLength <= 260_000, `${wasm.byteLength} bytes`);
  assert.ok(zipped.byteLength < 100_000, `gzipped ${zipped.byteLength} bytes`);
});
