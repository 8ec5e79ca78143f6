import { setU64 } from "../../bytes/struct.ts";
import { inflate, inflateLater } from "../../codecs/inflate.ts";
import { DiskError, hex } from "../../errors.ts";
import type { Extent } from "../../image.ts";
import { TableCache, type Table } from "../../metadata/table.ts";
import type { Storage } from "../../storage.ts";
import { flush, type Task } from "../../task.ts";
import { endOfL1, ENTRY_SIZE, fitsL2, roundUp, SECTOR, type QcowHeader } from "./header.ts";
import type { L2Places } from "./places.ts";

/** The L1 is kept in pieces of this many bytes. */
const PIECE = 4096;
const COMPRESSED = 0x8000_0000, HIGH = 2 ** 32;

/** The two levels of tables, and the end of the file, where new clusters are taken. */
export class Mapping {
  /** L2 entries a table. */
  readonly perTable: number;
  /** Pieces begin at a sector of the file: the first has the header's end, too. */
  readonly #l1: TableCache;
  readonly #firstPiece: number;
  readonly #l2: TableCache;
  /** Behind the header and the L1: neither a table nor the guest's data can stand before. */
  readonly #begin: number;
  /** New space is taken from here, in bytes: compressed clusters end anywhere. */
  end: number;
  /** Where it was taken from at first; and the L2 tables that since then may point behind that. */
  readonly #oldEnd: number;
  readonly #changed = new Set<number>();

  /** Without `places` it is for reading only. */
  constructor(readonly file: Storage, readonly header: QcowHeader, readonly places: L2Places | undefined, tableCache: number) {
    this.perTable = 2 ** header.l2Bits;
    this.#l1 = new TableCache(file, PIECE, tableCache / 4);
    this.#l2 = new TableCache(file, header.l2Bytes, (tableCache * 3) / 4);
    this.#firstPiece = header.l1Offset - (header.l1Offset % SECTOR);
    this.#begin = endOfL1(header);
    this.end = this.#oldEnd = Math.max(this.#begin, file.size);
  }

  /** The L2 table of a guest offset and its entry there. */
  place(offset: number): { l1Index: number; index: number } {
    const cluster = Math.floor(offset / this.header.clusterSize), index = cluster % this.perTable;
    return { l1Index: (cluster - index) / this.perTable, index };
  }

  /** Guest bytes from `offset` to where the next L2 table takes over. */
  room(offset: number): number {
    const span = this.perTable * this.header.clusterSize;
    return span - (offset % span);
  }

  /** `Image.map`. */
  map(offset: number, length: number): Extent | undefined {
    const { clusterSize } = this.header, { l1Index, index } = this.place(offset), skip = offset % clusterSize;
    const table = this.#l2.get(l1Index);
    if (table === undefined) return this.#unallocated(l1Index, length, this.room(offset));
    const hi = table.view.getUint32(index * ENTRY_SIZE), lo = table.view.getUint32(index * ENTRY_SIZE + 4);
    if (hi >= COMPRESSED) {
      const { at, packedLength } = this.#packedPlace(table, index, this.end);
      return { kind: "packed", length: Math.min(length, clusterSize - skip), storage: this.file, offset: at, packedLength, clusterSize, skip, unpack: inflate, unpackLater: inflateLater };
    }
    const at = this.#cluster(table, index, hi, lo, this.end);
    length = this.#run(table, index, at, Math.min(length, this.room(offset)), clusterSize - skip);
    if (at === 0) return { kind: "backing", length };
    return { kind: "data", length, storage: this.file, offset: at + skip, writable: this.places !== undefined };
  }

  /** Makes the next `map` answer. */
  *load(offset: number): Task {
    yield* this.#table(this.place(offset).l1Index);
  }

