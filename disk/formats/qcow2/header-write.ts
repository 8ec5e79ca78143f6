import { encodeText } from "../../bytes/text.ts";
import { DiskError } from "../../errors.ts";
import type { Storage } from "../../storage.ts";
import { flush, read, write, type Task } from "../../task.ts";
import { EXTENSION, formatExtensions, type Extension } from "./extensions.ts";
import { HeaderFields, HeaderFields3, LIMITS, MAGIC, readHeader, V2_LENGTH, type Qcow2Header } from "./header.ts";

/** What a power cut writes whole or not at all. */
const SECTOR = 512;
const V3_LENGTH = V2_LENGTH + HeaderFields3.size;

type Fields = ReturnType<typeof HeaderFields.parse>;
type Fields3 = ReturnType<typeof HeaderFields3.parse>;

/** A header to be. What a change leaves alone stays as it is. */
export interface HeaderDraft extends Omit<Fields, "magic" | "backingOffset" | "backingLength">, Omit<Fields3, "headerLength" | "padding"> {
  extensions: Extension[];
  backingFile: string | undefined;
}

/**
 * Changes the header: all of it or nothing, whenever the power is cut. Everything it is to point at must be durable;
 * when this ends, it is too. Answers the new one.
 *
 * A change within one sector is one write. Else the extensions and the backing file's name are first written where
 * nobody looks, behind a header that is longer for the time, and then moved to their place.
 */
export function* rewriteHeader(file: Storage, change: (draft: HeaderDraft) => void): Task<Qcow2Header> {
  const header = yield* readHeader(file, true), old = new Uint8Array(header.clusterSize);
  yield read(file, 0, old);
  const draft: HeaderDraft = { ...header, ...HeaderFields.parse(old), compressionType: header.compressionType === "zstd" ? 1 : 0, extensions: [...header.extensions] };
  change(draft);
  const next = inPlace(old, header, draft), differing = sectorsThatDiffer(old, next);
  if (differing.length > 1) yield* fitsBeside(old, header, draft, next) ? byWayOf(file, old, header, draft, next) : inFirstSector(file, old, header, draft);
  else if (differing[0] !== undefined) {
    yield write(file, differing[0], next.subarray(differing[0], differing[0] + SECTOR));
    yield flush(file, "header before what it no longer needs is reused");
  }
  return yield* readHeader(file, true);
}

/** The header cluster, with what follows the header at once behind it. */
function inPlace(old: Uint8Array, header: Qcow2Header, draft: HeaderDraft): Uint8Array {
  const length = draft.version < 3 ? V2_LENGTH : headLength(header, draft), { head, tail } = formatted(old, draft, length, length);
  const bytes = old.slice().fill(0, 0, Math.max(length + tail.length, liveEnd(old, header)));
  bytes.set(head);
  bytes.set(tail, length);
  return bytes;
}

/** Fields that we do not know are kept. Those of a sector and more are what an interrupted change left. */
function headLength(header: Qcow2Header, draft: HeaderDraft): number {
  const known = header.version < 3 || header.headerLength >= SECTOR ? V3_LENGTH : header.headerLength;
  return draft.compressionType === 0 ? known : Math.max(known, V3_LENGTH);
}

/** The header's fields, and what stands at `tailAt`: extensions and backing file name. */
function formatted(old: Uint8Array, draft: HeaderDraft, length: number, tailAt: number): { head: Uint8Array; tail: Uint8Array } {
  const extensions = formatExtensions(draft.extensions), name = encodeText(draft.backingFile ?? ""), nameAt = tailAt + extensions.length;
  if (name.length > LIMITS.backingName) throw new DiskError("invalid-argument", `the backing file name is too long: ${name.length} bytes; at most ${LIMITS.backingName} are possible`, { format: "qcow2" });
  if (nameAt + name.length > old.length) {
    const kept = draft.extensions.filter(({ type }) => type !== EXTENSION.featureNames);
    if (kept.length === draft.extensions.length) throw noRoom();
    // The names of features are a courtesy.
    return formatted(old, { ...draft, extensions: kept }, length, tailAt);
  }
  const head = new Uint8Array(length), tail = new Uint8Array(extensions.length + name.length);
  if (length > V3_LENGTH) head.set(old.subarray(0, length));
  head.set(HeaderFields.format({ ...draft, magic: MAGIC, backingOffset: name.length === 0 ? 0 : nameAt, backingLength: name.length }));
  if (draft.version >= 3) head.set(HeaderFields3.format({ ...draft, headerLength: tailAt, padding: new Uint8Array(7) }).subarray(0, length - V2_LENGTH), V2_LENGTH);
  tail.set(extensions);
  tail.set(name, extensions.length);
  return { head, tail };
}

