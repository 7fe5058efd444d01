// The declarations, checked by tsc as a program's would be.
import { spawnSync } from "node:child_process";
import assert from "node:assert/strict";
import { test } from "node:test";
import { ROOT } from "./chromium.mjs";

test("a strict program compiles, and its mistakes do not", () => {
  const tsc = `${ROOT}web/node_modules/typescript/bin/tsc`;
  const { status, stdout } = spawnSync(process.execPath, [tsc, "-p", `${ROOT}web/test`], { encoding: "utf8" });
  assert.equal(status, 0, stdout);
});
