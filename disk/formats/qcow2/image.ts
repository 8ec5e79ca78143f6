import { encodeText } from "../../bytes/text.ts";
import { DiskError, hex } from "../../errors.ts";
import { ReadFence, type Allocation, type BackingReference, type Bitmaps, type Extent, type Image, type Progress, type Space } from "../../image.ts";
import { Guard } from "../../metadata/guard.ts";
import { noProgress } from "../../metadata/space.ts";
import type { Pending, Storage } from "../../storage.ts";
import { close, flush, truncate, write, zero, type Task } from "../../task.ts";
import { Qcow2Bitmaps } from "./bitmaps.ts";
import type { Codec } from "./codec.ts";
import { cleared, cutOff } from "./contents.ts";
import { DroppedClusters } from "./dropped.ts";
import type { Encryption } from "./encryption.ts";
import { Entries } from "./entries.ts";
import { EXTENSION } from "./extensions.ts";
import { AUTOCLEAR } from "./features.ts";
import { markCorrupt, type Qcow2Header } from "./header.ts";
import { rewriteHeader } from "./header-write.ts";
import { clustersOf, type Entry, referenced } from "./l2-entry.ts";
import { corrupt, type Mapping } from "./mapping.ts";
import { PackedSpace } from "./packed-space.ts";
import { preallocate } from "./preallocate.ts";
import type { ClusterRun, Refcounts } from "./refcounts.ts";
import { reserve, writeSize } from "./resize.ts";
import { span } from "./subclusters.ts";

const SECTOR = 512;

/** An open qcow2 image. docs/interop/qcow2.rst; the order of writes is told in FORMAT.md. */
export class Qcow2Image implements Image {
  readonly format = "qcow2";
  readonly blockSize: number;
  readonly packSize: number;
  backing: BackingReference | undefined;
  readonly reads = new ReadFence();
  readonly files: readonly Storage[];
  size: number;
  readonly pack?: Codec["pack"];
  #packedSpace: PackedSpace | undefined;
  readonly #dropped: DroppedClusters;
  readonly #entries: Entries;
  readonly #guard: Guard;
  #bitmaps: Qcow2Bitmaps | undefined;
  /** The data stands in a file of its own, each guest cluster in its own place; `raw`: that file alone tells all. */
  readonly #external: boolean;
  readonly #raw: boolean;

