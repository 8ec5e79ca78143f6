import { spawn } from "node:child_process";
import { createReadStream, existsSync, statSync } from "node:fs";
import type { IncomingMessage, ServerResponse } from "node:http";
import { join } from "node:path";
import { build } from "vite";
import { guests } from "../../guests/catalog.ts";
import { guestFile } from "../support/guests.ts";
import { startPageServer } from "../support/pageServer.ts";

/** Where the page is. */
export interface PageServer { readonly url: string; stop(): Promise<void> }

const ROOT = join(import.meta.dirname, "../..");
const START = 180_000;

/** `npm start`, as a user does it. */
export async function npmStart(): Promise<PageServer> {
  const port = 20_000 + (process.pid % 20_000);
  const npm = spawn("npm", ["start", "--", "--port", String(port)], { cwd: ROOT, detached: true, stdio: ["ignore", "pipe", "pipe"] });
  const ended = new Promise<void>((resolve) => { npm.on("exit", () => resolve()); });
  const stop = async (): Promise<void> => {
    if (npm.exitCode === null && npm.pid !== undefined) process.kill(-npm.pid, "SIGINT");
    await ended;
  };
  const url = await new Promise<string>((resolve, reject) => {
    let said = "";
    const listen = (bytes: Buffer): void => {
      said += bytes.toString();
      const address = /the page is at (\S+)/.exec(said)?.[1];
      if (address !== undefined) resolve(address);
    };
    npm.stdout.on("data", listen);
    npm.stderr.on("data", listen);
    npm.on("exit", (code) => reject(new Error(`npm start ended with ${code}: ${said}`)));
    setTimeout(() => reject(new Error(`npm start has no page after ${START / 1000} s: ${said}`)), START).unref();
  });
  return { url, stop };
}

const TYPES: Readonly<Record<string, string>> = { html: "text/html", js: "text/javascript", css: "text/css", wasm: "application/wasm", json: "application/json" };

/** The built page as any static host serves it, built into `folder`; guests/out beside it while `hasGuests` says so. */
export async function staticPage(folder: string, path = "/", hasGuests = (): boolean => true): Promise<PageServer> {
  await build({ configFile: join(ROOT, "vite.config.ts"), root: join(ROOT, "web"), logLevel: "error", build: { outDir: folder, emptyOutDir: true } });
  const server = await startPageServer(new Map(), (request, response) => {
    const { pathname } = new URL(request.url ?? "/", "http://x");
    if (!pathname.startsWith(path)) return false;
    const name = pathname.slice(path.length) || "index.html", guest = /^guests\/(.*)/.exec(name)?.[1];
    if (guest !== undefined && !hasGuests()) return false;
    if (guest === "catalog.json") {
      response.writeHead(200, { "Content-Type": "application/json" }).end(JSON.stringify(guests.map(({ name }) => name)));
      return true;
    }
    return sendFile(guest === undefined ? join(folder, name) : guestFile(guest), request, response);
  });
  return { url: server.url + path, stop: () => server.stop() };
}

function sendFile(file: string, { headers, method }: IncomingMessage, response: ServerResponse): boolean {
  if (!existsSync(file)) return false;
  const { size } = statSync(file), [, first = "0", last = String(size - 1)] = /^bytes=(\d+)-(\d+)$/.exec(headers.range ?? "") ?? [];
  const start = Number(first), end = Math.min(Number(last), size - 1), range = headers.range === undefined ? {} : { "Content-Range": `bytes ${start}-${end}/${size}` };
  response.writeHead(headers.range === undefined ? 200 : 206, { ...range, "Content-Type": TYPES[file.replace(/.*\./, "")] ?? "application/octet-stream", "Content-Length": end - start + 1 });
  if (method === "HEAD") response.end();
  else createReadStream(file, { start, end }).pipe(response);
  return true;
}
