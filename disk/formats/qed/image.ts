import { DiskError } from "../../errors.ts";
import { ReadFence, type Allocation, type BackingReference, type Extent, type Image } from "../../image.ts";
import { Guard } from "../../metadata/guard.ts";
import type { Storage } from "../../storage.ts";
import { close, discard, flush, truncate, zero, type Task } from "../../task.ts";
import { FEATURE, maxSize, type QedHeader } from "./header.ts";
import { ZERO, type Mapping } from "./mapping.ts";
import { writeBacking } from "./backing.ts";
import { writeFeatures, writeSize } from "./marks.ts";

/** An open qed image. docs/interop/qed_spec.rst; the order of writes is told in FORMAT.md. */
export class QedImage implements Image {
  readonly format = "qed";
  readonly blockSize: number;
  backing: BackingReference | undefined;
  readonly reads = new ReadFence();
  size: number;
  #features: bigint;
  /** Clusters that were taken in vain: data goes there first. */
  #spare: number[] = [];
  readonly #guard = new Guard();

  constructor(readonly storage: Storage, readonly header: QedHeader, readonly mapping: Mapping) {
    this.size = header.size;
    this.blockSize = header.clusterSize;
    this.backing = header.backing;
    this.#features = header.features;
  }

  get readOnly(): boolean {
    return !this.mapping.writable;
  }

  map(offset: number, length: number): Extent | undefined {
    return this.mapping.map(offset, length);
  }

  *load(offset: number): Task {
    yield* this.mapping.load(offset);
  }

  allocate(guest: number, length: number): Task<Allocation> {
    return this.#change(this.#allocate(guest, length));
  }

  publish(allocation: Allocation): Task {
    return this.#change(this.#publish(allocation));
  }

  abandon({ offset, length }: Allocation): void {
    for (let at = 0; at < length; at += this.blockSize) this.#spare.push(offset + at);
  }

  zero(guest: number, length: number): Task<boolean> {
    return this.#change(this.#zero(guest, length, this.backing !== undefined));
  }

  hide(guest: number, length: number): Task<boolean> {
    return this.#change(this.#zero(guest, length, true));
  }

  discard(guest: number, length: number): Task {
    return this.#change(this.#discard(guest, length));
  }

  // oxlint-disable-next-line require-yield -- the L1 has its full size from the beginning
  *reserve(size: number): Task {
    const { clusterSize, tableBytes } = this.header, most = maxSize(clusterSize, tableBytes / clusterSize);
    const refuse = (what: string): never => { throw new DiskError("unsupported", what, { path: this.storage.name, format: "qed", operation: "resize" }); };
    if (size % 512 !== 0) refuse(`the size ${size} is not a multiple of 512`);
    if (size > most) refuse(`the tables of this image reach ${most} bytes, and cannot grow; convert it to larger clusters`);
  }

  resize(size: number): Task {
    return this.#change(this.#resize(size));
  }

  empty(): Task {
    return this.#change(this.#empty());
  }

  setBacking(to: BackingReference | undefined): Task {
    return this.#change(this.#setBacking(to));
  }

  flush(): Task {
    return this.#change(this.#flush());
  }

  *close(): Task {
    try {
      if (!this.readOnly && this.#guard.sound) {
        yield* this.flush();
        yield* this.#markClean();
      }
    } finally {
      yield close(this.storage);
    }
  }

