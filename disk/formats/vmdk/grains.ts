import { DiskError, hex } from "../../errors.ts";
import type { Extent } from "../../image.ts";
import { TableCache, type Table } from "../../metadata/table.ts";
import type { Storage } from "../../storage.ts";
import { flush, write, type Task } from "../../task.ts";
import { Directory } from "./directory.ts";
import { entry, ZERO } from "./entries.ts";
import { corrupt, CowdFields, ENTRY_SIZE, SECTOR, type SparseHeader } from "./header.ts";
import { packedExtent } from "./packed.ts";
import type { Protected } from "./protected.ts";

/** Entries are sectors in 32 bits. */
const MAX_SIZE = 2 ** 32 * SECTOR;

/** The grain tables of one sparse extent, and the end of its file, where new grains are taken. Guest offsets are the extent's own. */
export class Grains {
  readonly #tables: TableCache;
  /** Only for writing. */
  readonly #metadata: Protected | undefined;
  /** New space begins here or behind. */
  #end: number;
  /** As a COWD has it in its header. */
  #freeSector = 0;

  private constructor(readonly file: Storage, readonly header: SparseHeader, readonly length: number, readonly directory: Directory, readonly writable: boolean, tableCache: number) {
    this.#tables = new TableCache(file, header.perTable * ENTRY_SIZE, tableCache);
    this.#metadata = writable ? directory.metadata() : undefined;
    // A grain that is cut off at the end of the file has what is missing of it nevertheless.
    this.#end = header.compressed || file.size % header.grainSize === 0 ? file.size : file.size + header.grainSize;
  }

  /** `length`: how much of the extent is the guest's, in bytes. */
  static *open(file: Storage, header: SparseHeader, length: number, writable: boolean, tableCache: number): Task<Grains> {
    return new Grains(file, header, length, yield* Directory.open(file, header, writable), writable, tableCache);
  }

  map(offset: number, length: number): Extent | undefined {
    const { grainSize, perTable } = this.header, skip = offset % grainSize, grain = (offset - skip) / grainSize, index = grain % perTable, at = (grain - index) / perTable;
    length = Math.min(length, (perTable - index) * grainSize - skip);
    const table = this.#tables.get(at);
    if (table === undefined) {
      const place = this.directory.entry(at);
      if (place > ZERO) return undefined;
      return { kind: place === ZERO ? "zero" : "backing", length };
    }
    const first = entry(table, index);
    if (this.#isData(first) && this.header.compressed) return packedExtent(this.file, this.header, table, index, skip, Math.min(length, grainSize - skip), Math.min(grainSize, this.length - grain * grainSize));
    length = this.#run(table, index, first, length, grainSize - skip);
    if (first === 0) return { kind: "backing", length };
    return this.#isData(first) ? this.#dataAt(first, skip, length, table.at + index * ENTRY_SIZE) : { kind: "zero", length };
  }

  /** How far entries after `index` go on as `first` began, in bytes of at most `length`; `done`: what the first gives. */
  #run(table: Table, index: number, first: number, length: number, done: number): number {
    const { grainSize } = this.header, step = this.#isData(first) ? grainSize / SECTOR : 0;
    for (let next = index + 1, expected = first + step; done < length; next++, expected += step, done += grainSize) {
      if (entry(table, next) !== expected) return done;
    }
    return length;
  }

