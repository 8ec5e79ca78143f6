import { existsSync, realpathSync, statSync } from "node:fs";
import { dirname, relative, resolve } from "node:path";
import type { Disk } from "../../disk/disk.ts";
import { DiskError } from "../../disk/errors.ts";
import { createQcow2 } from "../../disk/formats/qcow2/create.ts";
import { fullName, isHttp, isPath, nodeGate, resolveName } from "../../disk/gate.node.ts";
import { isPlainName } from "../../disk/names/paths.node.ts";
import { open } from "../../disk/open.ts";
import type { Storage } from "../../disk/storage.ts";
import { PagedStorage } from "../../disk/storage/pages.ts";
import { run } from "../../disk/task.ts";
import { type AccessOptions, type ImageFile, openImageFile } from "../../disk/tools/images.ts";
import { makeFile } from "../../disk/tools/newFile.ts";
import { formatSize } from "../../disk/tools/sizes.ts";
import { CommandError } from "../../disk/tools/verb.ts";

/** Where a machine's changes go. */
export type Changes =
  | { readonly to: "memory"; readonly limit: number }
  | { readonly to: "overlay"; readonly file: string }
  | { readonly to: "image" };

/** A machine's disk, and what to tell of it before and after. */
export interface BootDisk { readonly disk: Disk; readonly before: string; readonly after: string }

const READ: AccessOptions = { lock: true };

/** Opens IMAGE so that its changes go where they should. The image itself is written only for `{ to: "image" }`. */
export async function openBootDisk(image: string, format: string | undefined, changes: Changes): Promise<BootDisk> {
  switch (changes.to) {
    case "memory": return {
      disk: await withMemory(image, format, changes.limit),
      before: `changes are temporary (in memory, at most ${formatSize(changes.limit)})`,
      after: "the changes were temporary and are gone: --overlay FILE keeps them",
    };
    case "overlay": {
      const doubt = existsSync(changes.file) && isNewer(image, changes.file) ? ` - BEWARE: ${image} is newer than it; if its contents have changed, the two no longer belong together, and a new overlay is needed` : "";
      return { disk: await withOverlay(image, format, changes.file), before: `changes go to ${changes.file}${doubt}`, after: `the changes are in ${changes.file}, above ${image}` };
    }
    case "image": return { disk: await writable(image, format), before: "changes go to the image itself", after: `the changes are in ${image}` };
  }
}

/** Temporary changes: a qcow2 overlay in memory, whose format for the image below is fixed once and never guessed again. */
async function withMemory(image: string, format: string | undefined, limit: number): Promise<Disk> {
  const base = await openImageFile(image, format, READ);
  try {
    const size = await guestSize(base), overlay = new PagedStorage(limit, "the temporary overlay"), below = nodeGate();
    await run(createQcow2(overlay, { size, backingFile: image, backingFormat: base.format.name }));
    return await open(overlay, { format: "qcow2", gate: below, backing: () => ({ ...base, format: base.format.name }) });
  } catch (error) {
    await base.storage.close();
    throw error;
  }
}

/** What the guest sees of an image alone; the image is only looked at, and its storage stays open. */
async function guestSize({ storage, format }: ImageFile): Promise<number> {
  const disk = await open(storage, { format: format.name, readOnly: true, backing: false });
  return disk.size;
}

async function withOverlay(image: string, format: string | undefined, file: string): Promise<Disk> {
  if (isHttp(file)) throw new CommandError("--overlay takes a file: changes cannot be stored on the web");
  await (existsSync(file) ? checkOverlay(image, format, file) : makeOverlay(image, format, file));
  const { storage } = await openImageFile(file, "qcow2", { lock: true, writable: true });
  return await openOrClose(storage, "qcow2");
}

async function makeOverlay(image: string, format: string | undefined, file: string): Promise<void> {
  const base = await openImageFile(image, format, READ);
  try {
    const size = await guestSize(base);
    await makeFile(file, (into) => createQcow2(into, { size, backingFile: nameFrom(file, image), backingFormat: base.format.name }));
  } finally {
    await base.storage.close();
  }
}

/** How the overlay names its base: relative to its own folder, so that both may move together. */
function nameFrom(overlay: string, image: string): string {
  if (!isPath(image)) return image;
  const name = relative(realpathSync(dirname(resolve(overlay))), resolve(image));
  return name.includes(":") && !name.startsWith(".") ? `./${name}` : name;
}

/** An overlay that is there must be one of this very image. */
async function checkOverlay(image: string, format: string | undefined, file: string): Promise<void> {
  const { storage, format: found } = await openImageFile(file, undefined, READ);
  try {
    const { backing } = await run(found.info(storage));
    if (found.name !== "qcow2" || backing === undefined) throw new CommandError(`${file} is no overlay: it is a ${found.name} image that stands alone; name another file with --overlay`);
    const base = isPlainName(fullName(backing.file, file)) ? resolveName(backing.file, file) : backing.file;
    if (!isSameFile(base, image)) throw new CommandError(`${file} is an overlay on ${base}, not on ${image}: boot that one with it, or name another file with --overlay`);
    if (format !== undefined && backing.format !== undefined && backing.format !== format) throw new CommandError(`${file} records that ${image} is of format ${backing.format}, not ${format}: leave -f out`);
  } finally {
    await storage.close();
  }
}

/** A base that changes under its overlay ruins it. Only the clock can tell: a copy that kept no times raises the same doubt. */
function isNewer(image: string, overlay: string): boolean {
  return isPath(image) && (statSync(image, { throwIfNoEntry: false })?.mtimeMs ?? 0) > statSync(overlay).mtimeMs;
}

function isSameFile(a: string, b: string): boolean {
  if (!isPath(a) || !isPath(b)) return a === b;
  const [one, other] = [a, b].map((path) => statSync(path, { throwIfNoEntry: false }));
  return one !== undefined && other !== undefined && one.dev === other.dev && one.ino === other.ino;
}

async function writable(image: string, format: string | undefined): Promise<Disk> {
  const { storage, format: found, guessed } = await openImageFile(image, format, { lock: true, writable: true });
  if (guessed && found.name === "raw") {
    await storage.close();
    // Its guest could write another format's header, and next time that would be believed.
    throw new CommandError(`${image} looks like a raw image, but nothing records that: say -f raw to let the guest write to it`);
  }
  return await openOrClose(storage, found.name);
}

async function openOrClose(storage: Storage, format: string): Promise<Disk> {
  try {
    return await open(storage, { format, gate: nodeGate() });
  } catch (error) {
    await storage.close();
    throw DiskError.within(error, { path: storage.name });
  }
}
