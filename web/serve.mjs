// Serves a folder on localhost, and prints the address: node web/serve.mjs FOLDER
import { createServer } from "node:http";
import { argv, env, exit } from "node:process";
import sirv from "sirv";

const [, , folder] = argv;
if (folder === undefined) {
  console.error("usage: node web/serve.mjs FOLDER");
  exit(2);
}
const handler = sirv(folder, { dev: true });
const server = createServer((request, response) =>
  handler(request, response, () => response.writeHead(404).end("not found")),
);
// Localhost is a secure context, which WebGPU asks for. The port is the first free one from here on.
let port = Number(env.PORT ?? 8080);
server.on("error", (error) => {
  if (error.code === "EADDRINUSE" && env.PORT === undefined && port < 8100) {
    port += 1;
    server.listen(port, "localhost");
    return;
  }
  console.error(`cannot serve at port ${port}: ${error.message}`);
  exit(1);
});
server.on("listening", () => console.log(`http://localhost:${port} (Ctrl+C ends it)`));
server.listen(port, "localhost");