  /** Without `refcounts` the image is read-only; otherwise `bitmaps` are its own, if it has any. */
  constructor(readonly storage: Storage, readonly header: Qcow2Header, readonly mapping: Mapping, readonly refcounts: Refcounts | undefined, bitmaps?: Qcow2Bitmaps, readonly encryption?: Encryption) {
    this.#bitmaps = bitmaps;
    this.size = header.size;
    this.packSize = header.clusterSize;
    this.blockSize = header.clusterSize / mapping.layout.subclusters;
    this.#external = mapping.layout.external;
    this.#raw = this.#external && (header.autoclear & AUTOCLEAR.rawExternalData) !== 0n;
    this.files = this.#external ? [mapping.data] : [];
    // Compressed clusters are never encrypted.
    if (!this.#external && encryption === undefined) this.pack = mapping.codec.pack;
    this.#guard = new Guard(() => markCorrupt(storage, header));
    this.#dropped = new DroppedClusters(storage, header.clusterSize, this.reads);
    this.#entries = new Entries(mapping, this.#dropped, () => this.#relieve());
    this.backing = header.backingFile === undefined ? undefined : { file: header.backingFile, format: header.backingFormat };
  }

  get readOnly(): boolean {
    return this.refcounts === undefined;
  }

  map(offset: number, length: number): Extent | undefined {
    const extent = this.mapping.map(offset, length);
    if (this.encryption === undefined || extent === undefined) return extent;
    if (extent.kind === "zero") return { kind: "zero", length: extent.length };
    if (extent.kind !== "data") return extent;
    return { ...extent, storage: this.encryption.over(extent.storage, extent.offset, offset), encrypted: true };
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

  hide(guest: number, length: number): Task<boolean> {
    return this.#guard.change(this.#hide(guest, length));
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

  preallocate(from: number, to: number, space: Space, progress: Progress): Task {
    if (this.encryption !== undefined) throw new DiskError("unsupported", "an encrypted image cannot be preallocated: what was never written would read as noise", { path: this.storage.name, format: "qcow2" });
    return this.#guard.change(preallocate(this.#entries, from, to, space, progress));
  }

  empty(): Task {
    return this.#guard.change(this.#empty());
  }

  setBacking(to: BackingReference | undefined): Task {
    return this.#guard.change(this.#setBacking(to));
  }

  flush(): Task {
    return this.#guard.change(this.#flush());
  }

  abandon({ fresh, length, offset }: Allocation): void {
    if (!fresh) return;
    const { clusterSize } = this.mapping, first = Math.floor(offset / clusterSize), end = Math.ceil((offset + length) / clusterSize);
    this.#dropped.add(Array.from({ length: end - first }, (_, i) => first + i), false);
  }

  *close(): Task {
    try {
      if (this.refcounts !== undefined && this.#guard.sound) {
        yield* this.flush();
        if (this.#bitmaps !== undefined) yield* this.#bitmaps.store(this.refcounts);
        yield* this.#dropped.release(this.refcounts, true);
        yield* this.refcounts.writeBack();
      }
    } finally {
      try {
        yield close(this.storage);
      } finally {
        for (const file of this.files) yield close(file);
      }
    }
  }

  *#allocate(guest: number, length: number): Task<Allocation> {
    const space = yield* this.#allocatePlain(guest, length);
    return this.encryption === undefined ? space : { ...space, storage: this.encryption.over(space.storage, space.offset, space.guest) };
  }

  *#allocatePlain(guest: number, length: number): Task<Allocation> {
    const { clusterSize, perTable, layout, data } = this.mapping, skip = guest % clusterSize;
    yield* this.#relieve();
    const table = yield* this.#entries.table(guest), { index } = this.mapping.place(guest), first = this.mapping.entry(table, guest);
    if (isOurs(first)) return yield* this.#inPlace(first.host ?? 0, guest, length);
    if (skip > 0 || length < clusterSize) return yield* this.#allocatePart(first, guest, Math.min(length, clusterSize - skip));
    const limit = Math.min(Math.floor(length / clusterSize), perTable - index);
    let count = 1;
    while (count < limit && !isOurs(layout.decode(table, index + count))) count++;
    const run = yield* this.#take(guest, count);
    return { guest, length: this.#within(guest, run.count * clusterSize), storage: data, offset: run.cluster * clusterSize, fresh: !this.#external };
  }

  /** The guest's cluster has space of its own: zeros that kept theirs, or subclusters that were not used yet. */
  *#inPlace(host: number, guest: number, length: number): Task<Allocation> {
    const { clusterSize, data } = this.mapping, skip = guest % clusterSize;
    // Perhaps nothing was ever read or written there: whether it is ours shows only here.
    if (!this.#external && (yield* this.#entries.refcounts.get(host / clusterSize)) !== 1) throw corrupt(this.storage, `guest cluster ${Math.floor(guest / clusterSize)} claims ${hex(host)}, which is not its own; run check -r all`, host);
    return { guest, length: this.#within(guest, Math.min(length, clusterSize - skip)), storage: data, offset: host + skip, fresh: false };
  }

  /** Subclusters get a cluster; those that have data in the one they share with others, or compressed, go along. */
  *#allocatePart({ packed, present }: Entry, guest: number, length: number): Task<Allocation> {
    const { clusterSize, data, layout } = this.mapping, skip = guest % clusterSize, held = span(packed === undefined ? present : layout.all);
    const from = Math.min(skip, (held?.from ?? Infinity) * this.blockSize), to = Math.max(skip + length, (held?.to ?? 0) * this.blockSize);
    const start = guest - skip, { cluster } = yield* this.#take(guest, 1);
    return { guest: start + from, length: this.#within(start + from, to - from), storage: data, offset: cluster * clusterSize + from, fresh: !this.#external };
  }

  /** One to `count` clusters in a row for `guest`. In a data file each has its place. */
  *#take(guest: number, count: number): Task<ClusterRun> {
    if (this.#external) return { cluster: Math.floor(guest / this.mapping.clusterSize), count };
    return yield* this.#entries.refcounts.allocate(count);
  }

  /** A data file does not grow beyond the disk's end, for who reads it alone. */
  #within(guest: number, length: number): number {
    return this.#external && guest < this.size ? Math.min(length, this.size - guest) : length;
  }

  *#publish({ guest, length, offset }: Allocation): Task {
    const { clusterSize } = this.mapping, end = guest + length, table = yield* this.#entries.table(guest);
    for (let at = guest - (guest % clusterSize), host = offset - (guest % clusterSize); at < end; at += clusterSize, host += clusterSize) {
      const old = this.mapping.entry(table, at), mask = this.#entries.touched(at, guest, end);
      const kept = old.host === host ? old.present : 0;
      this.#entries.set(table, at, old, { host, copied: true, present: (kept | mask) >>> 0, zeros: (old.zeros & ~mask) >>> 0 }, false);
    }
  }

  *#storePacked(guest: number, packed: Uint8Array): Task {
    const { refcounts } = this.#entries, { clusterSize } = this.mapping;
    yield* this.#relieve();
    const space = (this.#packedSpace ??= new PackedSpace(this.storage.name, this.header, refcounts));
    const host = yield* space.take(packed.length);
    try {
      yield write(this.storage, host, packed);
      const table = yield* this.#entries.table(guest);
      this.#dropped.add(referenced(this.mapping.entry(table, guest), clusterSize), false);
      this.mapping.layout.encodePacked(table, this.mapping.place(guest).index, host, packed.length);
    } catch (error) {
      this.#dropped.add(clustersOf(host, packed.length, clusterSize), false);
      throw error;
    }
  }

  *#zero(guest: number, length: number, keep: boolean): Task<boolean> {
    if (!this.#saysZero || (yield* this.#cutsPacked(guest, guest + length))) return false;
    yield* this.#clear(guest, length, keep);
    return true;
  }

  *#discard(guest: number, length: number): Task {
    // Where no entry can say "zero" the old data stays.
    if (this.#saysZero) yield* this.#clear(guest, length, false);
  }

  /** Version 2 has no zero flag, and above a backing file nothing else would do. */
  get #saysZero(): boolean {
    return this.header.version >= 3 || this.backing === undefined;
  }

  /** A hole in encrypted data would read as noise, until the entry that no longer points there is durable. */
  get #holesReadZero(): boolean {
    return this.encryption === undefined;
  }

