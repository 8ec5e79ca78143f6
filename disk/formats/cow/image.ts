import { DiskError } from "../../errors.ts";
import { ReadFence, type Allocation, type BackingReference, type Extent, type Image } from "../../image.ts";
import { TableCache, type Table } from "../../metadata/table.ts";
import type { Storage } from "../../storage.ts";
import { close, discard, flush, type Task } from "../../task.ts";
import { SECTOR, type CowHeader } from "./header.ts";

/** The bitmap is kept in pieces of this many bytes. */
const PIECE = 4096;

/**
 * An open cow image: a bitmap that says which sectors are in this file, and a place for each. Every bitmap is a valid
 * one, so an image cannot contradict itself. FORMAT.md tells the order of writes.
 */
export class CowImage implements Image {
  readonly format = "cow";
  readonly blockSize: number;
  readonly size: number;
  readonly backing: BackingReference | undefined;
  readonly reads = new ReadFence();
  /** Pieces begin at a sector of the file, so one that is written back ends before the data. */
  readonly #pieces: TableCache;
  readonly #firstPiece: number;
  /** Bits of the first piece that belong to the header. */
  readonly #bitsBefore: number;

  constructor(readonly storage: Storage, readonly header: CowHeader, readonly readOnly: boolean, tableCache: number) {
    this.size = header.size;
    this.blockSize = header.sectorSize;
    this.backing = header.backingFile === undefined ? undefined : { file: header.backingFile, format: undefined };
    this.#firstPiece = header.bitmapOffset - (header.bitmapOffset % SECTOR);
    this.#bitsBefore = (header.bitmapOffset - this.#firstPiece) * 8;
    this.#pieces = new TableCache(storage, PIECE, tableCache);
  }

  map(offset: number, length: number): Extent | undefined {
    const { piece, bit, room } = this.#place(offset), table = this.#pieces.get(piece);
    if (table === undefined) return undefined;
    const here = isSet(table, bit), limit = Math.min(length, room);
    const first = this.blockSize - (offset % this.blockSize);
    let run = first;
    for (let next = bit + 1; run < limit && isSet(table, next) === here; next++) run += this.blockSize;
    run = Math.min(run, limit);
    if (!here) return { kind: "backing", length: run };
    return { kind: "data", length: run, storage: this.storage, offset: this.header.dataOffset + offset, writable: !this.readOnly };
  }

  *load(offset: number): Task {
    yield* this.#load(this.#place(offset).piece);
  }

  /** Every sector has its place already. One allocation stays within one piece of the bitmap. */
  *allocate(guest: number, length: number): Task<Allocation> {
    if (this.readOnly) throw new DiskError("read-only", "the image is open read-only", { path: this.storage.name, format: "cow" });
    if (this.#pieces.full) yield* this.#writeBack();
    return { guest, length: Math.min(length, this.#place(guest).room), storage: this.storage, offset: this.header.dataOffset + guest, fresh: false };
  }

  *publish({ guest, length }: Allocation): Task {
    const { piece, bit } = this.#place(guest), table = yield* this.#load(piece), end = bit + length / this.blockSize;
    for (let at = bit; at < end; at++) table.bytes[at >> 3] = (table.bytes[at >> 3] ?? 0) | (1 << (at & 7));
    table.touch(bit >> 3, ((end - 1) >> 3) + 1);
    this.#pieces.modify(piece, table);
  }

  abandon(): void {}

  /** The format has no sectors that read as zeros without being written. */
  // oxlint-disable-next-line require-yield -- nothing to do
  *zero(): Task<boolean> {
    return false;
  }

  /** Sectors in this file stay in it: without their bit the backing file would show. */
  *discard(guest: number, length: number): Task {
    for (let at = guest, end = Math.min(guest + length, this.size); at < end;) {
      const extent = this.map(at, end - at);
      if (extent === undefined) {
        yield* this.load(at);
        continue;
      }
      if (extent.kind === "data") yield discard(this.storage, extent.offset, extent.length);
      at += extent.length;
    }
  }

  // oxlint-disable-next-line require-yield -- refused
  *reserve(size: number): Task {
    this.#refuseSize(size);
  }

  // oxlint-disable-next-line require-yield -- refused
  *resize(size: number): Task {
    this.#refuseSize(size);
  }

  *flush(): Task {
    if (this.readOnly) return;
    if (this.#pieces.dirty) yield* this.#writeBack();
    else yield flush(this.storage, "guest data");
  }

  *close(): Task {
    try {
      yield* this.flush();
    } finally {
      yield close(this.storage);
    }
  }

  /** Data, then the bits that say it is there. */
  *#writeBack(): Task {
    yield flush(this.storage, "sectors before the bits that say they are in this file");
    yield* this.#pieces.writeBack();
    yield flush(this.storage, "bits of sectors that the guest flushed");
    this.#pieces.clean();
  }

  #refuseSize(size: number): void {
    if (size === this.size) return;
    throw new DiskError("unsupported", "a cow image cannot be resized, since its data stands right behind its bitmap; convert it to qcow2", { path: this.storage.name, format: "cow", operation: "resize" });
  }

  #load(piece: number): Task<Table> {
    return this.#pieces.load(piece, this.#firstPiece + piece * PIECE);
  }

  /** The bit of a guest offset within its piece, and how many bytes that piece still covers from there. */
  #place(offset: number): { piece: number; bit: number; room: number } {
    const all = this.#bitsBefore + Math.floor(offset / this.blockSize), bit = all % (PIECE * 8);
    return { piece: Math.floor(all / (PIECE * 8)), bit, room: (PIECE * 8 - bit) * this.blockSize - (offset % this.blockSize) };
  }
}

function isSet(table: Table, bit: number): boolean {
  return ((table.bytes[bit >> 3] ?? 0) & (1 << (bit & 7))) !== 0;
}
