import type { Table } from "../../metadata/table.ts";
import { INCOMPATIBLE } from "./features.ts";

/**
 * L1 and L2 entries, read in place as two 32-bit halves: no BigInt on the path of a guest's sector.
 * docs/interop/qcow2.rst, "Cluster mapping".
 */
const COPIED = 0x8000_0000, COMPRESSED = 0x4000_0000, HIGH_OFFSET = 0x00ff_ffff, LOW_OFFSET = 0xffff_fe00, ZERO = 1;
const HIGH = 2 ** 32;

/** Bytes of an L1 entry, and of an L2 entry without subclusters. */
export const ENTRY_SIZE = 8;

export const high = (table: Table, index: number): number => table.view.getUint32(index * ENTRY_SIZE);
export const low = (table: Table, index: number): number => table.view.getUint32(index * ENTRY_SIZE + 4);

/** The host offset in an L1 entry or an L2 entry that is not compressed. */
export const hostOffset = (hi: number, lo: number): number => (hi & HIGH_OFFSET) * HIGH + ((lo & LOW_OFFSET) >>> 0);
export const isCopied = (hi: number): boolean => (hi & COPIED) !== 0;
export const isCompressed = (hi: number): boolean => (hi & COMPRESSED) !== 0;
export const isZero = (lo: number): boolean => (lo & ZERO) !== 0;

/** How many bits of a compressed entry's high half belong to the offset. */
const packedHighBits = (clusterBits: number): number => 62 - (clusterBits - 8) - 32;

/** The offsets that a compressed entry can name are below this. */
export const packedLimit = (clusterBits: number): number => 2 ** packedHighBits(clusterBits) * HIGH;

/** Where a compressed cluster's bytes stand. */
export interface PackedPlace { readonly host: number; readonly packedLength: number }

/** The count in the entry is of sectors after the one that the bytes begin in. */
export function packedPlace(hi: number, lo: number, clusterBits: number): PackedPlace {
  const highBits = packedHighBits(clusterBits);
  const host = (hi & (2 ** highBits - 1)) * HIGH + lo;
  const sectors = ((hi & 0x3fff_ffff) >>> highBits) + 1;
  return { host, packedLength: sectors * 512 - (host % 512) };
}

/** Sets an L1 entry, or half an L2 entry: `host` 0 means none; a `host` is marked as ours alone (COPIED). */
export function encode(table: Table, index: number, host: number): void {
  put(table, index, host, host !== 0, false);
}

function put(table: Table, index: number, host: number, copied: boolean, zero: boolean): void {
  table.view.setUint32(index * ENTRY_SIZE, (Math.floor(host / HIGH) | (copied ? COPIED : 0)) >>> 0);
  table.view.setUint32(index * ENTRY_SIZE + 4, (host % HIGH) + (zero ? ZERO : 0));
  table.touch(index * ENTRY_SIZE, (index + 1) * ENTRY_SIZE);
}

/** What stands in one guest cluster that is not compressed: in all of it, or in each of its subclusters. */
export interface Content {
  /** The cluster that belongs to it, in bytes; `undefined`: none. */
  readonly host: number | undefined;
  /** `host` is ours alone (COPIED): what stands there may be written in place. */
  readonly copied: boolean;
  /** One bit a subcluster, the first in bit 0: its data stands in `host`, or it reads as zeros; neither: it is unallocated. */
  readonly present: number;
  readonly zeros: number;
}

/** What an L2 entry says; a compressed one has no `host`. */
export interface Entry extends Content { readonly packed: PackedPlace | undefined }

export const UNALLOCATED: Entry = { host: undefined, copied: false, present: 0, zeros: 0, packed: undefined };

/** How the L2 entries of an image stand in their tables. */
export class EntryLayout {
  /** Subclusters a cluster: 32 in extended L2 entries; a plain entry is as one with a single subcluster. */
  readonly subclusters: 1 | 32;
  /** All bits of `Content.present`. */
  readonly all: number;
  readonly entrySize: number;
  /** The data stands in a file of its own, in which offset 0 is as good as any. */
  readonly external: boolean;

  constructor(readonly clusterBits: number, incompatible: bigint) {
    const extended = (incompatible & INCOMPATIBLE.extendedL2) !== 0n;
    this.subclusters = extended ? 32 : 1;
    this.all = extended ? 0xffff_ffff : 1;
    this.entrySize = extended ? 2 * ENTRY_SIZE : ENTRY_SIZE;
    this.external = (incompatible & INCOMPATIBLE.externalData) !== 0n;
  }

  decode(table: Table, index: number): Entry {
    const at = this.subclusters === 1 ? index : 2 * index, hi = high(table, at), lo = low(table, at);
    if (isCompressed(hi)) return { ...UNALLOCATED, packed: packedPlace(hi, lo, this.clusterBits) };
    const offset = hostOffset(hi, lo), copied = isCopied(hi), host = offset !== 0 || (this.external && copied) ? offset : undefined;
    // Extended L2 entries: the zero bits stand in the upper half of the bitmap, the others in the lower.
    if (this.subclusters > 1) return { host, copied, packed: undefined, zeros: high(table, at + 1), present: low(table, at + 1) };
    const zeros = isZero(lo) ? 1 : 0;
    return { host, copied, packed: undefined, zeros, present: host === undefined ? 0 : 1 - zeros };
  }

  encode(table: Table, index: number, { host, copied, present, zeros }: Content): void {
    if (this.subclusters === 1) return put(table, index, host ?? 0, copied && host !== undefined, zeros !== 0);
    put(table, 2 * index, host ?? 0, copied && host !== undefined, false);
    table.view.setUint32((2 * index + 1) * ENTRY_SIZE, zeros);
    table.view.setUint32((2 * index + 1) * ENTRY_SIZE + 4, present);
    table.touch(2 * index * ENTRY_SIZE, (2 * index + 2) * ENTRY_SIZE);
  }

  /** Sets an entry to `length` compressed bytes from `host` on. */
  encodePacked(table: Table, index: number, host: number, length: number): void {
    const at = (this.subclusters === 1 ? index : 2 * index) * ENTRY_SIZE, sectors = Math.floor((host + length - 1) / 512) - Math.floor(host / 512);
    table.view.setUint32(at, (COMPRESSED | (sectors << packedHighBits(this.clusterBits)) | Math.floor(host / HIGH)) >>> 0);
    table.view.setUint32(at + 4, host % HIGH);
    table.bytes.fill(0, at + ENTRY_SIZE, at + this.entrySize);
    table.touch(at, at + this.entrySize);
  }
}

/** Host clusters that an entry references: every one that compressed bytes touch. */
export function referenced({ host, packed }: Entry, clusterSize: number): number[] {
  if (packed !== undefined) return clustersOf(packed.host, packed.packedLength, clusterSize);
  return host === undefined ? [] : [Math.floor(host / clusterSize)];
}

/** The host clusters that `length` bytes at `host` touch. */
export function clustersOf(host: number, length: number, clusterSize: number): number[] {
  const first = Math.floor(host / clusterSize), last = Math.floor((host + length - 1) / clusterSize);
  return Array.from({ length: last - first + 1 }, (_, i) => first + i);
}
