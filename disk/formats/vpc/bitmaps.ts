import type { DataExtent, Extent } from "../../image.ts";
import { TableCache, type Table } from "../../metadata/table.ts";
import type { Storage } from "../../storage.ts";
import type { Task } from "../../task.ts";
import { SECTOR } from "./footer.ts";

/**
 * The resident sector bitmaps of blocks: a bit for each sector, the first in the highest bit of the first byte. Set: the
 * sector is this image's. Clear: it is the parent's, or of a dynamic image it was never written.
 */
export class SectorBitmaps {
  readonly #tables: TableCache;
  readonly #sectors: number;
  /** Those whose bits are all set. */
  readonly #full = new WeakSet<Table>();

  constructor(file: Storage, readonly blockSize: number, readonly bitmapSize: number, cacheBytes: number) {
    this.#tables = new TableCache(file, bitmapSize, cacheBytes);
    this.#sectors = blockSize / SECTOR;
  }

  /**
   * What of `data`, which lies in `block` from `skip` on, is this image's. Where bits are clear nothing is writable in
   * place: the whole block is rewritten, and no other write may come between. `sparse`: bits that are clear mean the parent.
   */
  refine(data: DataExtent, block: number, skip: number, sparse: boolean): Extent | undefined {
    const table = this.#tables.get(block), length = Math.min(data.length, this.blockSize - skip);
    if (table === undefined) return undefined;
    if (this.#full.has(table)) return length === data.length ? data : { ...data, length };
    if (!sparse) return { ...data, length, writable: false };
    const first = Math.floor(skip / SECTOR), last = Math.ceil((skip + length) / SECTOR), own = isSet(table.bytes, first);
    let end = first + 1;
    while (end < last && isSet(table.bytes, end) === own) end++;
    const run = Math.min(length, end * SECTOR - skip);
    return own ? { ...data, length: run, writable: false } : { kind: "backing", length: run };
  }

  /** The bitmap of the block whose data stand at `place`. */
  *load(block: number, place: number): Task<Table> {
    return yield* this.#tables.load(block, place - this.bitmapSize, (table) => {
      if (this.#isFull(table.bytes)) this.#full.add(table);
    });
  }

  /** All of the block is this image's now. */
  *fill(block: number, place: number): Task {
    const table = yield* this.load(block, place);
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
    const whole = Math.floor(this.#sectors / 8), rest = this.#sectors % 8;
    return bits.subarray(0, whole).every((byte) => byte === 0xff) && (rest === 0 || (bits[whole] ?? 0) >>> (8 - rest) === (1 << rest) - 1);
  }
}

function isSet(bits: Uint8Array, sector: number): boolean {
  return ((bits[sector >>> 3] ?? 0) & (0x80 >>> (sector & 7))) !== 0;
}