  /** The L2 table of a guest offset, made if need be. The caller may change it until its next yield. */
  *change(offset: number): Task<Table> {
    const { l1Index } = this.place(offset), resident = yield* this.#table(l1Index);
    if (resident !== undefined) return resident;
    const { piece, at } = this.#entry(l1Index), table = yield* this.#loadL1(piece), place = this.take(this.header.l2Bytes);
    this.places?.add(place);
    setU64(table.view, at, place);
    table.touch(at, at + ENTRY_SIZE);
    this.#l1.modify(piece, table);
    this.#changed.add(l1Index);
    return this.#l2.create(l1Index, place);
  }

  /** Points the entry at `index` of a table from `change` at `value`; 0: at nothing. */
  set(table: Table, l1Index: number, index: number, value: number): void {
    setU64(table.view, index * ENTRY_SIZE, value);
    this.#touched(table, l1Index, index);
  }

  /** As `set`, for `length` bytes of compressed data. */
  setPacked(table: Table, l1Index: number, index: number, at: number, length: number): void {
    const highBits = this.#packedHighBits, high = Math.floor(at / HIGH);
    if (high >= 2 ** highBits) throw new DiskError("unsupported", `the image file is full: an entry for compressed data cannot say ${hex(at)}`, { path: this.file.name, format: "qcow" });
    table.view.setUint32(index * ENTRY_SIZE, COMPRESSED + length * 2 ** highBits + high);
    table.view.setUint32(index * ENTRY_SIZE + 4, at % HIGH);
    this.#touched(table, l1Index, index);
  }

  /** Takes `bytes` at the end of the file, at a whole cluster or, for compressed data, at any byte. */
  take(bytes: number, alignment = this.header.clusterSize): number {
    const at = roundUp(this.end, alignment);
    this.end = at + bytes;
    return at;
  }

  get dirty(): boolean {
    return this.#l2.dirty || this.#l1.dirty;
  }

  /** Whether so much is dirty that the owner must flush before it changes more. */
  get full(): boolean {
    return this.#l2.full || this.#l1.full;
  }

  /** Clusters, then the L2 tables that point at them, then the L1, each durable before the next. */
  *writeBack(): Task {
    yield flush(this.file, "qcow: clusters before the L2 tables that point at them");
    if (this.#l2.dirty) {
      yield* this.#l2.writeBack();
      yield flush(this.file, "qcow: L2 tables before the L1 that points at them");
      this.#l2.clean();
    }
    if (!this.#l1.dirty) return;
    yield* this.#l1.writeBack();
    yield flush(this.file, "qcow: L1 of clusters that the guest flushed");
    this.#l1.clean();
  }

  #touched(table: Table, l1Index: number, index: number): void {
    table.touch(index * ENTRY_SIZE, (index + 1) * ENTRY_SIZE);
    this.#changed.add(l1Index);
    this.#l2.modify(l1Index, table);
  }

  /** Where there is no L2 table: as far as the L1 entries that are at hand say so. */
  #unallocated(l1Index: number, length: number, room: number): Extent | undefined {
    const { piece, at } = this.#entry(l1Index), table = this.#l1.get(piece);
    if (table === undefined || this.#l2At(table, at) !== 0) return undefined;
    const span = this.perTable * this.header.clusterSize;
    let next = at + ENTRY_SIZE;
    for (; room < length && next < PIECE && this.#l2At(table, next) === 0; next += ENTRY_SIZE) room += span;
    return { kind: "backing", length: Math.min(length, room) };
  }

  /** How far entries after `index` go on as the first one began, in bytes of at most `length`; `done`: what the first gives. */
  #run(table: Table, index: number, at: number, length: number, done: number): number {
    const { clusterSize } = this.header, step = at === 0 ? 0 : clusterSize;
    for (let next = index + 1; done < length; next++, done += clusterSize) {
      at += step;
      if (table.view.getUint32(next * ENTRY_SIZE + 4) !== at % HIGH || table.view.getUint32(next * ENTRY_SIZE) !== Math.floor(at / HIGH) || at + step > this.end) return done;
    }
    return length;
  }