  *#change<T>(task: Task<T>): Task<T> {
    if (this.readOnly) throw new DiskError("read-only", "the image is open read-only", { path: this.storage.name, format: "qed" });
    return yield* this.#guard.change(task);
  }

  *#allocate(guest: number, length: number): Task<Allocation> {
    yield* this.#prepare();
    yield* this.mapping.change(guest);
    const want = Math.min(length, this.mapping.room(guest));
    let take = this.blockSize;
    while (take < want && this.#isNew(guest + take)) take += this.blockSize;
    const spare = take === this.blockSize ? this.#spare.pop() : undefined;
    return { guest, length: take, storage: this.storage, offset: spare ?? this.mapping.take(take), fresh: true };
  }

  #isNew(guest: number): boolean {
    const extent = this.mapping.map(guest, 1);
    return extent !== undefined && extent.kind !== "data";
  }

  *#publish({ guest, length, offset }: Allocation): Task {
    const table = yield* this.mapping.change(guest), { index } = this.mapping.place(guest);
    for (let i = 0; i * this.blockSize < length; i++) this.mapping.set(table, index + i, offset + i * this.blockSize);
  }

  /** Clusters in the file stay, and their space goes where the storage can; others are marked where a base would show. */
  *#zero(guest: number, length: number, hides: boolean): Task<boolean> {
    for (let at = guest, end = guest + length; at < end;) {
      const extent = yield* this.#lookUp(at, end - at);
      if (extent.kind === "data") yield zero(this.storage, extent.offset, extent.length);
      if (extent.kind === "backing" && hides) at += yield* this.#hide(at, extent.length);
      else at += extent.length;
    }
    return true;
  }

  /** Marks clusters as zeros; answers for how many bytes. */
  *#hide(guest: number, length: number): Task<number> {
    yield* this.#prepare();
    const bytes = Math.min(length, this.mapping.room(guest)), table = yield* this.mapping.change(guest), { index } = this.mapping.place(guest);
    for (let i = 0; i * this.blockSize < bytes; i++) this.mapping.set(table, index + i, ZERO);
    return bytes;
  }

  *#discard(guest: number, length: number): Task {
    for (let at = guest, end = guest + length; at < end;) {
      const extent = yield* this.#lookUp(at, end - at);
      if (extent.kind === "data") yield discard(this.storage, extent.offset, extent.length);
      at += extent.length;
    }
  }

  /** What is cut off keeps its clusters, of zeros. */
  *#resize(size: number): Task {
    yield* this.reserve(size);
    const kept = Math.ceil(size / this.blockSize) * this.blockSize, end = Math.ceil(this.size / this.blockSize) * this.blockSize;
    for (let at = kept; at < end;) {
      const extent = yield* this.#lookUp(at, end - at);
      if (extent.kind === "data") yield zero(this.storage, extent.offset, extent.length);
      at += extent.length;
    }
    yield* this.#flush();
    yield* writeSize(this.storage, size);
    this.size = size;
  }

  /** Until the file is cut off it has clusters that nothing references: the need-check mark says so. */
  *#empty(): Task {
    yield* this.#prepare();
    yield* this.mapping.clear();
    this.#spare = [];
  }

  *#setBacking(to: BackingReference | undefined): Task {
    this.#features = yield* writeBacking(this.storage, this.header, this.#features, to);
    this.backing = to;
  }

  *#flush(): Task {
    if (this.mapping.dirty) yield* this.mapping.writeBack();
    else yield flush(this.storage, "guest data");
  }

  *#lookUp(offset: number, length: number): Task<Extent> {
    for (;;) {
      const extent = this.mapping.map(offset, length);
      if (extent !== undefined) return extent;
      yield* this.mapping.load(offset);
    }
  }

  /** Before the first cluster is taken: the mark is durable, and what stands behind the last whole cluster is gone. */
  *#prepare(): Task {
    if (this.mapping.full) yield* this.mapping.writeBack();
    if ((this.#features & FEATURE.needCheck) !== 0n) return;
    yield* writeFeatures(this.storage, this.#features | FEATURE.needCheck);
    yield flush(this.storage, "the need-check mark before the first cluster is taken");
    if (this.storage.size > this.mapping.end) yield truncate(this.storage, this.mapping.end);
    this.#features |= FEATURE.needCheck;
  }

  *#markClean(): Task {
    if ((this.#features & FEATURE.needCheck) === 0n) return;
    this.#features &= ~FEATURE.needCheck;
    yield* writeFeatures(this.storage, this.#features);
  }
}
