// The example page for a file of tests: served while they run, and a browser. Screenshots go to target/screenshots.
import { mkdirSync } from "node:fs";
import { after, before } from "node:test";
import { launch, missing, ROOT, serve } from "./chromium.mjs";

export const SHOTS = `${ROOT}target/screenshots`;
export const DESKTOP = { viewport: { width: 1280, height: 900 }, colorScheme: "light" };
export const PHONE = { viewport: { width: 360, height: 780 }, colorScheme: "light", deviceScaleFactor: 2, hasTouch: true };

/** `browser` and `address` are there from the first test on. */
export function examplePage() {
  const site = {};
  let server;
  before(async () => {
    if (missing) return;
    mkdirSync(SHOTS, { recursive: true });
    // Under a path of its own, as a host may have it.
    server = await serve({ "/some/path/": `${ROOT}target/web` });
    site.address = `${server.address}/some/path/`;
    site.browser = await launch();
  });
  after(async () => {
    await site.browser?.close();
    server?.close();
  });
  return site;
}
