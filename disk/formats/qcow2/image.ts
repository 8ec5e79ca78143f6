import { DiskError, hex } from "../../errors.ts";
import { ReadFence, type Allocation, type BackingReference, type Extent, type Image } from "../../image.ts";
import { Guard } from "../../metadata/guard.ts";
import type { Storage } from "../../storage.ts";
import { close, discard, truncate, write, type Task } from "../../task.ts";
import type { Codec } from "./codec.ts";
import { markCorrupt, type Qcow2Header } from "./header.ts";
import { clustersOf, decode, encode, encodePacked, ENTRY_SIZE, referenced, type Entry } from "./l2-entry.ts";
import { corrupt, type Mapping } from "./mapping.ts";
import { PackedSpace } from "./packed-space.ts";
import type { Refcounts } from "./refcounts.ts";
import { reserve, writeSize } from "./resize.ts";

const SECTOR = 512;

/** A reference that was dropped. It still counts until the tables that dropped it are durable and old reads have ended. */
interface Dropped { readonly cluster: number; readonly since: number; readonly punch: boolean }

/** An open qcow2 image. docs/interop/qcow2.rst; the order of writes is told in FORMAT.md. */
export class Qcow2Image implements Image {
  readonly format = "qcow2";
  readonly blockSize: number;
  readonly backing: BackingReference | undefined;
  readonly reads = new ReadFence();
  size: number;
  readonly pack: Codec["pack"];
  #packedSpace: PackedSpace | undefined;
  #dropped: Dropped[] = [];
  readonly #guard: Guard;

  /** Without `refcounts` the image is read-only. */
  constructor(readonly storage: Storage, readonly header: Qcow2Header, readonly mapping: Mapping, readonly refcounts: Refcounts | undefined) {
    this.size = header.size;
    this.blockSize = header.clusterSize;
    this.#guard = new Guard(() => markCorrupt(storage, header));
    this.pack = mapping.codec.pack;
    this.backing = header.backingFile === undefined ? undefined : { file: header.backingFile, format: header.backingFormat };
  }

  get readOnly(): boolean {
    return this.refcounts === undefined;
  }

  map(offset: number, length: number): Extent | undefined {
    return this.mapping.map(offset, length);
  }

  *load(offset: number): Task {
    yield* this.mapping.load(this.mapping.place(offset).l1Index);
  }

  allocate(guest: number, length: number): Task<Allocation> {
    return this.#guard.change(this.#allocate(guest, length));
  }

  publish(allocation: Allocation): Task {
    return this.#guard.change(this.#publish(allocation));
  }

  storePacked(guest: number, packed: Uint8Array): Task {
    return this.#guard.change(this.#storePacked(guest, packed));
  }

  zero(guest: number, length: number, keep: boolean): Task<boolean> {
    return this.#guard.change(this.#zero(guest, length, keep));
  }

  discard(guest: number, length: number): Task {
    return this.#guard.change(this.#discard(guest, length));
  }

  reserve(size: number): Task {
    return this.#guard.change(this.#reserve(size));
  }

  resize(size: number): Task {
    return this.#guard.change(this.#resize(size));
  }

  flush(): Task {
    return this.#guard.change(this.#flush());
  }

  abandon({ fresh, length, offset }: Allocation): void {
    if (fresh) this.#drop(Array.from({ length: length / this.blockSize }, (_, i) => offset / this.blockSize + i), false);
  }

  *close(): Task {
    try {
      if (this.refcounts !== undefined && this.#guard.sound) {
        yield* this.flush();
        yield* this.#release(this.refcounts, () => true);
        yield* this.refcounts.writeBack();
      }
    } finally {
      yield close(this.storage);
    }
  }

