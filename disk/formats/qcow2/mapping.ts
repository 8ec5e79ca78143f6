import { setU64 } from "../../bytes/struct.ts";
import { DiskError, hex } from "../../errors.ts";
import type { Extent } from "../../image.ts";
import { Table, TableCache } from "../../metadata/table.ts";
import type { Storage } from "../../storage.ts";
import { flush, read, write, type Task } from "../../task.ts";
import type { Codec } from "./codec.ts";
import { HeaderFields, type Qcow2Header } from "./header.ts";
import { encode, type Entry, EntryLayout, ENTRY_SIZE, high, hostOffset, isCompressed, isCopied, isZero, low, type PackedPlace, packedPlace } from "./l2-entry.ts";
import type { Refcounts } from "./refcounts.ts";
import { continues, kindOf, runOf } from "./subclusters.ts";

/** A guest cluster's place: its L2 table and its entry there. */
export interface Place { readonly l1Index: number; readonly index: number }

/** What a mapping is made of. */
interface Parts {
  /** The file with the metadata, and where the guest's data stands: in the same or in one of its own. */
  readonly file: Storage;
  readonly data: Storage;
  readonly header: Qcow2Header;
  /** Absent: it is for reading only. */
  readonly refcounts: Refcounts | undefined;
  readonly codec: Codec;
}

/** The L1 table and the resident L2 tables: from guest offset to extent. docs/interop/qcow2.rst, "Cluster mapping". */
export class Mapping {
  readonly file: Storage;
  readonly data: Storage;
  readonly header: Qcow2Header;
  readonly refcounts: Refcounts | undefined;
  readonly codec: Codec;
  readonly clusterSize: number;
  readonly layout: EntryLayout;
  /** L2 entries a table. */
  readonly perTable: number;
  /** Entries are not plain ones that point into the same file. */
  readonly #special: boolean;
  readonly #l2: TableCache;
  /** The L1 that the header may still point at. */
  #outgrown: Table | undefined;

  private constructor(parts: Parts, public l1: Table, cacheBytes: number) {
    ({ file: this.file, data: this.data, header: this.header, refcounts: this.refcounts, codec: this.codec } = parts);
    this.clusterSize = this.header.clusterSize;
    this.layout = new EntryLayout(this.header.clusterBits, this.header.incompatible);
    this.perTable = this.clusterSize / this.layout.entrySize;
    this.#special = this.layout.subclusters > 1 || this.layout.external;
    this.#l2 = new TableCache(this.file, this.clusterSize, cacheBytes);
  }

  static *open(parts: Parts, cacheBytes: number): Task<Mapping> {
    const { file, header } = parts, l1 = new Table(header.l1Offset, new Uint8Array(header.l1Size * ENTRY_SIZE));
    if (header.l1Size > 0 && header.l1Offset >= file.size) throw corrupt(file, "the file is truncated: it ends before its L1 table", header.l1Offset);
    yield read(file, l1.at, l1.bytes);
    return new Mapping(parts, l1, cacheBytes);
  }

  place(offset: number): Place {
    const cluster = Math.floor(offset / this.clusterSize), index = cluster % this.perTable;
    return { l1Index: (cluster - index) / this.perTable, index };
  }

  /** `Image.map`. */
  map(offset: number, length: number): Extent | undefined {
    const size = this.clusterSize, skip = offset % size, cluster = (offset - skip) / size;
    const index = cluster % this.perTable, l1Index = (cluster - index) / this.perTable;
    length = Math.min(length, (this.perTable - index) * size - skip);
    const table = this.#l2.get(l1Index);
    if (table === undefined) return this.tableAt(l1Index) === 0 ? { kind: "backing", length } : undefined;
    if (this.#special) return this.#mapClosely(table, offset, length);
    const hi = high(table, index), lo = low(table, index);
    if (isCompressed(hi)) return this.#packed(packedPlace(hi, lo, this.header.clusterBits), skip, Math.min(length, size - skip));
    const host = hostOffset(hi, lo);
    if (host % size !== 0) throw corrupt(this.file, `the L2 entry of guest cluster ${cluster} points at ${hex(host)}, which is no cluster`, table.at + index * ENTRY_SIZE);
    length = this.#run(table, index, hi, lo, length, size - skip);
    if (isZero(lo)) return this.#zero(host, skip, length);
    if (host === 0) return { kind: "backing", length };
    if (host >= this.file.size) throw corrupt(this.file, `the file is truncated: guest cluster ${cluster} should stand at ${hex(host)}, but the file has ${this.file.size} bytes`, host);
    // What lies wholly behind the end of the file is no part of this answer: asked for, it is the error above.
    const present = Math.ceil(this.file.size / size) * size - host - skip;
    if (length > present) length = present;
    return { kind: "data", length, storage: this.file, offset: host + skip, writable: isCopied(hi) && this.refcounts !== undefined };
  }

  #zero(host: number, skip: number, length: number): Extent {
    if (this.header.version < 3) throw corrupt(this.file, "a zero flag, which version 2 does not have", 0);
    return host === 0 ? { kind: "zero", length } : { kind: "zero", length, offset: host + skip };
  }

