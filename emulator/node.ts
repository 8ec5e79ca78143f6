/** What only Node has. */
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";

/** The `v86.wasm` that belongs to the installed v86, compiled once. */
export function nodeWasm(): Promise<WebAssembly.Module> {
  return (compiled ??= load());
}

let compiled: Promise<WebAssembly.Module> | undefined;

async function load(): Promise<WebAssembly.Module> {
  const library = createRequire(import.meta.url).resolve("v86");
  return await WebAssembly.compile(new Uint8Array(await readFile(join(dirname(library), "v86.wasm"))));
}
