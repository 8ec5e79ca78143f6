import { PatchedStorage } from "../../filters/patched.ts";
import type { Storage } from "../../storage.ts";
import { flush, read, truncate, write, zero, type Task } from "../../task.ts";
import { MAX_LOG, NO_GUID, updateHeaders, type Header } from "./headers.ts";
import { AT, corrupt, DescriptorFields, isSound, LogEntryFields, MIB, signed, unsupported } from "./structures.ts";
import { getU64 } from "../../bytes/struct.ts";

export const SECTOR = 4096;
/** Descriptors in a log sector, and how many the entry's header takes the place of. */
export const PER_SECTOR = SECTOR / DescriptorFields.size, HEADER_TAKES = LogEntryFields.size / DescriptorFields.size;
/** No file is longer: 64 TiB of disk, and what else there is. */
const MAX_FILE = 2 ** 47;
/** How many zeros a replay in memory may hold. */
const MAX_ZEROS = 64 * MIB;

/** What a log asks for: bytes at offsets of the file (`undefined`: zeros), in this order. */
interface Change { readonly offset: number; readonly length: number; readonly bytes: Uint8Array | undefined }
interface Entry { readonly at: number; readonly sequence: number; readonly tail: number; readonly length: number; readonly flushedSize: number; readonly lastSize: number }

/** A log's changes, and how long the file is with them. */
export interface Replay { readonly changes: readonly Change[]; readonly size: number }

/** Reads the log. `undefined`: it is empty; or nothing in it is valid, as QEMU leaves it for a moment before its first entry. */
export function* readLog(file: Storage, { logGuid, logOffset, logLength }: Header): Task<Replay | undefined> {
  if (logGuid === undefined) return undefined;
  if (logLength > MAX_LOG) throw unsupported(file, `a VHDX log of ${logLength} bytes to be replayed; ${MAX_LOG} is the bound`, logOffset);
  const log = new Uint8Array(logLength);
  yield read(file, logOffset, log);
  const sequence = activeSequence(log, logGuid), head = sequence.at(-1);
  if (head === undefined) return undefined;
  if (head.flushedSize > file.size) throw corrupt(file, `the file is truncated: it has ${file.size} bytes, and its log tells of ${head.flushedSize}`, logOffset + head.at);
  if (head.lastSize > MAX_FILE) throw corrupt(file, `the log tells of a file of ${head.lastSize} bytes`, logOffset + head.at);
  const size = Math.max(file.size, Math.ceil(head.lastSize / MIB) * MIB);
  const changes = sequence.flatMap((entry) => changesOf(log, entry));
  for (const { offset, length } of changes) {
    const bad = offset < AT.regions[0] || offset + length > size || (offset < logOffset + logLength && logOffset < offset + length);
    if (bad) throw corrupt(file, `the log wants to change ${length} bytes at ${offset}, which no log may`, logOffset + head.at);
  }
  return { changes, size };
}

/** 2.3.3 "Log Sequence": of the entries that follow each other up to one that names the first of them, those with the largest number. */
function activeSequence(log: Uint8Array, guid: Uint8Array): Entry[] {
  const entries: Entry[] = [], before = new Map<string, Entry[]>();
  for (let at = 0; at < log.length; at += SECTOR) {
    const entry = entryAt(log, at, guid);
    if (entry !== undefined) entries.push(entry);
  }
  // Each chain of entries that follow each other, where the next one is looked for.
  for (const entry of entries.toSorted((a, b) => a.sequence - b.sequence)) {
    const key = `${entry.at} ${entry.sequence}`, chain = before.get(key) ?? [];
    chain.push(entry);
    before.delete(key);
    before.set(`${(entry.at + entry.length) % log.length} ${entry.sequence + 1}`, chain);
  }
  let best: Entry[] = [];
  for (const chain of before.values()) {
    const places = new Map(chain.map(({ at }, i) => [at, i] as const));
    for (let last = chain.length - 1; last >= 0; last--) {
      const first = places.get(chain[last]?.tail ?? -1);
      if (first === undefined || first > last) continue;
      if ((chain[last]?.sequence ?? 0) > (best.at(-1)?.sequence ?? 0)) best = chain.slice(first, last + 1);
      break;
    }
  }
  return best;
}

