// A headless Chromium with WebGPU on SwiftShader, and the folders that its pages come from.
import { chromium } from "playwright-core";
import { existsSync } from "node:fs";
import { createServer } from "node:http";
import { fileURLToPath } from "node:url";
import sirv from "sirv";

/** The repository. */
export const ROOT = fileURLToPath(new URL("../..", import.meta.url));

/** Where Debian's package has it, or what CHROMIUM says. */
export const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";

/** Why the tests in a browser cannot run here; undefined where they can. */
export const missing = existsSync(CHROMIUM)
  ? undefined
  : `there is no Chromium at ${CHROMIUM}: install Debian's chromium, or set CHROMIUM`;

/** Serves folders by prefix from localhost, a secure context. */
export async function serve(folders) {
  const handlers = Object.entries(folders).map(([prefix, folder]) => [
    prefix,
    sirv(folder, { dev: true }),
  ]);
  const server = createServer((request, response) => {
    const found = handlers.find(([prefix]) => request.url.startsWith(prefix));
    const notFound = () => response.writeHead(404).end();
    if (found === undefined) {
      notFound();
      return;
    }
    const [prefix, handler] = found;
    request.url = `/${request.url.slice(prefix.length)}`;
    handler(request, response, notFound);
  });
  await new Promise((resolve) => server.listen(0, "localhost", resolve));
  return { address: `http://localhost:${server.address().port}`, close: () => server.close() };
}

/** The flags are Chromium's for WebGPU without a GPU. */
export async function launch() {
  return chromium.launch({
    executablePath: CHROMIUM,
    args: ["--no-sandbox", "--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"],
  });
}

/** A page whose errors fail whoever closes it. */
export async function open(browser, address, options = {}) {
  const page = await browser.newPage(options);
  const errors = [];
  page.on("pageerror", (error) => errors.push(String(error)));
  page.on("console", (message) => {
    if (message.type() === "error") {
      errors.push(message.text());
    }
  });
  await page.goto(address);
  return { page, errors };
}
