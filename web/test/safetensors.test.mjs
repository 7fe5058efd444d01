// The files that the format's own library accepts, and those that it refuses (tests/state.rs reads the same list).
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { BcNormError, readStateDict } from "bcnorm";
import { readHeader } from "../dist/safetensors.js";
import { ROOT } from "./chromium.mjs";

/** The bytes of a header: %XX is one, #N a list in N lists. */
function headerOf(text) {
  const whole = text.replace(/#(\d+)/g, (_, depth) => "[".repeat(depth) + "]".repeat(depth));
  const parts = whole.split(/%([0-9A-F]{2})/).map((part, i) => (i % 2 ? [parseInt(part, 16)] : [...Buffer.from(part)]));
  return Uint8Array.from(parts.flat());
}

test("the same files are accepted and refused as by the format's own library", () => {
  const lines = readFileSync(`${ROOT}tests/safetensors.txt`, "utf8").split("\n");
  const cases = lines.filter((line) => line !== "" && !line.startsWith("#"));
  const wrong = [];
  for (const line of cases) {
    const [verdict, what, length, data, ...rest] = line.split(" | ");
    const header = headerOf(rest.join(" | "));
    const file = new Uint8Array(8 + header.length + Number(data));
    new DataView(file.buffer).setBigUint64(0, BigInt(length === "-" ? header.length : length), true);
    file.set(header, 8);
    let found;
    try {
      found = readHeader(file).entries.map(([name]) => name).sort().join(" ") || "-";
    } catch (error) {
      assert.ok(error instanceof BcNormError && error.code === "state-dict", `${what}: ${error}`);
      // What reads values says the same.
      assert.throws(() => readStateDict(file), { code: "state-dict" }, what);
      found = "refused";
    }
    if (found !== verdict) {
      wrong.push(`${what}: ${found}, expected ${verdict}`);
    }
  }
  assert.deepEqual(wrong, []);
  assert.ok(cases.length > 80, `${cases.length} files`);
});
