import type { Disk } from "../../disk/disk.ts";
import { DiskError } from "../../disk/errors.ts";
import { Filter } from "../../disk/filters/filter.ts";
import type { Gate } from "../../disk/gate.ts";
import { open } from "../../disk/open.ts";
import { all, type Storage } from "../../disk/storage.ts";
import { BlobStorage } from "../../disk/storage/blob.web.ts";
import { HttpStorage } from "../../disk/storage/http.ts";
import type { Base, FileIdentity } from "../model/machine.ts";
import { refuseOthers, refuseUnbootable } from "./recognise.ts";

/** The image that a machine's overlay lies on, open for reading. */
export interface OpenBase {
  readonly base: Base;
  readonly storage: Storage;
  /** Of the base on the web; counts what was fetched. */
  readonly http: HttpStorage | undefined;
  readonly fingerprint: string;
  /** Opens what the base itself names as its backing file. */
  readonly gate: Gate;
}

export async function openBase(base: Base, files: readonly File[]): Promise<OpenBase> {
  if (base.kind !== "files") {
    const http = await HttpStorage.open(base.url);
    return await checked({ base, storage: http, http, gate: webGate });
  }
  const ordered = await topFirst(files);
  const [top] = ordered;
  if (!top) throw new DiskError("invalid-argument", "no file was picked");
  const found: Base = { kind: "files", files: ordered.map(({ name, size }) => ({ name, size })) };
  return await checked({ base: found, storage: new BlobStorage(top), http: undefined, gate: filesGate(ordered) });
}

async function checked(opened: Omit<OpenBase, "fingerprint">): Promise<OpenBase> {
  try {
    await refuseOthers(opened.storage);
    return { ...opened, fingerprint: await fingerprint(opened.storage) };
  } catch (error) {
    await opened.storage.close();
    throw error;
  }
}

/** What the machine has to know of its base: format and size. Refuses a disk that does not boot. The base stays open. */
export async function inspectBase({ storage, gate }: OpenBase): Promise<{ format: string; size: number }> {
  const disk = await open(new Kept(storage), { readOnly: true, gate });
  try {
    await refuseUnbootable(disk);
    return { format: disk.chain[0].format, size: disk.size };
  } finally {
    await disk.close();
  }
}

/** An overlay's own gate: its backing file is the base, whatever name it recorded; the rest is up to the base's gate. */
export function overlayGate({ storage, gate }: OpenBase, overlay: Storage): Gate {
  return { open: (name, from, readOnly) => (from === overlay ? new Kept(storage) : gate.open(name, from, readOnly)) };
}

/** A view that leaves the storage open when a disk that rests on it is closed. */
class Kept extends Filter {
  override close(): void {}
}

const SAMPLE = 64 << 10;

/** Tells one base from another by its length and three samples: an overlay over a base that changed is garbage. */
async function fingerprint(storage: Storage): Promise<string> {
  const middle = Math.floor(storage.size / 2 / SAMPLE) * SAMPLE;
  const offsets = [0, middle, Math.max(0, storage.size - SAMPLE)];
  const samples = new Uint8Array(offsets.length * SAMPLE);
  await all(offsets.map((offset, index) => storage.read(offset, samples.subarray(index * SAMPLE, (index + 1) * SAMPLE))));
  // Without https there is no `subtle`, and nothing is kept either.
  if (!("subtle" in crypto)) return `${storage.size}`;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", samples));
  return `${storage.size}-${[...digest.subarray(0, 16)].map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

/** An image from the web may name others of the web, as far as their servers let this page read them. */
const webGate: Gate = {
  open(name, from) {
    const url = URL.parse(name, from.name);
    if (!url || !/^https?:$/.test(url.protocol)) throw new DiskError("unsupported", `it names the backing file '${name}', which is not on the web: put it beside the image and record its plain name with qemu-img rebase -u`, { path: from.name });
    return HttpStorage.open(url.href);
  },
};

function filesGate(files: readonly File[]): Gate {
  return {
    open(name, from) {
      const wanted = baseName(name);
      const file = files.find((one) => one.name === wanted);
      if (!file) throw new DiskError("not-found", `it rests on the file '${wanted}': pick or drop both files together`, { path: from.name });
      return new BlobStorage(file);
    },
  };
}

/** Of several files, the one that no other names, as its backing file or as a part of it, comes first. */
async function topFirst(files: readonly File[]): Promise<File[]> {
  if (files.length < 2) return [...files];
  const named = new Set<string>(), failures = new Map<File, unknown>();
  for (const file of files) {
    try {
      for (const name of await namedBy(file, files)) named.add(name);
    } catch (error) {
      failures.set(file, error);
    }
  }
  const tops = files.filter(({ name }) => !named.has(name));
  const [top] = tops, broken = tops.find((file) => failures.has(file));
  // A part of an image is none by itself; only that nobody names it makes this a failure.
  if (broken) throw failures.get(broken);
  if (!top || tops.length > 1) {
    const names = tops.map(({ name }) => name).join(", ");
    throw new DiskError("invalid-argument", `these files do not form one chain of images (${names || "they name each other"}): pick one image, with its backing files if it has any`);
  }
  return [top, ...files.filter((file) => file !== top)];
}

async function namedBy(file: File, files: readonly File[]): Promise<string[]> {
  const disk: Disk = await open(new BlobStorage(file), { backing: false, readOnly: true, gate: filesGate(files) });
  const { backing, files: parts = [] } = disk.chain[0];
  await disk.close();
  return [...backing ? [baseName(backing.file)] : [], ...parts.map(({ name }) => baseName(name))];
}

/** Whether `files` are the ones that were recorded: a browser forgets files when the page is left. */
export function refuseOtherFiles(recorded: readonly FileIdentity[], files: readonly FileIdentity[]): void {
  const wrong = recorded.find(({ name, size }) => !files.some((file) => file.name === name && file.size === size));
  if (!wrong) return;
  const sameName = files.find(({ name }) => name === wrong.name);
  const how = sameName ? `has ${sameName.size} bytes now and had ${wrong.size}: it was changed` : "was not among the files picked";
  throw new DiskError("invalid-argument", `the kept changes belong to '${wrong.name}' (${wrong.size} bytes), which ${how}. Pick that very file again`);
}

function baseName(name: string): string {
  return name.split(/[/\\]/).pop() ?? name;
}