function noRoom(): DiskError {
  return new DiskError("no-space", "the header cluster has no room for this change: convert the image to one with larger clusters", { format: "qcow2" });
}

/** Up to where the header cluster is in use. */
function liveEnd(old: Uint8Array, header: Qcow2Header): number {
  const { backingOffset, backingLength } = HeaderFields.parse(old);
  return Math.max(header.headerLength + formatExtensions(header.extensions).length, backingOffset + backingLength);
}

function sectorsThatDiffer(old: Uint8Array, next: Uint8Array): number[] {
  const differing: number[] = [];
  for (let at = 0; at < old.length; at += SECTOR) {
    if (next.subarray(at, at + SECTOR).some((byte, index) => byte !== old[at + index])) differing.push(at);
  }
  return differing;
}

/** Small clusters have no room for two: without the feature names all may stand in the first sector. */
function* inFirstSector(file: Storage, old: Uint8Array, header: Qcow2Header, draft: HeaderDraft): Task {
  const bare = { ...draft, extensions: draft.extensions.filter(({ type }) => type !== EXTENSION.featureNames) };
  const length = draft.version < 3 ? V2_LENGTH : headLength(header, bare), { head, tail } = formatted(old, bare, length, length), first = old.slice(0, SECTOR);
  if (length + tail.length > SECTOR) throw noRoom();
  first.set(head);
  first.set(tail, length);
  yield write(file, 0, first);
  yield flush(file, "header before what it no longer needs is reused");
}

/** Where the extensions stand for the time of a change that goes over a header that is neither the old nor the next. */
function placeBeside(old: Uint8Array, header: Qcow2Header, next: Uint8Array): { used: number; tailAt: number } {
  const used = next.findLastIndex((byte, at) => byte !== old[at]) + 1;
  return { used, tailAt: Math.ceil(Math.max(used, liveEnd(old, header)) / SECTOR) * SECTOR };
}

function fitsBeside(old: Uint8Array, header: Qcow2Header, draft: HeaderDraft, next: Uint8Array): boolean {
  const extensions = draft.extensions.filter(({ type }) => type !== EXTENSION.featureNames);
  return placeBeside(old, header, next).tailAt + formatExtensions(extensions).length + encodeText(draft.backingFile ?? "").length <= old.length;
}

/** From `old` to `next`, over a header that is neither. Such a header is always one of version 3: only there it can be longer. */
function* byWayOf(file: Storage, old: Uint8Array, header: Qcow2Header, draft: HeaderDraft, next: Uint8Array): Task {
  const beside: HeaderDraft = { ...draft, version: 3 }, { used, tailAt } = placeBeside(old, header, next), { head, tail } = formatted(old, beside, headLength(header, beside), tailAt);
  const first = new Uint8Array(SECTOR);
  first.set(head);
  yield write(file, tailAt, tail);
  yield flush(file, "the header's extensions elsewhere before the header says so");
  yield write(file, 0, first);
  yield flush(file, "header with extensions elsewhere before their old place is overwritten");
  yield write(file, SECTOR, next.subarray(SECTOR, used));
  yield flush(file, "the header's extensions in their place before the header says so");
  yield write(file, 0, next.subarray(0, SECTOR));
  yield flush(file, "header before what it no longer needs is reused");
}