  *#clear(guest: number, length: number, keep: boolean): Task {
    const { layout, data } = this.mapping, how = { keep: keep || this.#raw, hides: this.backing !== undefined, version3: this.header.version >= 3 };
    if (this.#raw) yield zero(data, guest, length, keep);
    yield* this.#entries.change(guest, guest + length, !how.keep && this.#holesReadZero, (entry, mask) => cleared(entry, mask, layout.all, how));
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
    yield* reserve(this.storage, this.header, this.mapping, this.#entries.refcounts, size);
  }

  /** Version 2 has no zero clusters. */
  *#hide(guest: number, length: number): Task<boolean> {
    if (this.header.version < 3 || (yield* this.#cutsPacked(guest, guest + length))) return false;
    yield* this.#entries.change(guest, guest + length, this.#holesReadZero, (entry, mask) => cleared(entry, mask, this.mapping.layout.all, { keep: false, hides: true, version3: true }));
    return true;
  }

  *#resize(size: number): Task {
    const { clusterSize, layout } = this.mapping, old = this.size;
    yield* this.#reserve(size);
    // What a data file has behind the old end was never the guest's.
    if (size > old) for (const file of this.files) for (const length of [Math.min(old, file.size), size]) yield truncate(file, length);
    yield* this.#entries.change(Math.ceil(size / this.blockSize) * this.blockSize, Math.ceil(old / clusterSize) * clusterSize, this.#holesReadZero, (entry, mask) => cutOff(entry, mask, layout.all));
    yield* this.#flush();
    yield* writeSize(this.storage, size);
    this.size = size;
    this.#bitmaps?.resized(size);
    // For QEMU, too, what the raw data file gains has its place at once.
    if (this.#raw && this.encryption === undefined) yield* preallocate(this.#entries, Math.min(old, size), size, "metadata", noProgress);
    if (size < old) for (const file of this.files) yield truncate(file, Math.min(size, file.size));
  }

  *#empty(): Task {
    yield* this.#entries.change(0, Math.ceil(this.size / this.mapping.clusterSize) * this.mapping.clusterSize, false, (entry, mask) => cutOff(entry, mask, this.mapping.layout.all));
    yield* this.#flush();
  }

  *#setBacking(to: BackingReference | undefined): Task {
    const format = to?.format;
    if (this.#raw && to !== undefined) throw new DiskError("unsupported", "Backing file and data-file-raw cannot be used at the same time", { path: this.storage.name, format: "qcow2" });
    yield* rewriteHeader(this.storage, (draft) => {
      const others = draft.extensions.filter(({ type }) => type !== EXTENSION.backingFormat);
      draft.backingFile = to?.file;
      draft.extensions = format === undefined ? others : [{ type: EXTENSION.backingFormat, data: encodeText(format) }, ...others];
    });
    this.backing = to;
  }

  *#flush(): Task {
    const { refcounts } = this.#entries, { storage } = this;
    // Who reads a compressed cluster reads whole sectors.
    if (this.#packedSpace !== undefined && storage.size % SECTOR !== 0) yield truncate(storage, Math.ceil(storage.size / SECTOR) * SECTOR);
    for (const file of this.files) yield flush(file, "a data file before the tables that point into it");
    yield* refcounts.writeBack();
    // Tables only ever point at data, and at clusters counted, that are durable by now.
    yield* this.mapping.writeBack();
    const free = yield* this.#dropped.release(refcounts);
    this.#packedSpace?.freed(free);
  }

  /** Dirty tables are bounded: beyond the bound the whole ordered flush runs first. */
  *#relieve(): Task {
    if (this.#entries.refcounts.full || this.mapping.full) yield* this.#flush();
  }
}

/** Whether the guest may write where the entry points. */
function isOurs({ copied, host }: Entry): boolean {
  return copied && host !== undefined;
}
