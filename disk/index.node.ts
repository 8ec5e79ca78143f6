/** What only Node has: files, names that images use for other images, and its own inflate. */
import { resolve } from "node:path";
import { useNodeCodecs } from "./codecs/host.node.ts";
import type { Disk } from "./disk.ts";
import { createQcow2, type Qcow2CreateOptions } from "./formats/qcow2/create.ts";
import { isHttp, isPath, nodeGate, openForReading, openForWriting } from "./gate.node.ts";
import { open, type OpenOptions } from "./open.ts";
import { FileStorage } from "./storage/file.node.ts";
import { run } from "./task.ts";

export { nodeGate, resolveName } from "./gate.node.ts";
export { type FileMode, type FileOptions, FileStorage } from "./storage/file.node.ts";

useNodeCodecs();

export interface OpenImageOptions extends OpenOptions {
  /** `false`: neither take nor respect locks. Default `true`. */
  readonly lock?: boolean | undefined;
}

/**
 * Opens the image in a file or behind a URL, with its whole backing chain: read-only, unless `readOnly` is false. What
 * the image names is opened as `nodeGate` does, if no other `gate` is given. Closing the disk closes all files.
 */
export async function openImage(name: string, options: OpenImageOptions = {}): Promise<Disk> {
  const { lock = true, readOnly = true, gate = nodeGate({ lock }) } = options;
  const storage = readOnly || isHttp(name) ? await openForReading(name, lock) : await openForWriting(name, lock);
  try {
    return await open(storage, { ...options, readOnly, gate });
  } catch (error) {
    await storage.close();
    throw error;
  }
}

/**
 * Makes a new qcow2 file at `path` that reads as the image `base` (a path or URL) until it is written; `base` itself is
 * never changed. Its size and format are recorded. Refuses as `exists` if there is a file already.
 */
export async function createOverlay(path: string, base: string, options: Partial<Qcow2CreateOptions> = {}): Promise<void> {
  const below = await openImage(base);
  const { size } = below, backingFormat = below.chain[0].format;
  await below.close();
  const file = FileStorage.open(path, { mode: "create" });
  try {
    await run(createQcow2(file, { size, ...options, backingFile: isPath(base) ? resolve(base) : base, backingFormat }));
  } finally {
    file.close();
  }
}
