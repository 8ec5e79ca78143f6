import { DiskError, hex } from "../../errors.ts";
import { ReadFence, type Allocation, type BackingReference, type Bitmaps, type Extent, type Image } from "../../image.ts";
import { Guard } from "../../metadata/guard.ts";
import type { Table } from "../../metadata/table.ts";
import type { Pending, Storage } from "../../storage.ts";
import { close, discard, truncate, write, type Task } from "../../task.ts";
import { Qcow2Bitmaps } from "./bitmaps.ts";
import type { Codec } from "./codec.ts";
import { cleared, cutOff } from "./contents.ts";
import { markCorrupt, type Qcow2Header } from "./header.ts";
import { clustersOf, type Content, type Entry, referenced, UNALLOCATED } from "./l2-entry.ts";
import { corrupt, type Mapping } from "./mapping.ts";
import { PackedSpace } from "./packed-space.ts";
import type { Refcounts } from "./refcounts.ts";
import { reserve, writeSize } from "./resize.ts";
import { span, touched } from "./subclusters.ts";

const SECTOR = 512;

/** A reference that was dropped. It still counts until the tables that dropped it are durable and old reads have ended. */
interface Dropped { readonly cluster: number; readonly since: number; readonly punch: boolean }

interface Range { readonly offset: number; readonly length: number }

/** What becomes of the subclusters `mask` of an entry; `undefined`: it stays as it is. */
type Change = (entry: Entry, mask: number) => Content | undefined;

/** An open qcow2 image. docs/interop/qcow2.rst; the order of writes is told in FORMAT.md. */
export class Qcow2Image implements Image {
  readonly format = "qcow2";
  readonly blockSize: number;
  readonly packSize: number;
  readonly backing: BackingReference | undefined;
  readonly reads = new ReadFence();
  size: number;
  readonly pack: Codec["pack"];
  #packedSpace: PackedSpace | undefined;
  #dropped: Dropped[] = [];
  readonly #guard: Guard;
  #bitmaps: Qcow2Bitmaps | undefined;