  /** Where the cluster of a plain entry stands, before `end`; 0: nowhere. */
  #cluster(table: Table, index: number, hi: number, lo: number, end: number): number {
    const at = hi * HIGH + lo;
    if (at === 0) return 0;
    if (at % SECTOR !== 0 || at < this.#begin) throw this.#corrupt(`an L2 entry points at ${hex(at)}, where no cluster can be`, table.at + index * ENTRY_SIZE);
    if (at + this.header.clusterSize > end) throw this.#corrupt(`the file is truncated: a cluster should stand at ${hex(at)}, but the file had ${end} bytes`, table.at + index * ENTRY_SIZE);
    return at;
  }

  /** Where compressed data stands, before `end`; its exact length is in the bits above the offset. */
  #packedPlace(table: Table, index: number, end: number): { at: number; packedLength: number } {
    const hi = table.view.getUint32(index * ENTRY_SIZE) - COMPRESSED, lo = table.view.getUint32(index * ENTRY_SIZE + 4), unit = 2 ** this.#packedHighBits;
    const packedLength = Math.floor(hi / unit), at = (hi % unit) * HIGH + lo;
    if (packedLength === 0 || at < this.#begin) throw this.#corrupt(`an L2 entry points at ${packedLength} compressed bytes at ${hex(at)}, where none can be`, table.at + index * ENTRY_SIZE);
    if (at + packedLength > end) throw this.#corrupt(`the file is truncated: compressed data should stand at ${hex(at)}, but the file had ${end} bytes`, table.at + index * ENTRY_SIZE);
    return { at, packedLength };
  }

  /** Bits of the offset of compressed data in an entry's upper half. */
  get #packedHighBits(): number {
    return 31 - this.header.clusterBits;
  }

  *#table(l1Index: number): Task<Table | undefined> {
    const resident = this.#l2.get(l1Index);
    if (resident !== undefined) return resident;
    const { piece, at } = this.#entry(l1Index), place = this.#l2At(yield* this.#loadL1(piece), at);
    if (place === 0) return undefined;
    return yield* this.#l2.load(l1Index, place, (table) => { this.#check(table, l1Index); });
  }

  #loadL1(piece: number): Task<Table> {
    return this.#l1.load(piece, this.#firstPiece + piece * PIECE);
  }

  /** The piece of the L1 with an entry, and the entry's place there. */
  #entry(l1Index: number): { piece: number; at: number } {
    const all = this.header.l1Offset - this.#firstPiece + l1Index * ENTRY_SIZE, at = all % PIECE;
    return { piece: (all - at) / PIECE, at };
  }

  /** Where the L2 table of the L1 entry at `at` of a piece stands; 0: there is none. */
  #l2At(piece: Table, at: number): number {
    const place = piece.view.getUint32(at) * HIGH + piece.view.getUint32(at + 4);
    if (place !== 0 && !fitsL2(place, this.header, this.end)) throw this.#corrupt(`an L1 entry points at ${hex(place)}, where no L2 table can be`, piece.at + at);
    return place;
  }

  /**
   * A guest's write in place must never reach a table, whatever an entry says. Nor may what was cut off with the end of the
   * file come back as what is written there now.
   */
  #check(table: Table, l1Index: number): void {
    if (this.places === undefined) return;
    const { clusterSize } = this.header, end = this.#changed.has(l1Index) ? this.end : this.#oldEnd;
    for (let index = 0; index < this.perTable; index++) {
      const hi = table.view.getUint32(index * ENTRY_SIZE);
      if (hi >= COMPRESSED) {
        this.#packedPlace(table, index, end);
        continue;
      }
      const at = this.#cluster(table, index, hi, table.view.getUint32(index * ENTRY_SIZE + 4), end);
      if (at !== 0 && this.places.overlap(at, clusterSize)) throw this.#corrupt(`an L2 entry points at ${hex(at)}, which is an L2 table`, table.at + index * ENTRY_SIZE);
    }
  }

  #corrupt(what: string, offset: number): DiskError {
    return new DiskError("corrupt", what, { path: this.file.name, offset, format: "qcow" });
  }
}
