import type { Table } from "../../metadata/table.ts";

/**
 * L1 and L2 entries, read in place as two 32-bit halves: no BigInt on the path of a guest's sector.
 * docs/interop/qcow2.rst, "Cluster mapping".
 */
const COPIED = 0x8000_0000, COMPRESSED = 0x4000_0000, HIGH_OFFSET = 0x00ff_ffff, LOW_OFFSET = 0xffff_fe00, ZERO = 1;
const HIGH = 2 ** 32;

export const ENTRY_SIZE = 8;

/** What an L2 entry says. `host` (bytes) is 0 when no cluster belongs to it. */
export type Entry =
  | { readonly kind: "unallocated" | "zero" | "data"; readonly host: number; readonly copied: boolean }
  | { readonly kind: "compressed"; readonly host: number; readonly packedLength: number; readonly copied: false };

export const high = (table: Table, index: number): number => table.view.getUint32(index * ENTRY_SIZE);
export const low = (table: Table, index: number): number => table.view.getUint32(index * ENTRY_SIZE + 4);

/** The host offset in an L1 entry or a plain L2 entry. */
export const hostOffset = (hi: number, lo: number): number => (hi & HIGH_OFFSET) * HIGH + ((lo & LOW_OFFSET) >>> 0);
export const isCopied = (hi: number): boolean => (hi & COPIED) !== 0;
export const isCompressed = (hi: number): boolean => (hi & COMPRESSED) !== 0;
export const isZero = (lo: number): boolean => (lo & ZERO) !== 0;

/** How many bits of a compressed entry's high half belong to the offset. */
const packedHighBits = (clusterBits: number): number => 62 - (clusterBits - 8) - 32;

/** The offsets that a compressed entry can name are below this. */
export const packedLimit = (clusterBits: number): number => 2 ** packedHighBits(clusterBits) * HIGH;

/** Where a compressed cluster's bytes stand; the count is of sectors after the one that it begins in. */
export function packedPlace(hi: number, lo: number, clusterBits: number): { host: number; packedLength: number } {
  const highBits = packedHighBits(clusterBits);
  const host = (hi & (2 ** highBits - 1)) * HIGH + lo;
  const sectors = ((hi & 0x3fff_ffff) >>> highBits) + 1;
  return { host, packedLength: sectors * 512 - (host % 512) };
}

export function decode(table: Table, index: number, clusterBits: number): Entry {
  const hi = high(table, index), lo = low(table, index);
  if (isCompressed(hi)) return { kind: "compressed", copied: false, ...packedPlace(hi, lo, clusterBits) };
  const host = hostOffset(hi, lo), copied = isCopied(hi);
  if (isZero(lo)) return { kind: "zero", host, copied };
  return { kind: host === 0 ? "unallocated" : "data", host, copied };
}

/** Sets an L1 entry or a plain L2 entry: `host` 0 means none; a `host` is marked as ours alone (COPIED). */
export function encode(table: Table, index: number, host: number, zero = false): void {
  table.view.setUint32(index * ENTRY_SIZE, (Math.floor(host / HIGH) | (host === 0 ? 0 : COPIED)) >>> 0);
  table.view.setUint32(index * ENTRY_SIZE + 4, (host % HIGH) + (zero ? ZERO : 0));
  table.touch(index * ENTRY_SIZE, (index + 1) * ENTRY_SIZE);
}

/** Sets an L2 entry to `packedLength` compressed bytes from `host` on. */
export function encodePacked(table: Table, index: number, host: number, packedLength: number, clusterBits: number): void {
  const sectors = Math.floor((host + packedLength - 1) / 512) - Math.floor(host / 512);
  table.view.setUint32(index * ENTRY_SIZE, (COMPRESSED | (sectors << packedHighBits(clusterBits)) | Math.floor(host / HIGH)) >>> 0);
  table.view.setUint32(index * ENTRY_SIZE + 4, host % HIGH);
  table.touch(index * ENTRY_SIZE, (index + 1) * ENTRY_SIZE);
}

/** Host clusters that an entry references: every one that compressed bytes touch. */
export function referenced(entry: Entry, clusterSize: number): number[] {
  if (entry.kind === "compressed") return clustersOf(entry.host, entry.packedLength, clusterSize);
  return entry.host === 0 ? [] : [Math.floor(entry.host / clusterSize)];
}

/** The host clusters that `length` bytes at `host` touch. */
export function clustersOf(host: number, length: number, clusterSize: number): number[] {
  const first = Math.floor(host / clusterSize), last = Math.floor((host + length - 1) / clusterSize);
  return Array.from({ length: last - first + 1 }, (_, i) => first + i);
}