  #dataAt(sector: number, skip: number, length: number, entryAt: number): Extent {
    const { grainSize } = this.header, host = sector * SECTOR;
    if (host >= this.file.size) throw corrupt(this.file, `the file is truncated: a grain should stand at ${hex(host)}`, entryAt);
    // What begins behind the end of the file is no part of this answer: asked for, it is the error above.
    const present = Math.ceil((this.file.size - host) / grainSize) * grainSize - skip;
    return { kind: "data", length: Math.min(length, present), storage: this.file, offset: host + skip, writable: this.writable };
  }

  *load(offset: number): Task {
    yield* this.#load(this.#tableOf(offset));
  }

  /** The grain table; `undefined` where there is none. */
  *#load(at: number): Task<Table | undefined> {
    const resident = this.#tables.get(at);
    if (resident !== undefined) return resident;
    const place = this.directory.entry(at);
    if (place <= ZERO) return undefined;
    return yield* this.#tables.load(at, place, (table) => {
      table.copyAt = this.directory.copyOf(at);
      this.#check(at, table);
    });
  }

  /** As `#load`, with a new one where there is none; the caller may change it until its next yield. */
  *#change(at: number): Task<Table> {
    let table = yield* this.#load(at);
    if (table === undefined) table = this.#newTable(at);
    else this.#tables.modify(at, table);
    return table;
  }

  #newTable(at: number): Table {
    const zeros = this.directory.entry(at) === ZERO, { tableBytes, second } = this.directory;
    const take = (): number => {
      const place = this.take(tableBytes, SECTOR);
      this.#metadata?.append(place / SECTOR);
      return place;
    };
    const table = this.#tables.create(at, take());
    if (second !== undefined) table.copyAt = take();
    if (zeros) for (let index = 0; index < this.header.perTable; index++) table.view.setUint32(index * ENTRY_SIZE, ZERO, true);
    this.directory.set(at, table.at, table.copyAt);
    return table;
  }

  /** How many grains from `offset` on have no space, at least one and at most `length` bytes of them; as far as one table tells. */
  *vacant(offset: number, length: number): Task<number> {
    const { grainSize, perTable } = this.header, index = (offset / grainSize) % perTable, table = yield* this.#change(this.#tableOf(offset));
    const most = Math.min(length, this.room(offset)) / grainSize;
    let count = 1;
    while (count < most && !this.#isData(entry(table, index + count))) count++;
    return count;
  }

  /** Points the entries from that of `offset` on, of one table, at `sectors`. */
  *set(offset: number, sectors: readonly number[]): Task {
    const { grainSize, perTable } = this.header, index = (offset / grainSize) % perTable, table = yield* this.#change(this.#tableOf(offset));
    for (const [i, sector] of sectors.entries()) table.view.setUint32((index + i) * ENTRY_SIZE, sector, true);
    table.touch(index * ENTRY_SIZE, (index + sectors.length) * ENTRY_SIZE);
  }

  /** Guest bytes from `offset` to where the next grain table or the next extent takes over, in whole grains. */
  room(offset: number): number {
    const { perTable, grainSize } = this.header, span = perTable * grainSize;
    return Math.min(span - (offset % span), Math.ceil((this.length - offset) / grainSize) * grainSize);
  }

  /** Takes bytes at the end of the file. */
  take(bytes: number, align: number): number {
    const at = Math.ceil(this.#end / align) * align;
    if (at + bytes > MAX_SIZE) throw new DiskError("no-space", "the extent has reached 2 TiB, and its tables can point no further: convert the image to twoGbMaxExtentSparse or another format", { path: this.file.name, format: "vmdk" });
    this.#end = at + bytes;
    return at;
  }

  /** Gives back what was taken last. */
  give(at: number, bytes: number): void {
    if (at + bytes === this.#end) this.#end = at;
  }

  /** Whether so much is dirty that the owner must flush before it changes more. */
  get full(): boolean {
    return this.#tables.full;
  }

  /** Grains, then the tables that point at them, then the directories, each durable before the next; of tables both copies. */
  *flush(): Task {
    if (this.header.kind === "cowd") yield* this.#writeFreeSector();
    yield flush(this.file, "grains before the grain tables that point at them");
    if (this.#tables.dirty) {
      yield* this.#tables.writeBack();
      yield flush(this.file, "grain tables before the directories that point at them");
      this.#tables.clean();
    }
    if (!this.directory.dirty) return;
    yield* this.directory.writeBack();
    yield flush(this.file, "grain directories");
    this.directory.clean();
  }

  /** ESX takes new space from there: it is never before the end of what the tables point at. */
  *#writeFreeSector(): Task {
    const sector = Math.ceil(this.#end / SECTOR), bytes = new Uint8Array(4);
    if (sector === this.#freeSector) return;
    new DataView(bytes.buffer).setUint32(0, sector, true);
    yield write(this.file, CowdFields.offsetOf("freeSector"), bytes);
    this.#freeSector = sector;
  }

  #tableOf(offset: number): number {
    return Math.floor(offset / (this.header.grainSize * this.header.perTable));
  }

  #isData(sector: number): boolean {
    return sector > ZERO || (sector === ZERO && !this.header.zeroGrain);
  }

  /** A guest's write in place must never reach metadata, nor where a later grain will be. */
  #check(number: number, table: Table): void {
    const metadata = this.#metadata, { grainSize, perTable, compressed } = this.header, grain = compressed ? 1 : grainSize / SECTOR;
    if (metadata === undefined) return;
    // Behind the extent's end entries mean nothing.
    const used = Math.min(perTable, Math.ceil(this.length / grainSize) - number * perTable);
    for (let index = 0; index < used; index++) {
      const sector = entry(table, index), at = table.at + index * ENTRY_SIZE;
      if (!this.#isData(sector)) continue;
      if (metadata.overlaps(sector, sector + grain)) throw corrupt(this.file, `a grain stands at ${hex(sector * SECTOR)}, where the image has its tables`, at);
      if (sector * SECTOR >= this.#end) throw corrupt(this.file, `the file is truncated: a grain should stand at ${hex(sector * SECTOR)}`, at);
    }
  }
}