  /** How far entries after `index` go on as the first one began, in bytes of at most `length`; `done`: what the first gives. */
  #run(table: Table, index: number, hi: number, lo: number, length: number, done: number): number {
    const step = hostOffset(hi, lo) === 0 ? 0 : this.clusterSize;
    for (let next = index + 1; done < length; next++, done += this.clusterSize) {
      lo += step;
      if (lo >= 2 ** 32) { lo -= 2 ** 32; hi++; }
      if (low(table, next) !== lo || high(table, next) !== hi) return done;
    }
    return length;
  }

  #packed({ host, packedLength }: PackedPlace, skip: number, length: number): Extent {
    if (host >= this.file.size) throw corrupt(this.file, "compressed data should stand behind the end of the file: it is truncated", host);
    return { kind: "packed", length, storage: this.file, offset: host, packedLength, clusterSize: this.clusterSize, skip, unpack: this.codec.unpack, unpackLater: this.codec.unpackLater };
  }

  /** `map` where an entry takes a closer look: subclusters, or data in a file of its own. */
  #mapClosely(table: Table, guest: number, length: number): Extent {
    const { clusterSize, layout } = this, block = clusterSize / layout.subclusters, skip = guest % clusterSize;
    const entry = this.entry(table, guest);
    if (entry.packed !== undefined) return this.#packed(entry.packed, skip, Math.min(length, clusterSize - skip));
    const first = Math.floor(skip / block), kind = kindOf(entry, first), { index } = this.place(guest);
    let done = (first + runOf(entry, first, kind, layout.subclusters)) * block - skip;
    for (let next = 1; done < length && done === next * clusterSize - skip; next++) {
      const more = layout.decode(table, index + next);
      if (!continues(entry, more, next * clusterSize) || kindOf(more, 0) !== kind) break;
      done += runOf(more, 0, kind, layout.subclusters) * block;
    }
    length = Math.min(length, done);
    if (kind === "data") return this.#data(entry, guest, length, block);
    return entry.host === undefined ? { kind, length } : { kind, length, offset: entry.host + skip };
  }

  #data({ host = 0, copied }: Entry, guest: number, length: number, block: number): Extent {
    const { data, layout, clusterSize } = this, offset = host + (guest % clusterSize);
    // A data file may end with the disk, amid its last cluster.
    const unit = layout.external ? clusterSize : block;
    if (offset - (offset % unit) >= data.size) throw corrupt(data, `the file is truncated: guest offset ${hex(guest)} should stand at ${hex(offset)}, but the file has ${data.size} bytes`, offset);
    // As in `map`: what lies wholly behind the end of the file is no part of this answer.
    const present = Math.ceil(data.size / unit) * unit - offset;
    return { kind: "data", length: Math.min(length, present), storage: data, offset, writable: copied && this.refcounts !== undefined };
  }

  /** The entry of the guest cluster that `guest` is in, of its resident table. Throws `corrupt` for one that cannot be. */
  entry(table: Table, guest: number): Entry {
    const { index } = this.place(guest), entry = this.layout.decode(table, index), { host, present, zeros } = entry;
    const wrong = (what: string): DiskError => corrupt(this.file, `the L2 entry of guest cluster ${Math.floor(guest / this.clusterSize)} ${what}`, table.at + index * this.layout.entrySize);
    if (host !== undefined && host % this.clusterSize !== 0) throw wrong(`points at ${hex(host)}, which is no cluster; run check -r all`);
    if (this.layout.external && host !== undefined && host !== guest - (guest % this.clusterSize)) throw wrong(`points at ${hex(host)} of the data file, which is not its own place`);
    if ((present & zeros) !== 0) throw wrong("has subclusters that are data and zeros at once; run check");
    if (host === undefined && present !== 0) throw wrong("has subclusters with data, but no cluster; run check");
    return entry;
  }

  /** Makes the table of `l1Index` resident. Answers it, or `undefined` where there is none. */
  *load(l1Index: number): Task<Table | undefined> {
    const resident = this.#l2.get(l1Index);
    if (resident !== undefined) return resident;
    const at = this.tableAt(l1Index);
    if (at === 0) return undefined;
    if (at >= this.file.size) throw corrupt(this.file, `the file is truncated: it ends before an L2 table`, at);
    return yield* this.#l2.load(l1Index, at, (table) => { this.#check(table); });
  }

  /** The table of `l1Index`, ours alone, made or copied if need be. The caller may change it until its next yield. */
  *writable(l1Index: number, refcounts: Refcounts, free: (clusters: number[]) => void): Task<Table> {
    const old = this.tableAt(l1Index);
    let table = yield* this.load(l1Index);
    if (table === undefined || !isCopied(high(this.l1, l1Index))) {
      const at = (yield* refcounts.allocate(1)).cluster * this.clusterSize;
      if (table === undefined) table = this.#l2.create(l1Index, at);
      else {
        // Shared with a snapshot: its entries go on in a table of our own.
        table.at = at;
        table.touch();
        refcounts.unprotect([old / this.clusterSize]);
        free([old / this.clusterSize]);
      }
      encode(this.l1, l1Index, at);
    }
    this.#l2.modify(l1Index, table);
    return table;
  }

  /** Whether so much is dirty that the owner must flush before it changes more. */
  get full(): boolean {
    return this.#l2.full;
  }

  /** Whether anything has to be written back. */
  get dirty(): boolean {
    return this.#l2.dirty || this.l1.dirty;
  }

  /** The L1 goes on in `table`, whose contents are durable. */
  *moveL1(table: Table, refcounts: Refcounts): Task {
    [this.l1, this.#outgrown] = [table, this.l1];
    yield* this.settle(refcounts);
  }

  /**
   * Points the header at the L1 that moved, and gives the old one back. Where that failed nobody knows which one the
   * header has: it is done again before the L1 is changed or moved once more.
   */
  *settle(refcounts: Refcounts): Task {
    const old = this.#outgrown;
    if (old === undefined) return;
    const bytes = new Uint8Array(12), view = new DataView(bytes.buffer);
    view.setUint32(0, this.l1.bytes.length / ENTRY_SIZE);
    setU64(view, 4, this.l1.at);
    yield write(this.file, HeaderFields.offsetOf("l1Size"), bytes);
    yield flush(this.file, "header points at the grown L1 before the old one is reused");
    this.#outgrown = undefined;
    const freed = Array.from({ length: Math.ceil(old.bytes.length / this.clusterSize) }, (_, i) => old.at / this.clusterSize + i);
    refcounts.unprotect(freed);
    yield* refcounts.release(freed);
  }

  /** L2 tables, then the L1 that points at them, each durable before the next. */
  *writeBack(): Task {
    if (this.refcounts !== undefined) yield* this.settle(this.refcounts);
    if (this.#l2.dirty) {
      yield* this.#l2.writeBack();
      yield flush(this.file, "L2 tables before the L1 that points at them");
      this.#l2.clean();
    }
    if (!this.l1.dirty) return;
    yield* this.l1.writeBack(this.file);
    yield flush(this.file, "L1 before what it no longer points at is reused");
    this.l1.clean();
  }

  /** The host offset of an L2 table; 0: none. */
  tableAt(l1Index: number): number {
    const at = hostOffset(high(this.l1, l1Index), low(this.l1, l1Index));
    if (at % this.clusterSize !== 0) throw corrupt(this.file, `L1 entry ${l1Index} points at ${hex(at)}, which is no cluster`, this.l1.at + l1Index * ENTRY_SIZE);
    return at;
  }

  /** A guest's write in place must never reach metadata, whatever an entry says. */
  #check(table: Table): void {
    if (this.refcounts === undefined || this.layout.external) return;
    const step = this.layout.entrySize / ENTRY_SIZE;
    for (let index = 0; index < this.perTable * step; index += step) {
      const hi = high(table, index), host = hostOffset(hi, low(table, index)), cluster = Math.floor(host / this.clusterSize);
      if (isCompressed(hi) || !isCopied(hi) || host === 0 || !this.refcounts.isMetadata(cluster)) continue;
      throw corrupt(this.file, `an L2 entry points at cluster ${cluster}, which holds metadata; run check -r all`, table.at + index * ENTRY_SIZE);
    }
  }
}

export function corrupt(file: Storage, what: string, offset: number): DiskError {
  return new DiskError("corrupt", what, { path: file.name, offset, format: "qcow2" });
}
