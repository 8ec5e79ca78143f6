import { DiskError } from "../../errors.ts";
import { fill, SparseBits } from "../../metadata/sparseBits.ts";
import type { Storage } from "../../storage.ts";
import { read, write, type Task } from "../../task.ts";
import { BITMAP_TABLE_ENTRY, type BitmapPage, bitmapPage, formatBitmapTable } from "./bitmap-table.ts";
import { clustersOf } from "./l2-entry.ts";
import { corrupt } from "./mapping.ts";
import type { Refcounts } from "./refcounts.ts";

/** A table in the file: its offset in bytes, and its entries, one for each cluster of bits. */
export interface BitmapTable { readonly offset: number; readonly size: number }

/** The bits of one bitmap: those that its file has, and those set since. A page is what one cluster of the file holds. */
export class BitmapContents {
  readonly #set: SparseBits;
  /** Guest bytes from here on are clean in the file, whatever its bits say. */
  #kept: number;
  readonly #granularity: number;
  /** Guest bytes that a page covers. */
  readonly coverage: number;

  /** `size`: the guest disk's, in bytes. */
  constructor(readonly file: Storage, readonly clusterSize: number, granularityBits: number, public size: number, readonly stored?: BitmapTable) {
    this.#set = new SparseBits(clusterSize);
    this.#granularity = 2 ** granularityBits;
    this.coverage = this.#granularity * clusterSize * 8;
    this.#kept = size;
  }

  get pages(): number {
    return Math.max(1, Math.ceil(this.size / this.coverage));
  }

  /** The guest range is dirty. */
  set(guest: number, length: number): void {
    this.#set.set(Math.floor(guest / this.#granularity), Math.ceil((guest + length) / this.#granularity));
  }

  clear(): void {
    this.#set.cut(0);
    this.#kept = 0;
  }

  /** The disk has a new size; what is new is clean. */
  resize(size: number): void {
    this.size = size;
    this.#kept = Math.min(this.#kept, size);
    this.#set.cut(Math.ceil(size / this.#granularity));
  }

  /** Whether its table is one. */
  *intact(): Task<boolean> {
    try {
      return (yield* this.#table()).length === this.pages;
    } catch (error) {
      if (error instanceof DiskError && error.kind === "corrupt") return false;
      throw error;
    }
  }

  /** A page's bits as they are now. */
  *page(index: number): Task<Uint8Array> {
    const bytes = new Uint8Array(this.clusterSize);
    yield* this.#read(index, (yield* this.#table())[index] ?? "zeros", bytes);
    return bytes;
  }

  /** Writes what changed, in new places, which it adds to `taken`; what that replaces it adds to `dropped`. Answers the table. */
  *store(refcounts: Refcounts, taken: number[], dropped: number[]): Task<BitmapTable> {
    const old = yield* this.#table(), pages: BitmapPage[] = [];
    if (this.stored !== undefined && old.length === this.pages && !this.#changed(0, old.length)) return this.stored;
    for (let index = 0; index < this.pages; index++) {
      const before = old[index] ?? "zeros";
      if (!this.#changed(index, index + 1)) {
        pages.push(before);
        continue;
      }
      const bytes = new Uint8Array(this.clusterSize);
      yield* this.#read(index, before, bytes);
      pages.push(yield* this.#storePage(bytes, refcounts, taken));
    }
    this.#drop(old.filter((page, index) => page !== pages[index]), dropped);
    const bytes = formatBitmapTable(pages);
    return { offset: yield* writeRun(this.file, refcounts, this.clusterSize, bytes, taken), size: pages.length };
  }

  *#storePage(bytes: Uint8Array, refcounts: Refcounts, taken: number[]): Task<BitmapPage> {
    if (bytes.every((byte) => byte === 0)) return "zeros";
    if (bytes.every((byte) => byte === 0xff)) return "ones";
    return yield* writeRun(this.file, refcounts, this.clusterSize, bytes, taken);
  }

  /** Every cluster that the file spends on it. What cannot be understood is left to a check. */
  *drop(dropped: number[]): Task {
    if (this.stored !== undefined && (yield* this.intact())) this.#drop(yield* this.#table(), dropped);
  }

  #drop(pages: readonly BitmapPage[], dropped: number[]): void {
    dropped.push(...clustersOf(this.stored?.offset ?? 0, (this.stored?.size ?? 0) * BITMAP_TABLE_ENTRY, this.clusterSize));
    for (const page of pages) if (typeof page === "number") dropped.push(page / this.clusterSize);
  }

  /** Whether pages `[from, to)` differ from those of the file. */
  #changed(from: number, to: number): boolean {
    if (to * this.coverage > this.#kept && this.#kept < Math.min(to * this.coverage, this.size)) return true;
    for (let index = from; index < to; index++) if (this.#set.has(index)) return true;
    return false;
  }

  *#read(index: number, stored: BitmapPage, bytes: Uint8Array): Task {
    if (stored === "ones") bytes.fill(0xff);
    else if (stored !== "zeros") yield read(this.file, stored, bytes);
    const start = index * this.coverage, bits = this.clusterSize * 8, bit = (at: number): number => Math.min(bits, Math.max(0, Math.ceil((at - start) / this.#granularity)));
    fill(bytes, bit(this.#kept), bits, false);
    this.#set.addTo(index, bytes);
    fill(bytes, bit(this.size), bits, false);
  }

  *#table(): Task<BitmapPage[]> {
    if (this.stored === undefined) return [];
    const { offset, size } = this.stored, bytes = new Uint8Array(size * BITMAP_TABLE_ENTRY), view = new DataView(bytes.buffer);
    if (offset + bytes.length > Math.ceil(this.file.size / this.clusterSize) * this.clusterSize) throw corrupt(this.file, "a bitmap's table is behind the end of the file: it is truncated", offset);
    yield read(this.file, offset, bytes);
    return Array.from({ length: size }, (_, index) => {
      const page = bitmapPage(view, index * BITMAP_TABLE_ENTRY, this.clusterSize);
      if (page === undefined || (typeof page === "number" && page >= this.file.size)) throw corrupt(this.file, "a bitmap's table is broken; the bitmap can only be lost: convert the image", offset + index * BITMAP_TABLE_ENTRY);
      return page;
    });
  }
}

/** Writes `bytes` into clusters of their own, which it adds to `taken`. Answers where. */
export function* writeRun(file: Storage, refcounts: Refcounts, clusterSize: number, bytes: Uint8Array, taken: number[]): Task<number> {
  const count = Math.ceil(bytes.length / clusterSize), first = yield* refcounts.allocateRun(count), whole = new Uint8Array(count * clusterSize);
  for (let i = 0; i < count; i++) taken.push(first + i);
  whole.set(bytes);
  yield write(file, first * clusterSize, whole);
  return first * clusterSize;
}

/** Throws where a bitmap of a disk of `size` bytes would be too large for QEMU. */
export function checkBitmapSpace(size: number, granularityBits: number, most: number): void {
  if (size > most * 2 ** granularityBits) throw new DiskError("invalid-argument", "Too much space will be occupied by the bitmap. Use larger granularity", { format: "qcow2" });
}
