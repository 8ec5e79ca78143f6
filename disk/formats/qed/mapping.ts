import { getU64, setU64 } from "../../bytes/struct.ts";
import { DiskError, hex } from "../../errors.ts";
import type { Extent } from "../../image.ts";
import { Table, TableCache } from "../../metadata/table.ts";
import type { Storage } from "../../storage.ts";
import { flush, read, truncate, type Task } from "../../task.ts";
import { endOf, type QedHeader } from "./header.ts";

export const ENTRY_SIZE = 8;
/** The entry of a cluster that reads as zeros. */
export const ZERO = 1;
/** L2 tables, which take up to 1 GiB, are kept in pieces of this size. */
const PIECE = 4096, PER_PIECE = PIECE / ENTRY_SIZE;
/** No disk of less than 2^53 bytes needs more of an L1, whatever the geometry. */
const MAX_L1 = 2 * 2 ** 20;

/** Where the entry of a guest offset stands: which L1 entry, which piece of its table, which entry there. */
export interface Place { readonly l1Index: number; readonly piece: number; readonly index: number }

/** The two levels of tables, and the end of the file, where new clusters are taken. */
export class Mapping {
  readonly #l2: TableCache;
  /** Where L2 tables begin: the guest's data must never reach them. Only for writing. */
  readonly #tables = new Set<number>();
  /** Guest bytes that one L2 table covers. */
  readonly #coverage: number;
  /** New clusters are taken from here. */
  end: number;

  private constructor(readonly file: Storage, readonly header: QedHeader, readonly l1: Table, readonly writable: boolean, tableCache: number) {
    this.#l2 = new TableCache(file, PIECE, tableCache);
    this.#coverage = (header.tableBytes / ENTRY_SIZE) * header.clusterSize;
    this.end = endOf(file, header);
  }

  static *open(file: Storage, header: QedHeader, writable: boolean, tableCache: number): Task<Mapping> {
    const l1 = new Table(header.l1Offset, new Uint8Array(Math.min(header.tableBytes, MAX_L1)));
    yield read(file, header.l1Offset, l1.bytes);
    const mapping = new Mapping(file, header, l1, writable, tableCache);
    if (writable) mapping.#collectTables();
    return mapping;
  }

