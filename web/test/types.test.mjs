// The declarations, checked by tsc as a program's would be.
import { spawnSync } from "node:child_process";
import assert from "node:assert/strict";
import { test } from "node:test";
import { ROOT } from "./chromium.mjs";

for (const project of ["tsconfig.json", "tsconfig.tfjs.json"]) {
  test(`strict programs compile, and their mistakes do not (${project})`, () => {
    const tsc = `${ROOT}web/node_modules/typescript/bin/tsc`;
    const { status, stdout } = spawnSync(process.execPath, [tsc, "-p", `${ROOT}web/test/${project}`], { encoding: "utf8" });
    assert.equal(status, 0, stdout);
  });
}
