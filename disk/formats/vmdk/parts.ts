import { DiskError } from "../../errors.ts";
import type { Gate } from "../../gate.ts";
import type { BackingReference } from "../../image.ts";
import type { Storage } from "../../storage.ts";
import { call, close, type Task } from "../../task.ts";
import type { ExtentLine, Identity } from "./descriptor.ts";
import { readSeSparseHeader, type SeSparseHeader } from "./seSparse.ts";
import { corrupt, readSparseHeader, type SparseHeader, unsupported } from "./header.ts";

/** QEMU has no bound; each is an open file. */
const MAX_PARTS = 4096;
/** Disks that stand on devices. */
const DEVICES = new Set(["fulldevice", "partitioneddevice", "vmfsraw", "vmfsrdm", "vmfsrdmp", "vmfsrawdevicemap", "vmfspassthroughrawdevicemap"]);

/** One extent of an image: its file, its place on the guest disk and, where it is sparse, its header. Bytes. */
export interface Part {
  /** As the descriptor names it; "" for the only extent of an image in one file. */
  readonly type: string;
  readonly storage: Storage;
  readonly start: number;
  readonly length: number;
  /** Where the guest's bytes begin in the file; `undefined`: it has none, and reads as zeros. */
  readonly offset: number | undefined;
  readonly header: SparseHeader | undefined;
  /** Of a seSparse extent, which can only be read. */
  readonly seSparse?: SeSparseHeader;
  /** The descriptor lets nobody write. */
  readonly fixed: boolean;
}

/** Opens every extent of the image in `file`. On a failure it closes what it opened. */
export function* openParts(file: Storage, { descriptor, header }: Identity, gate: Gate, readOnly: boolean): Task<Part[]> {
  if (header !== undefined) return [{ type: "", storage: file, start: 0, length: header.capacity, offset: undefined, header, fixed: false }];
  if (descriptor === undefined) return [];
  if (DEVICES.has(descriptor.createType.toLowerCase())) throw unsupported(file, `a VMDK of type ${descriptor.createType} stands on a device; only files are possible`);
  if (descriptor.extents.length > MAX_PARTS) throw unsupported(file, `a VMDK of ${descriptor.extents.length} extents; disk86's bound is ${MAX_PARTS}`);
  const parts: Part[] = [], opened = new Map<string, Storage>();
  try {
    let start = 0;
    for (const line of descriptor.extents) {
      parts.push(yield* openPart(file, line, start, opened, (name) => gate.open(name, file, readOnly)));
      start += line.size;
    }
    if (!Number.isSafeInteger(start)) throw unsupported(file, "a disk larger than disk86 can address (8 PiB)");
    if (!readOnly) refuseShared(file, parts);
  } catch (error) {
    yield* closeFiles([...opened.values()]);
    throw error;
  }
  return parts;
}

function* openPart(file: Storage, line: ExtentLine, start: number, opened: Map<string, Storage>, open: (name: string) => Storage | Promise<Storage>): Task<Part> {
  const part = { type: line.type, start, length: line.size, storage: file, header: undefined, offset: undefined, fixed: line.access !== "RW" };
  if (line.access === "NOACCESS") throw unsupported(file, `an extent that must not be read: ${line.text}`);
  if (line.type === "ZERO") return { ...part, fixed: true };
  const flat = isFlat(line, file), name = line.file ?? "";
  let storage = opened.get(name);
  if (storage === undefined) opened.set(name, storage = yield* call(() => open(name)));
  if (storage.name === file.name) throw corrupt(file, `the descriptor is to be an extent, too: ${line.text}`);
  if (flat) return { ...part, storage, offset: line.offset ?? 0 };
  try {
    if (line.type === "SESPARSE") return { ...part, storage, fixed: true, seSparse: largeEnough(storage, line, yield* readSeSparseHeader(storage)) };
    return { ...part, storage, header: largeEnough(storage, line, yield* readSparseHeader(storage)) };
  } catch (error) {
    throw DiskError.within(error, { path: storage.name });
  }
}

/** Whether the extent's file is the guest's bytes as they are; otherwise it is sparse. */
function isFlat({ type, file: name, offset, text }: ExtentLine, file: Storage): boolean {
  const sparse = type === "SPARSE" || type === "VMFSSPARSE" || type === "SESPARSE", flat = type === "FLAT" || type === "VMFS";
  if (!sparse && !flat) throw unsupported(file, `an extent of type ${type}: ${text}`);
  // QEMU's rule: FLAT says where in its file it begins, the others do not.
  if (name === undefined || (type === "FLAT") !== (offset !== undefined)) throw corrupt(file, `Invalid extent line: ${text}`);
  return flat;
}

function largeEnough<H extends { readonly capacity: number }>(storage: Storage, line: ExtentLine, header: H): H {
  if (header.capacity < line.size) throw corrupt(storage, `the extent has ${header.capacity} bytes, and should have ${line.size}`);
  return header;
}

/** Guest bytes that stand in two places at once must not be written. */
function refuseShared(file: Storage, parts: readonly Part[]): void {
  const ends = new Map<Storage, number>();
  const ordered = parts.filter(({ storage }) => storage !== file).toSorted((a, b) => (a.offset ?? 0) - (b.offset ?? 0));
  for (const { storage, offset, length } of ordered) {
    if ((offset ?? 0) < (ends.get(storage) ?? 0)) throw corrupt(file, `two extents stand in the same place of ${storage.name}; the image can only be read`);
    ends.set(storage, offset === undefined ? Infinity : offset + length);
  }
}

/** The parent: as the descriptor names it, or a COWD that has none. It can only be a VMDK. */
export function backingOf({ descriptor, header }: Identity): BackingReference | undefined {
  const parent = descriptor === undefined ? header?.parent : descriptor.parent;
  return parent === undefined || parent === "" ? undefined : { file: parent, format: "vmdk" };
}

/** The files of the extents, each once, but for the image's own. */
export function filesOf(file: Storage, parts: readonly Part[]): Storage[] {
  return [...new Set(parts.map(({ storage }) => storage))].filter((storage) => storage !== file);
}

/** Closes all, and then fails with the first failure. */
export function* closeFiles(files: readonly Storage[]): Task {
  const failures: unknown[] = [];
  for (const file of files) {
    try {
      yield close(file);
    } catch (error) {
      failures.push(error);
    }
  }
  if (failures.length > 0) throw failures[0];
}
