// The tests' own page, ready.
import { launch, open, ROOT, serve } from "./chromium.mjs";

/** Opens web/test/page beside the package and the golden vectors. */
export async function testPage() {
  const server = await serve({
    "/bcnorm/": `${ROOT}web/dist`,
    "/golden/": `${ROOT}tests/golden`,
    "/web/": `${ROOT}target/web`,
    "/": `${ROOT}web/test/page`,
  });
  const browser = await launch();
  const { page, errors } = await open(browser, `${server.address}/`);
  const failed = () => assertNone(errors);
  await Promise.race([
    page.waitForSelector("html[data-ready]", { state: "attached" }),
    page.waitForEvent("pageerror").then((error) => Promise.reject(error)),
  ]);
  return {
    page,
    failed,
    close: async () => {
      await browser.close();
      server.close();
    },
  };
}

function assertNone(errors) {
  if (errors.length > 0) {
    throw new Error(`the page said: ${errors.join("; ")}`);
  }
}
