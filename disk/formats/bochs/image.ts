import type { Extent } from "../../image.ts";
import { Pieces, ReadOnlyImage } from "../../metadata/readOnly.ts";
import type { Storage } from "../../storage.ts";
import type { Task } from "../../task.ts";
import type { BochsHeader } from "./header.ts";

const SECTOR = 512, ENTRY_SIZE = 4, NONE = 0xffff_ffff;

/** An open growing image of Bochs: a catalog of extents, each with a bitmap of the sectors that it holds. */
export class BochsImage extends ReadOnlyImage {
  /** Of the catalog and of bitmaps. */
  readonly #tables: Pieces;

  constructor(storage: Storage, readonly header: BochsHeader, tableCache: number) {
    super("bochs", storage, header.size);
    this.#tables = new Pieces(storage, tableCache);
  }

  map(offset: number, length: number): Extent | undefined {
    const { extentSize, bitmapSize } = this.header, within = offset % extentSize;
    length = Math.min(length, extentSize - within);
    const bitmapAt = this.#bitmapAt(offset);
    if (bitmapAt === undefined) return undefined;
    if (bitmapAt === NONE) return { kind: "zero", length };
    const found = this.#run(bitmapAt, Math.floor(within / SECTOR), SECTOR - (within % SECTOR), length);
    if (found === undefined) return undefined;
    if (!found.set) return { kind: "zero", length: found.length };
    const at = bitmapAt + bitmapSize + within;
    if (at + found.length > this.storage.size) throw this.corrupt(`the file is truncated: the sector at guest offset ${offset} should stand at ${at}, but the file has ${this.storage.size} bytes`, at);
    return { kind: "data", length: found.length, storage: this.storage, offset: at, writable: false };
  }

  *load(offset: number): Task {
    yield* this.#tables.load(this.#entryAt(offset));
    const bitmapAt = this.#bitmapAt(offset);
    if (bitmapAt !== undefined && bitmapAt !== NONE) yield* this.#tables.load(bitmapAt + this.#byteAt(offset));
  }

  #entryAt(offset: number): number {
    return this.header.catalogAt + Math.floor(offset / this.header.extentSize) * ENTRY_SIZE;
  }

  /** Which byte of its extent's bitmap tells of a guest offset. */
  #byteAt(offset: number): number {
    return Math.floor((offset % this.header.extentSize) / SECTOR / 8);
  }

  /** Where the extent with a guest offset stands in the file, its bitmap first; `NONE`: nowhere. */
  #bitmapAt(offset: number): number | undefined {
    const { bitmapSize, extentSize, dataAt } = this.header, entryAt = this.#entryAt(offset), found = this.#tables.find(entryAt);
    if (found === undefined) return undefined;
    const number = found.table.view.getUint32(found.index, true), at = dataAt + number * (bitmapSize + extentSize);
    if (number === NONE) return NONE;
    if (at + bitmapSize > this.storage.size) throw this.corrupt(`the catalog points at extent ${number}, which is behind the end of the file`, entryAt);
    return at;
  }

  /** How far the sectors from `sector` on are all in the file, or all not: in bytes of at most `length`, of which the first sector gives `done`. */
  #run(bitmapAt: number, sector: number, done: number, length: number): { set: boolean; length: number } | undefined {
    const isSet = (of: number): boolean | undefined => {
      const found = this.#tables.find(bitmapAt + Math.floor(of / 8));
      return found && (((found.table.bytes[found.index] ?? 0) >> (of % 8)) & 1) === 1;
    };
    const set = isSet(sector);
    if (set === undefined) return undefined;
    // What is not resident begins another run.
    while (done < length && isSet(++sector) === set) done += SECTOR;
    return { set, length: Math.min(done, length) };
  }
}