  /** Without `refcounts` the image is read-only; otherwise `bitmaps` are its own, if it has any. */
  constructor(readonly storage: Storage, readonly header: Qcow2Header, readonly mapping: Mapping, readonly refcounts: Refcounts | undefined, bitmaps?: Qcow2Bitmaps) {
    this.#bitmaps = bitmaps;
    this.size = header.size;
    this.packSize = header.clusterSize;
    this.blockSize = header.clusterSize / mapping.layout.subclusters;
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

  changing(guest: number, length: number): Pending {
    return this.#bitmaps?.changing(guest, length);
  }

  *bitmaps(): Task<Bitmaps> {
    return (this.#bitmaps ??= yield* Qcow2Bitmaps.open(this.storage, this.header));
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
    if (!fresh) return;
    const { clusterSize } = this.mapping, first = Math.floor(offset / clusterSize), end = Math.ceil((offset + length) / clusterSize);
    this.#drop(Array.from({ length: end - first }, (_, i) => first + i), false);
  }

  *close(): Task {
    try {
      if (this.refcounts !== undefined && this.#guard.sound) {
        yield* this.flush();
        if (this.#bitmaps !== undefined) yield* this.#bitmaps.store(this.refcounts);
        yield* this.#release(this.refcounts, () => true);
        yield* this.refcounts.writeBack();
      }
    } finally {
      yield close(this.storage);
    }
  }

  *#allocate(guest: number, length: number): Task<Allocation> {
    const refcounts = this.#counts(), { clusterSize, perTable, layout } = this.mapping, skip = guest % clusterSize;
    yield* this.#relieve(refcounts);
    const { l1Index, index } = this.mapping.place(guest);
    const table = yield* this.mapping.writable(l1Index, refcounts, this.#dropTable);
    const first = this.mapping.entry(table, guest);
    if (isOurs(first)) return yield* this.#inPlace(refcounts, first.host ?? 0, guest, length);
    if (skip > 0 || length < clusterSize) return yield* this.#allocatePart(refcounts, first, guest, Math.min(length, clusterSize - skip));
    const limit = Math.min(Math.floor(length / clusterSize), perTable - index);
    let count = 1;
    while (count < limit && !isOurs(layout.decode(table, index + count))) count++;
    const run = yield* refcounts.allocate(count);
    return { guest, length: run.count * clusterSize, storage: this.storage, offset: run.cluster * clusterSize, fresh: true };
  }

  /** The guest's cluster has space of its own: zeros that kept theirs, or subclusters that were not used yet. */
  *#inPlace(refcounts: Refcounts, host: number, guest: number, length: number): Task<Allocation> {
    const { clusterSize } = this.mapping, skip = guest % clusterSize;
    // Perhaps nothing was ever read or written there: whether it is ours shows only here.
    if ((yield* refcounts.get(host / clusterSize)) !== 1) throw corrupt(this.storage, `guest cluster ${Math.floor(guest / clusterSize)} claims ${hex(host)}, which is not its own; run check -r all`, host);
    return { guest, length: Math.min(length, clusterSize - skip), storage: this.storage, offset: host + skip, fresh: false };
  }

  /** Subclusters get a cluster; those that have data in the one they share with others, or compressed, go along. */
  *#allocatePart(refcounts: Refcounts, { packed, present }: Entry, guest: number, length: number): Task<Allocation> {
    const { clusterSize } = this.mapping, skip = guest % clusterSize, held = span(packed === undefined ? present : this.mapping.layout.all);
    const from = Math.min(skip, (held?.from ?? Infinity) * this.blockSize), to = Math.max(skip + length, (held?.to ?? 0) * this.blockSize);
    const { cluster } = yield* refcounts.allocate(1);
    return { guest: guest - skip + from, length: to - from, storage: this.storage, offset: cluster * clusterSize + from, fresh: true };
  }

  *#publish({ guest, length, offset }: Allocation): Task {
    const { clusterSize } = this.mapping, end = guest + length;
    const table = yield* this.mapping.writable(this.mapping.place(guest).l1Index, this.#counts(), this.#dropTable);
    for (let at = guest - (guest % clusterSize), host = offset - (guest % clusterSize); at < end; at += clusterSize, host += clusterSize) {
      const old = this.mapping.entry(table, at), mask = this.#touched(at, guest, end);
      const kept = old.host === host ? old.present : 0;
      this.#point(table, at, old, { host, copied: true, present: (kept | mask) >>> 0, zeros: (old.zeros & ~mask) >>> 0 }, false);
    }
  }

  *#storePacked(guest: number, packed: Uint8Array): Task {
    const refcounts = this.#counts(), { clusterSize } = this.mapping;
    yield* this.#relieve(refcounts);
    const space = (this.#packedSpace ??= new PackedSpace(this.storage.name, this.header, refcounts));
    const host = yield* space.take(packed.length);
    try {
      yield write(this.storage, host, packed);
      const { l1Index, index } = this.mapping.place(guest);
      const table = yield* this.mapping.writable(l1Index, refcounts, this.#dropTable);
      this.#drop(referenced(this.mapping.entry(table, guest), clusterSize), false);
      this.mapping.layout.encodePacked(table, index, host, packed.length);
    } catch (error) {
      this.#drop(clustersOf(host, packed.length, clusterSize), false);
      throw error;
    }
  }

  *#zero(guest: number, length: number, keep: boolean): Task<boolean> {
    const version3 = this.header.version >= 3, hides = this.backing !== undefined;
    if (!version3 && hides) return false;
    if (yield* this.#cutsPacked(guest, guest + length)) return false;
    yield* this.#change(guest, guest + length, !keep, (entry, mask) => cleared(entry, mask, this.mapping.layout.all, { keep, hides, version3 }));
    return true;
  }

  /** Version 2 cannot say "zero" above a backing file: there the old data stays. */
  *#discard(guest: number, length: number): Task {
    const version3 = this.header.version >= 3, hides = this.backing !== undefined;
    if (!version3 && hides) return;
    yield* this.#change(guest, guest + length, true, (entry, mask) => cleared(entry, mask, this.mapping.layout.all, { keep: false, hides, version3 }));
  }

  /** Whether the range begins or ends amid a compressed cluster, of which no part can be dropped. */
  *#cutsPacked(from: number, end: number): Task<boolean> {
    const { clusterSize } = this.mapping;
    for (const at of [from, end]) {
      if (at % clusterSize === 0) continue;
      const table = yield* this.mapping.load(this.mapping.place(at).l1Index);
      if (table !== undefined && this.mapping.entry(table, at).packed !== undefined) return true;
    }
    return false;
  }