  *#allocate(guest: number, length: number): Task<Allocation> {
    const refcounts = this.#counts();
    yield* this.#relieve(refcounts);
    const { l1Index, index } = this.mapping.place(guest);
    const table = yield* this.mapping.writable(l1Index, refcounts, this.#dropTable);
    const bits = this.header.clusterBits, first = decode(table, index, bits);
    // A preallocated zero cluster that is ours alone is written where it is.
    if (first.kind === "zero" && first.host !== 0 && first.copied) {
      // Nothing was ever read or written there: whether it is a cluster, and ours, shows only here.
      if (first.host % this.blockSize !== 0 || (yield* refcounts.get(first.host / this.blockSize)) !== 1) throw corrupt(this.storage, `a zero cluster claims ${hex(first.host)}, which is not its own; run check -r all`, table.at + index * ENTRY_SIZE);
      return { guest, length: this.blockSize, storage: this.storage, offset: first.host, fresh: false };
    }
    const limit = Math.min(length / this.blockSize, this.mapping.perTable - index);
    let count = 1;
    while (count < limit && !isOurs(decode(table, index + count, bits))) count++;
    const run = yield* refcounts.allocate(count);
    return { guest, length: run.count * this.blockSize, storage: this.storage, offset: run.cluster * this.blockSize, fresh: true };
  }

  *#publish({ guest, length, offset }: Allocation): Task {
    const { l1Index, index } = this.mapping.place(guest);
    const table = yield* this.mapping.writable(l1Index, this.#counts(), this.#dropTable);
    for (let i = 0; i < length / this.blockSize; i++) this.#point(table, index + i, offset + i * this.blockSize, false, false);
  }

