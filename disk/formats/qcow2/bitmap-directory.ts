import { flags64, Struct, u16, u32, u8 } from "../../bytes/struct.ts";
import { DiskError } from "../../errors.ts";
import type { Storage } from "../../storage.ts";
import { read, type Task } from "../../task.ts";
import { AUTOCLEAR } from "./features.ts";
import type { Qcow2Header } from "./header.ts";

/** docs/interop/qcow2.rst, "Bitmap directory"; extra data and the name follow. */
const DirectoryEntry = new Struct({ tableOffset: flags64, tableSize: u32, flags: u32, type: u8, granularityBits: u8, nameLength: u16, extraLength: u32 });
const FLAGS_AT = DirectoryEntry.offsetOf("flags");
export const BITMAP_FLAG = { inUse: 1, auto: 2 } as const;
const KNOWN_FLAGS = 3, DIRTY_TRACKING = 1;

/** QEMU's bounds (block/qcow2-bitmap.c). `bytes`: of one bitmap's data. */
export const BITMAP_LIMITS = { bitmaps: 65535, directory: 1024 * 65535, name: 1023, granularity: { min: 9, max: 31 }, bytes: 0x2000_0000 } as const;

/** One bitmap as the directory tells of it. */
export interface BitmapEntry {
  readonly name: Uint8Array;
  /** Bytes into the file, and clusters of data: entries. */
  readonly tableOffset: number;
  readonly tableSize: number;
  readonly flags: number;
  readonly granularityBits: number;
  /** Where in the directory its flags stand. */
  readonly flagsAt: number;
}

/** Where the directory is; `undefined`: there is none, or nobody vouches for it (a writer that knew no bitmaps cleared its bit). */
export function bitmapDirectory(header: Qcow2Header): { readonly offset: number; readonly size: number; readonly count: number } | undefined {
  if (header.bitmapDirectory === undefined || (header.autoclear & AUTOCLEAR.bitmaps) === 0n) return undefined;
  return { ...header.bitmapDirectory, count: header.bitmapCount };
}

/** The directory, checked. Throws `corrupt` where QEMU refuses it. */
export function* readBitmapDirectory(file: Storage, header: Qcow2Header): Task<BitmapEntry[]> {
  const place = bitmapDirectory(header);
  if (place === undefined) return [];
  const corrupt = (what: string, at = 0): DiskError => new DiskError("corrupt", what, { path: file.name, offset: place.offset + at, format: "qcow2" });
  const { offset, size, count } = place;
  const possible = offset !== 0 && offset % header.clusterSize === 0 && size > 0 && size <= BITMAP_LIMITS.directory && count <= BITMAP_LIMITS.bitmaps;
  if (!possible || offset + size > Math.ceil(file.size / header.clusterSize) * header.clusterSize) throw corrupt("the bitmap directory does not fit the file");
  const bytes = new Uint8Array(size), entries: BitmapEntry[] = [];
  yield read(file, offset, bytes);
  let at = 0;
  for (; at + DirectoryEntry.size <= size; ) {
    const { entry, next, problem } = parseEntry(bytes, at, header);
    if (entry === undefined || entries.length >= count) throw corrupt(problem ?? "Broken bitmap directory", at);
    entries.push(entry);
    at = next;
  }
  if (at !== size || entries.length !== count) throw corrupt("Broken bitmap directory", at);
  return entries;
}

/** One entry at `at` and where the next one begins; no entry where it is none that QEMU accepts. */
export function parseEntry(bytes: Uint8Array, at: number, { clusterSize, size }: Qcow2Header): { readonly entry?: BitmapEntry; readonly next: number; readonly problem?: string } {
  const { tableOffset, tableSize, flags, type, granularityBits, nameLength, extraLength } = DirectoryEntry.parse(bytes, at);
  const nameAt = at + DirectoryEntry.size + extraLength, next = Math.ceil((nameAt + nameLength) / 8) * 8;
  if (next > bytes.length) return { next, problem: "Broken bitmap directory" };
  const name = bytes.slice(nameAt, nameAt + nameLength), offset = Number(tableOffset), { min, max } = BITMAP_LIMITS.granularity;
  if (extraLength !== 0) return { next, problem: "Bitmap extra data is not supported" };
  const placed = tableSize > 0 && offset !== 0 && offset % clusterSize === 0 && Number.isSafeInteger(offset) && tableSize * clusterSize <= BITMAP_LIMITS.bytes;
  const known = type === DIRTY_TRACKING && (flags & ~KNOWN_FLAGS) === 0 && granularityBits >= min && granularityBits <= max && nameLength > 0 && nameLength <= BITMAP_LIMITS.name;
  if (!placed || !known || !((flags & BITMAP_FLAG.inUse) !== 0 || size <= tableSize * clusterSize * 8 * 2 ** granularityBits)) {
    return { next, problem: `bitmap '${bitmapName(name)}' doesn't satisfy the constraints` };
  }
  return { entry: { name, tableOffset: offset, tableSize, flags, granularityBits, flagsAt: at + FLAGS_AT }, next };
}

/** The directory's bytes; `flagsAt` of what is given does not matter. */
export function formatBitmapDirectory(entries: readonly Omit<BitmapEntry, "flagsAt">[]): Uint8Array {
  const length = (entry: { readonly name: Uint8Array }): number => Math.ceil((DirectoryEntry.size + entry.name.length) / 8) * 8;
  const into = new Uint8Array(entries.reduce((sum, entry) => sum + length(entry), 0));
  let at = 0;
  for (const { name, tableOffset, tableSize, flags, granularityBits } of entries) {
    into.set(DirectoryEntry.format({ tableOffset: BigInt(tableOffset), tableSize, flags, type: DIRTY_TRACKING, granularityBits, nameLength: name.length, extraLength: 0 }), at);
    into.set(name, at + DirectoryEntry.size);
    at += length({ name });
  }
  return into;
}

/** For people: what is not UTF-8 becomes the replacement character. */
export function bitmapName(name: Uint8Array): string {
  return new TextDecoder().decode(name);
}