  *#reserve(size: number): Task {
    if (this.#bitmaps !== undefined) yield* this.#bitmaps.beforeResize(size);
    yield* this.#flush();
    yield* reserve(this.storage, this.header, this.mapping, this.#counts(), size);
  }

  *#resize(size: number): Task {
    yield* this.#reserve(size);
    const { clusterSize, layout } = this.mapping;
    yield* this.#change(Math.ceil(size / this.blockSize) * this.blockSize, Math.ceil(this.size / clusterSize) * clusterSize, true, (entry, mask) => cutOff(entry, mask, layout.all));
    yield* this.#flush();
    yield* writeSize(this.storage, size);
    this.size = size;
    this.#bitmaps?.resized(size);
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

  /**
   * Changes what stands in the guest's `[from, end)`, subcluster by subcluster. `spare`: what loses its data in a cluster
   * that stays gives up its space at once; until that is durable it reads as before, or as zeros.
   */
  *#change(from: number, end: number, spare: boolean, to: Change): Task {
    const refcounts = this.#counts(), { clusterSize, perTable } = this.mapping;
    while (from < end) {
      yield* this.#relieve(refcounts);
      const { l1Index, index } = this.mapping.place(from), start = from - (from % clusterSize);
      const stop = Math.min(end, start + (perTable - index) * clusterSize);
      const old = yield* this.mapping.load(l1Index);
      if (this.#anyChange(old, from, stop, to)) {
        const table = yield* this.mapping.writable(l1Index, refcounts, this.#dropTable);
        const holes: Range[] = [];
        for (let at = start; at < stop; at += clusterSize) {
          const entry = this.mapping.entry(table, at), change = to(entry, this.#touched(at, from, stop));
          if (change === undefined) continue;
          this.#point(table, at, entry, change, true);
          if (spare && losesData(entry, change)) addRange(holes, (entry.host ?? 0) + Math.max(0, from - at), Math.min(stop, at + clusterSize) - Math.max(at, from));
        }
        for (const { offset, length } of holes) yield discard(this.mapping.data, offset, length);
      }
      from = stop;
    }
  }

  #anyChange(table: Table | undefined, from: number, end: number, to: Change): boolean {
    const { clusterSize, layout } = this.mapping;
    if (table === undefined) return to(UNALLOCATED, layout.all) !== undefined;
    for (let at = from - (from % clusterSize); at < end; at += clusterSize) if (to(this.mapping.entry(table, at), this.#touched(at, from, end)) !== undefined) return true;
    return false;
  }

  /** Which subclusters of the cluster at `start` lie in `[from, end)`. */
  #touched(start: number, from: number, end: number): number {
    return touched(start, from, end, this.blockSize, this.mapping.layout.subclusters);
  }

  /** Sets the entry of the guest cluster at `guest`, and drops what it referenced before. */
  #point(table: Table, guest: number, old: Entry, now: Content, punch: boolean): void {
    const { clusterSize, layout } = this.mapping;
    if (old.packed !== undefined || old.host !== now.host) this.#drop(referenced(old, clusterSize), punch);
    layout.encode(table, this.mapping.place(guest).index, now);
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
      yield discard(this.storage, (holes[i] ?? 0) * this.mapping.clusterSize, count * this.mapping.clusterSize);
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
function isOurs({ copied, host }: Entry): boolean {
  return copied && host !== undefined;
}

/** Whether subclusters lose their data in a cluster that stays. */
function losesData({ host, copied, present }: Entry, now: Content): boolean {
  return host !== undefined && host === now.host && copied && (present & ~now.present) !== 0;
}

/** Adds a range, to the last one if it goes on there. */
function addRange(ranges: Range[], offset: number, length: number): void {
  const last = ranges.at(-1);
  if (last !== undefined && last.offset + last.length === offset) ranges[ranges.length - 1] = { offset: last.offset, length: last.length + length };
  else ranges.push({ offset, length });
}