  place(offset: number): Place {
    const cluster = Math.floor((offset % this.#coverage) / this.header.clusterSize);
    return { l1Index: Math.floor(offset / this.#coverage), piece: Math.floor(cluster / PER_PIECE), index: cluster % PER_PIECE };
  }

  /** Guest bytes from `offset` to where the next piece of a table takes over. */
  room(offset: number): number {
    const span = PER_PIECE * this.header.clusterSize;
    return span - (offset % span);
  }

  map(offset: number, length: number): Extent | undefined {
    const { l1Index, piece, index } = this.place(offset), at = this.tableAt(l1Index), { clusterSize } = this.header;
    if (at === 0) return { kind: "backing", length: Math.min(length, this.#coverage - (offset % this.#coverage)) };
    const table = this.#l2.get(at / PIECE + piece);
    if (table === undefined) return undefined;
    const entry = this.entry(table, index), skip = offset % clusterSize, step = entry > ZERO ? clusterSize : 0;
    let run = clusterSize - skip;
    for (let next = index + 1; run < length && next < PER_PIECE && getU64(table.view, next * ENTRY_SIZE, true) === entry + step * (next - index); next++) {
      this.entry(table, next);
      run += clusterSize;
    }
    run = Math.min(run, length);
    if (entry === 0) return { kind: "backing", length: run };
    if (entry === ZERO) return { kind: "zero", length: run };
    return { kind: "data", length: run, storage: this.file, offset: entry + skip, writable: this.writable };
  }

  /** The piece of an L2 table that tells of a guest offset; `undefined` where there is no table. */
  *load(offset: number): Task<Table | undefined> {
    const { l1Index, piece } = this.place(offset), at = this.tableAt(l1Index);
    if (at === 0) return undefined;
    return yield* this.#l2.load(at / PIECE + piece, at + piece * PIECE, (table) => { this.#check(table); });
  }

  /** As `load`, with a new table where there is none; the caller may change it until its next yield. */
  *change(offset: number): Task<Table> {
    const { l1Index } = this.place(offset);
    if (this.tableAt(l1Index) === 0) {
      const at = this.take(this.header.tableBytes);
      // What is new in a file reads as zeros: an empty table.
      yield truncate(this.file, at + this.header.tableBytes);
      this.#tables.add(at);
      setU64(this.l1.view, l1Index * ENTRY_SIZE, at, true);
      this.l1.touch(l1Index * ENTRY_SIZE, (l1Index + 1) * ENTRY_SIZE);
    }
    const table = yield* this.load(offset);
    if (table === undefined) throw new Error("a table that was just made is missing");
    return table;
  }

  /** Points the entry of a guest offset, in its piece from `change`, at `value`. */
  set(table: Table, index: number, value: number): void {
    setU64(table.view, index * ENTRY_SIZE, value, true);
    table.touch(index * ENTRY_SIZE, (index + 1) * ENTRY_SIZE);
    this.#l2.modify(table.at / PIECE, table);
  }

  /** Takes bytes at the end of the file, as whole clusters. */
  take(bytes: number): number {
    const at = this.end;
    this.end += bytes;
    return at;
  }

  /** Drops every table and cluster: an empty L1 first, then the end of the file. */
  *clear(): Task {
    this.l1.bytes.fill(0);
    this.l1.touch();
    yield* this.l1.writeBack(this.file);
    yield flush(this.file, "qed: the empty L1 before its tables and clusters are cut off");
    this.l1.clean();
    this.#l2.clear();
    this.#tables.clear();
    const { headerBytes, l1Offset, tableBytes } = this.header;
    this.end = Math.max(headerBytes, l1Offset + tableBytes);
    yield truncate(this.file, this.end);
  }

  get dirty(): boolean {
    return this.#l2.dirty || this.l1.dirty;
  }

  /** Whether so much is dirty that the owner must flush before it changes more. */
  get full(): boolean {
    return this.#l2.full;
  }

  /** Clusters, then the L2 tables that point at them, then the L1, each durable before the next. */
  *writeBack(): Task {
    yield flush(this.file, "clusters before the tables that point at them");
    if (this.#l2.dirty) {
      yield* this.#l2.writeBack();
      yield flush(this.file, "qed: L2 tables before the L1 that points at them");
      this.#l2.clean();
    }
    if (!this.l1.dirty) return;
    yield* this.l1.writeBack(this.file);
    yield flush(this.file, "qed: L1 of clusters that the guest flushed");
    this.l1.clean();
  }

  /** Where the L2 table of an L1 entry stands; 0: there is none. */
  tableAt(l1Index: number): number {
    const at = getU64(this.l1.view, l1Index * ENTRY_SIZE, true);
    if (at !== 0 && !this.#fits(at, this.header.tableBytes)) throw this.#corrupt(`L1 entry ${l1Index} points at ${hex(at)}, where no table can be`, this.l1.at + l1Index * ENTRY_SIZE);
    return at;
  }

  /** An entry of an L2 table: 0, `ZERO`, or where the cluster is. */
  entry(table: Table, index: number): number {
    const at = getU64(table.view, index * ENTRY_SIZE, true);
    if (at > ZERO && !this.#fits(at, this.header.clusterSize)) throw this.#corrupt(`an L2 entry points at ${hex(at)}, where no cluster can be; run check -r all`, table.at + index * ENTRY_SIZE);
    return at;
  }

  #fits(at: number, length: number): boolean {
    const { clusterSize, headerBytes, l1Offset, tableBytes } = this.header;
    return at % clusterSize === 0 && at >= headerBytes && at + length <= this.end && (at + length <= l1Offset || at >= l1Offset + tableBytes);
  }

  /** A guest's write in place must never reach a table, whatever an entry says. */
  #check(table: Table): void {
    for (let index = 0; this.writable && index < PER_PIECE; index++) {
      const at = this.entry(table, index);
      if (at > ZERO && this.#inTable(at)) throw this.#corrupt(`an L2 entry points at ${hex(at)}, which is a table; run check -r all`, table.at + index * ENTRY_SIZE);
    }
  }

  #inTable(at: number): boolean {
    const { clusterSize, tableBytes } = this.header;
    for (let back = 0; back < tableBytes; back += clusterSize) if (this.#tables.has(at - back)) return true;
    return false;
  }

  #collectTables(): void {
    const { clusterSize, tableBytes } = this.header;
    for (let index = 0; index < this.l1.bytes.length / ENTRY_SIZE; index++) {
      const at = this.tableAt(index);
      if (at === 0) continue;
      for (let ahead = 0; ahead < tableBytes; ahead += clusterSize) {
        if (this.#tables.has(at + ahead) || this.#inTable(at)) throw this.#corrupt(`L1 entry ${index} points at a table that is another's; run check`, this.l1.at + index * ENTRY_SIZE);
      }
      this.#tables.add(at);
    }
  }

  #corrupt(what: string, offset: number): DiskError {
    return new DiskError("corrupt", what, { path: this.file.name, offset, format: "qed" });
  }
}