/** The sector at `at` of the log, which is a ring. */
function sectorAt(log: Uint8Array, at: number): Uint8Array {
  const from = at % log.length;
  return log.subarray(from, from + SECTOR);
}

/** The entry that begins there, if it is whole and of this log. */
function entryAt(log: Uint8Array, at: number, guid: Uint8Array): Entry | undefined {
  if (!signed(sectorAt(log, at), "loge")) return undefined;
  try {
    const { length, tail, sequence, descriptors, guid: own, flushedSize, lastSize } = LogEntryFields.parse(log, at);
    const lead = Math.ceil((descriptors + HEADER_TAKES) / PER_SECTOR);
    if (!own.every((byte, i) => byte === guid[i]) || sequence === 0 || length % SECTOR !== 0 || length > log.length || lead * SECTOR > length) return undefined;
    const entry = { at, sequence, tail, length, flushedSize, lastSize };
    return isWhole(log, entry, descriptors, lead) ? entry : undefined;
  } catch {
    // A number that no size or offset can be.
    return undefined;
  }
}

/** Looks at signatures and numbers before the checksum: so no part of the log is summed twice, whatever stands in it. */
function isWhole(log: Uint8Array, { at, sequence, length }: Entry, descriptors: number, lead: number): boolean {
  let data = 0;
  for (let i = 0; i < descriptors; i++) {
    const place = descriptorPlace(at, i), sector = sectorAt(log, place - (place % SECTOR)), descriptor = DescriptorFields.parse(sector, place % SECTOR);
    const isData = signed(descriptor.signature, "desc");
    if ((!isData && !signed(descriptor.signature, "zero")) || descriptor.sequence !== sequence || descriptor.offset % SECTOR !== 0) return false;
    if (isData) data++;
  }
  if ((lead + data) * SECTOR !== length) return false;
  for (let i = lead; i < lead + data; i++) {
    const sector = sectorAt(log, at + i * SECTOR), view = new DataView(sector.buffer, sector.byteOffset);
    if (!signed(sector, "data") || view.getUint32(4, true) * 2 ** 32 + view.getUint32(SECTOR - 4, true) !== sequence) return false;
  }
  const entry = new Uint8Array(length);
  for (let done = 0; done < length; done += SECTOR) entry.set(sectorAt(log, at + done), done);
  return isSound(entry);
}

function descriptorPlace(at: number, index: number): number {
  return at + LogEntryFields.size + index * DescriptorFields.size;
}

function changesOf(log: Uint8Array, { at }: Entry): Change[] {
  const { descriptors } = LogEntryFields.parse(log, at);
  let next = at + Math.ceil((descriptors + HEADER_TAKES) / PER_SECTOR) * SECTOR;
  return Array.from({ length: descriptors }, (_, i) => {
    const place = descriptorPlace(at, i), { signature, word, lead, offset } = DescriptorFields.parse(sectorAt(log, place - (place % SECTOR)), place % SECTOR);
    if (signed(signature, "zero")) return { offset, length: getU64(new DataView(lead.buffer), 0, true), bytes: undefined };
    const bytes = sectorAt(log, next).slice();
    next += SECTOR;
    bytes.set(lead);
    bytes.set(word, SECTOR - 4);
    return { offset, length: SECTOR, bytes };
  });
}

/** Replays into the file, durably, and then makes the log empty. */
export function* replay(file: Storage, header: Header, { changes, size }: Replay): Task<Header> {
  if (file.size < size) yield truncate(file, size);
  for (const { offset, length, bytes } of changes) yield bytes === undefined ? zero(file, offset, length) : write(file, offset, bytes);
  yield flush(file, "the replayed log before the headers forget it");
  return yield* updateHeaders(file, header, { logGuid: NO_GUID });
}

/** Shows the file as it would be after the replay. */
export function replayed(file: Storage, { changes, size }: Replay): Storage {
  const pages = new Map<number, Uint8Array>(), zeros = new Uint8Array(SECTOR);
  let most = MAX_ZEROS;
  for (const { offset, length, bytes } of changes) {
    if (bytes === undefined && (most -= length) < 0) throw unsupported(file, "the log must be replayed, and has too many zeros for memory: open the image for writing");
    for (let at = 0; at < length; at += SECTOR) pages.set((offset + at) / SECTOR, bytes ?? zeros);
  }
  return new PatchedStorage(file, pages, SECTOR, size);
}