  *#storePacked(guest: number, packed: Uint8Array): Task {
    const refcounts = this.#counts(), { clusterBits } = this.header;
    yield* this.#relieve(refcounts);
    const space = (this.#packedSpace ??= new PackedSpace(this.storage.name, this.header, refcounts));
    const host = yield* space.take(packed.length);
    try {
      yield write(this.storage, host, packed);
      const { l1Index, index } = this.mapping.place(guest);
      const table = yield* this.mapping.writable(l1Index, refcounts, (clusters) => { this.#drop(clusters, false); });
      this.#drop(referenced(decode(table, index, clusterBits), this.blockSize), false);
      encodePacked(table, index, host, packed.length, clusterBits);
    } catch (error) {
      this.#drop(clustersOf(host, packed.length, this.blockSize), false);
      throw error;
    }
  }

  *#zero(guest: number, length: number, keep: boolean): Task<boolean> {
    const zeroFlag = this.header.version >= 3;
    if (!zeroFlag && this.backing !== undefined) return false;
    yield* this.#change(guest, length, (entry) => {
      if (entry.kind === "unallocated" && this.backing === undefined) return undefined;
      if (entry.kind === "zero" && (keep || entry.host === 0)) return undefined;
      if (!zeroFlag) return { host: 0, zero: false };
      return { host: keep && isOurs(entry) ? entry.host : 0, zero: true };
    });
    return true;
  }

  /** Version 2 cannot say "zero" above a backing file: there the old data stays. */
  *#discard(guest: number, length: number): Task {
    const zeroFlag = this.header.version >= 3;
    if (!zeroFlag && this.backing !== undefined) return;
    yield* this.#change(guest, length, (entry) => {
      if (entry.kind === "unallocated" && this.backing === undefined) return undefined;
      if (entry.kind === "zero" && entry.host === 0) return undefined;
      return { host: 0, zero: zeroFlag };
    });
  }

  *#reserve(size: number): Task {
    yield* this.#flush();
    yield* reserve(this.storage, this.header, this.mapping, this.#counts(), size);
  }

  *#resize(size: number): Task {
    yield* this.#reserve(size);
    const kept = Math.ceil(size / this.blockSize) * this.blockSize;
    yield* this.#change(kept, this.size - kept, (entry) => (entry.kind === "unallocated" ? undefined : { host: 0, zero: false }));
    yield* this.#flush();
    yield* writeSize(this.storage, size);
    this.size = size;
  }

  *#flush(): Task {
    const refcounts = this.#counts(), { storage } = this;
    // Who reads a compressed cluster reads whole sectors.
    if (storage.size % SECTOR !== 0) yield truncate(storage, Math.ceil(storage.size / SECTOR) * SECTOR);
    yield* refcounts.writeBack();
    // Tables only ever point at data, and at clusters counted, that are durable by now.
    yield* this.mapping.writeBack();
    yield* this.#release(refcounts, (since) => this.reads.passed(since));
  }

  /** Changes the entries of whole clusters to what `to` says: `undefined` leaves one as it is. */
  *#change(guest: number, length: number, to: (entry: Entry) => { host: number; zero: boolean } | undefined): Task {
    const refcounts = this.#counts(), end = guest + length;
    while (guest < end) {
      yield* this.#relieve(refcounts);
      const { l1Index, index } = this.mapping.place(guest);
      const count = Math.min(this.mapping.perTable - index, Math.ceil((end - guest) / this.blockSize));
      guest += count * this.blockSize;
      const old = yield* this.mapping.load(l1Index);
      if (!this.#anyChange(old, index, count, to)) continue;
      const table = yield* this.mapping.writable(l1Index, refcounts, this.#dropTable);
      for (let i = index; i < index + count; i++) {
        const change = to(decode(table, i, this.header.clusterBits));
        if (change !== undefined) this.#point(table, i, change.host, change.zero, true);
      }
    }
  }

  #anyChange(table: Parameters<typeof decode>[0] | undefined, index: number, count: number, to: (entry: Entry) => unknown): boolean {
    if (table === undefined) return to({ kind: "unallocated", host: 0, copied: false }) !== undefined;
    for (let i = index; i < index + count; i++) if (to(decode(table, i, this.header.clusterBits)) !== undefined) return true;
    return false;
  }

  /** Sets one entry and drops what it referenced before. */
  #point(table: Parameters<typeof decode>[0], index: number, host: number, zero: boolean, punch: boolean): void {
    const old = decode(table, index, this.header.clusterBits);
    if (old.kind === "compressed" || old.host !== host) this.#drop(referenced(old, this.blockSize), punch);
    encode(table, index, host, zero);
  }

  readonly #dropTable = (clusters: readonly number[]): void => { this.#drop(clusters, false); };

  #drop(clusters: readonly number[], punch: boolean): void {
    const since = this.reads.now();
    for (const cluster of clusters) this.#dropped.push({ cluster, since, punch });
  }

  /** Frees what was dropped, now that the tables which dropped it are durable. */
  *#release(refcounts: Refcounts, passed: (since: number) => boolean): Task {
    const due = this.#dropped.filter(({ since }) => passed(since));
    if (due.length === 0) return;
    this.#dropped = this.#dropped.filter(({ since }) => !passed(since));
    const free = new Set(yield* refcounts.release(due.map(({ cluster }) => cluster)));
    this.#packedSpace?.freed(free);
    const holes = due.filter(({ cluster, punch }) => punch && free.has(cluster)).map(({ cluster }) => cluster).sort((a, b) => a - b);
    for (let i = 0; i < holes.length;) {
      let count = 1;
      while (holes[i + count] === (holes[i] ?? 0) + count) count++;
      yield discard(this.storage, (holes[i] ?? 0) * this.blockSize, count * this.blockSize);
      i += count;
    }
  }

  /** Dirty tables are bounded: beyond the bound the whole ordered flush runs first. */
  *#relieve(refcounts: Refcounts): Task {
    if (refcounts.full || this.mapping.full) yield* this.#flush();
  }

  #counts(): Refcounts {
    if (this.refcounts === undefined) throw new DiskError("read-only", "the image is open read-only", { path: this.storage.name, format: "qcow2" });
    return this.refcounts;
  }
}

/** Whether the guest may write where the entry points. */
function isOurs(entry: Entry): boolean {
  return entry.copied && (entry.kind === "data" || (entry.kind === "zero" && entry.host !== 0));
}
