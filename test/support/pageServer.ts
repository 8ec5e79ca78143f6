import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { build } from "vite";

/** Answers a request and returns true, or leaves it to the next. */
export type Handler = (request: IncomingMessage, response: ServerResponse) => boolean;

export interface PageServer { readonly url: string; stop(): Promise<void> }

const TYPES: Readonly<Record<string, string>> = { html: "text/html", js: "text/javascript", wasm: "application/wasm", css: "text/css" };

/** An HTTP server on a free port of this machine: first `handle`, then `files` by their path ("/x.js"). */
export async function startPageServer(files: ReadonlyMap<string, string | Uint8Array>, handle: Handler = () => false): Promise<PageServer> {
  const server = createServer((request, response) => {
    if (handle(request, response)) return;
    const path = new URL(request.url ?? "/", "http://x").pathname;
    const body = files.get(path);
    if (body === undefined) return void response.writeHead(404).end();
    response.writeHead(200, { "Content-Type": TYPES[path.replace(/.*\./, "")] ?? "text/html" }).end(body);
  });
  await new Promise<void>((resolve) => { server.listen(0, "127.0.0.1", resolve); });
  const { port } = server.address() as AddressInfo;
  const stop = async (): Promise<void> => {
    server.closeAllConnections();
    await new Promise((resolve) => { server.close(resolve); });
  };
  return { url: `http://localhost:${port}`, stop };
}

/** `entry` and all it imports as browser modules, by path: the entry is "/<name>.js". */
export async function bundle(name: string, entry: string): Promise<Map<string, string | Uint8Array>> {
  const result = await build({
    configFile: false, logLevel: "warn", publicDir: false,
    build: {
      write: false, target: "esnext", minify: false, modulePreload: false,
      rolldownOptions: { input: { [name]: entry }, preserveEntrySignatures: "strict", output: { entryFileNames: "[name].js", chunkFileNames: "[name]-[hash].js" } },
    },
  });
  const files = new Map<string, string | Uint8Array>();
  for (const { output } of [result].flat().filter((one) => "output" in one)) {
    for (const file of output) files.set(`/${file.fileName}`, file.type === "chunk" ? file.code : file.source);
  }
  return files;
}
