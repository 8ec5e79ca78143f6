import { DiskError } from "../../disk/errors.ts";
import type { Storage } from "../../disk/storage.ts";
import { OpfsStorage } from "../../disk/storage/opfs.web.ts";
import { encodeText } from "../../disk/bytes/text.ts";
import type { KeptMachine, MachineRecord, Settings } from "../model/machine.ts";
import { lockedMachines } from "./lock.ts";

/*
 * machines/<id>/machine.json   the record: first to be written, never changed
 * machines/<id>/overlay.qcow2  the changes
 * machines/<id>/settings.json  memory and bus of the last boot; may be missing
 * downloads/                   copies being downloaded
 */
const MACHINES = "machines";
const path = (id: string, file: string): string => `${MACHINES}/${id}/${file}`;
export const overlayPath = (id: string): string => path(id, "overlay.qcow2");

/** The header of an overlay is written last: a smaller file is of a creation that was interrupted, and holds nothing. */
const SMALLEST_OVERLAY = 512;
const DEFAULTS: Settings = { memory: 128, bus: "virtio" };

/** Whether this browser offers OPFS at all; private modes and pages without https refuse in several ways. */
export async function opfsWorks(): Promise<boolean> {
  try {
    const probe = await OpfsStorage.open("probe", "replace");
    try {
      probe.write(0, new Uint8Array(1));
    } finally {
      probe.close();
    }
    return true;
  } catch (error) {
    return error instanceof DiskError && error.kind === "locked";
  }
}

export async function listKept(): Promise<KeptMachine[]> {
  const machines = await folder(MACHINES);
  if (!machines) return [];
  const isLocked = await lockedMachines();
  const kept: KeptMachine[] = [];
  for await (const id of machines.keys()) {
    const record = await readRecord(id);
    if (record) kept.push({ ...record, openElsewhere: isLocked(id) });
  }
  return kept.sort((a, b) => b.changed - a.changed);
}

/** A kept machine, or `undefined` where none is. The overlay must be really there: half a creation does not count. */
export async function readRecord(id: string): Promise<Omit<KeptMachine, "openElsewhere"> | undefined> {
  const own = await folder(MACHINES, id);
  const overlay = own && (await file(own, "overlay.qcow2"));
  if (!own || !overlay || overlay.size < SMALLEST_OVERLAY) return undefined;
  const record = await readJson<MachineRecord>(own, "machine.json");
  if (record?.version !== 1) throw new DiskError("corrupt", "the description of this machine cannot be read; its changes are untouched", { path: path(id, "machine.json") });
  const settings = (await readJson<Settings>(own, "settings.json")) ?? DEFAULTS;
  return { record, settings, bytes: overlay.size, changed: overlay.lastModified };
}

export async function writeRecord(record: MachineRecord): Promise<void> {
  await writeJson(path(record.id, "machine.json"), record);
}

export async function writeSettings(id: string, settings: Settings): Promise<void> {
  await writeJson(path(id, "settings.json"), settings);
}

/** The caller holds the machine's lock. */
export async function removeMachine(id: string): Promise<void> {
  const machines = await folder(MACHINES);
  await machines?.removeEntry(id, { recursive: true }).catch((error: unknown) => {
    if (!isMissing(error)) throw new DiskError("io", `could not be deleted (${String(error)}): close the other tabs of this page and try again`, { path: id, operation: "delete" }, error);
  });
}

const COPY = 4 << 20;

/** A copy of `source` as a file of its own, made without a pause in between if `source` answers at once. */
export async function copyForDownload(source: Storage, name: string): Promise<File> {
  const target = `downloads/${Date.now()}-${name}`;
  const copy = await OpfsStorage.open(target, "replace");
  try {
    const buffer = new Uint8Array(Math.min(COPY, source.size));
    for (let at = 0; at < source.size; at += buffer.length) {
      const part = buffer.subarray(0, Math.min(buffer.length, source.size - at));
      const pending = source.read(at, part);
      if (pending) await pending;
      copy.write(at, part);
    }
    copy.flush();
  } finally {
    copy.close();
  }
  const downloads = await folder("downloads");
  const made = downloads && (await file(downloads, target.slice("downloads/".length)));
  if (!made) throw new DiskError("io", "the copy for the download is gone: try again", { path: target });
  return made;
}

/** Copies of earlier visits: nobody downloads them any more. */
export async function removeOldDownloads(): Promise<void> {
  const downloads = await folder("downloads");
  if (!downloads) return;
  const old: string[] = [];
  for await (const name of downloads.keys()) if (Number.parseInt(name, 10) < Date.now() - 3_600_000) old.push(name);
  for (const name of old) await downloads.removeEntry(name).catch(() => undefined);
}

async function folder(...names: readonly string[]): Promise<FileSystemDirectoryHandle | undefined> {
  try {
    let handle = await navigator.storage.getDirectory();
    for (const name of names) handle = await handle.getDirectoryHandle(name);
    return handle;
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw new DiskError("io", `the browser's storage cannot be read (${String(error)})`, { path: names.join("/"), operation: "open" }, error);
  }
}

async function file(parent: FileSystemDirectoryHandle, name: string): Promise<File | undefined> {
  try {
    return await (await parent.getFileHandle(name)).getFile();
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw new DiskError("io", `cannot be read (${String(error)})`, { path: `${parent.name}/${name}`, operation: "open" }, error);
  }
}

async function readJson<T>(parent: FileSystemDirectoryHandle, name: string): Promise<T | undefined> {
  const found = await file(parent, name);
  try {
    return found && (JSON.parse(await found.text()) as T);
  } catch {
    return undefined;
  }
}

async function writeJson(target: string, value: unknown): Promise<void> {
  const storage = await OpfsStorage.open(target, "replace");
  try {
    storage.write(0, encodeText(JSON.stringify(value)));
    storage.flush();
  } finally {
    storage.close();
  }
}

function isMissing(error: unknown): boolean {
  return error instanceof DOMException && (error.name === "NotFoundError" || error.name === "TypeMismatchError");
}
