import type { DataExtent, Extent } from "../image.ts";
import type { Storage } from "../storage.ts";
import type { Task } from "../task.ts";
import { TableCache, type Table } from "./table.ts";

/** How the bitmap of a block is built. Sizes in bytes. */
export interface BitmapLayout {
  readonly blockSize: number;
  readonly sectorSize: number;
  /** What one bitmap takes in the file. */
  readonly bitmapSize: number;
  /** The first sector's bit is the lowest of the first byte; else the highest. */
  readonly lowestFirst: boolean;
}

/**
 * The resident sector bitmaps of blocks: a bit for each sector. Set: the sector is this image's. Clear: it is the
 * parent's, or of an image without one it was never written.
 */
export class SectorBitmaps {
  readonly #tables: TableCache;
  readonly #sectors: number;
  /** Those whose bits are all set. */
  readonly #full = new WeakSet<Table>();

  constructor(file: Storage, readonly layout: BitmapLayout, cacheBytes: number) {
    this.#tables = new TableCache(file, layout.bitmapSize, cacheBytes);
    this.#sectors = layout.blockSize / layout.sectorSize;
  }

  /**
   * What of `data`, which lies in `block` from `skip` on, is this image's. Where bits are clear nothing is writable in
   * place: the whole block is rewritten, and no other write may come between. `sparse`: bits that are clear mean the parent.
   */
  refine(data: DataExtent, block: number, skip: number, sparse: boolean): Extent | undefined {
    const { blockSize, sectorSize } = this.layout, table = this.#tables.get(block), length = Math.min(data.length, blockSize - skip);
    if (table === undefined) return undefined;
    if (this.#full.has(table)) return length === data.length ? data : { ...data, length };
    if (!sparse) return { ...data, length, writable: false };
    const first = Math.floor(skip / sectorSize), last = Math.ceil((skip + length) / sectorSize), own = this.#isSet(table.bytes, first);
    let end = first + 1;
    while (end < last && this.#isSet(table.bytes, end) === own) end++;
    const run = Math.min(length, end * sectorSize - skip);
    return own ? { ...data, length: run, writable: false } : { kind: "backing", length: run };
  }

  /** The bitmap of the block, which stands at `at`. */
  *load(block: number, at: number): Task<Table> {
    return yield* this.#tables.load(block, at, (table) => {
      if (this.#isFull(table.bytes)) this.#full.add(table);
    });
  }

  /** All of the block is this image's now. */
  *fill(block: number, at: number): Task {
    const table = yield* this.load(block, at);
    this.#tables.modify(block, table);
    table.bytes.fill(0xff);
    table.touch();
    this.#full.add(table);
  }

  get dirty(): boolean { return this.#tables.dirty; }
  get full(): boolean { return this.#tables.full; }

  writeBack(): Task {
    return this.#tables.writeBack();
  }

  clean(): void {
    this.#tables.clean();
  }

  #isFull(bits: Uint8Array): boolean {
    const whole = Math.floor(this.#sectors / 8);
    if (!bits.subarray(0, whole).every((byte) => byte === 0xff)) return false;
    for (let sector = whole * 8; sector < this.#sectors; sector++) if (!this.#isSet(bits, sector)) return false;
    return true;
  }

  #isSet(bits: Uint8Array, sector: number): boolean {
    const bit = this.layout.lowestFirst ? sector & 7 : 7 - (sector & 7);
    return ((bits[sector >>> 3] ?? 0) & (1 << bit)) !== 0;
  }
}
