import { deflate } from "../../codecs/deflate.ts";
import { smaller } from "../../codecs/smaller.ts";
import { DiskError } from "../../errors.ts";
import { ReadFence, type Allocation, type BackingReference, type Extent, type Image } from "../../image.ts";
import { Guard } from "../../metadata/guard.ts";
import type { Storage } from "../../storage.ts";
import { close, discard, flush, write, zero, type Task } from "../../task.ts";
import type { QcowHeader } from "./header.ts";
import type { Mapping } from "./mapping.ts";

/** An open qcow image of version 1; FORMAT.md tells the order of writes. */
export class QcowImage implements Image {
  readonly format = "qcow";
  readonly blockSize: number;
  readonly size: number;
  readonly backing: BackingReference | undefined;
  readonly reads = new ReadFence();
  /** Clusters that were taken in vain: data goes there first. */
  readonly #spare: number[] = [];
  readonly #guard = new Guard();

  constructor(readonly storage: Storage, header: QcowHeader, readonly mapping: Mapping) {
    this.size = header.size;
    this.blockSize = header.clusterSize;
    this.backing = header.backing;
  }

  get readOnly(): boolean {
    return this.mapping.places === undefined;
  }

  map(offset: number, length: number): Extent | undefined {
    return this.mapping.map(offset, length);
  }

  load(offset: number): Task {
    return this.mapping.load(offset);
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

  pack(block: Uint8Array): Uint8Array | undefined | Promise<Uint8Array | undefined> {
    return smaller(block, deflate(block, "raw"));
  }

  storePacked(guest: number, packed: Uint8Array): Task {
    return this.#change(this.#storePacked(guest, packed));
  }

  zero(guest: number, length: number, keep: boolean): Task<boolean> {
    return this.#change(this.#zero(guest, length, keep));
  }

  discard(guest: number, length: number): Task {
    return this.#change(this.#discard(guest, length));
  }

  // oxlint-disable-next-line require-yield -- it only refuses
  *reserve(size: number): Task {
    this.#refuseSize(size);
  }

  // oxlint-disable-next-line require-yield -- see reserve
  *resize(size: number): Task {
    this.#refuseSize(size);
  }

  flush(): Task {
    return this.#change(this.#flush());
  }

  *close(): Task {
    try {
      if (!this.readOnly && this.#guard.sound) yield* this.flush();
    } finally {
      yield close(this.storage);
    }
  }

  *#change<T>(task: Task<T>): Task<T> {
    if (this.readOnly) throw new DiskError("read-only", "the image is open read-only", { path: this.storage.name, format: "qcow" });
    return yield* this.#guard.change(task);
  }

  *#allocate(guest: number, length: number): Task<Allocation> {
    if (this.mapping.full) yield* this.mapping.writeBack();
    yield* this.mapping.change(guest);
    const want = Math.min(length, this.mapping.room(guest));
    let take = this.blockSize;
    while (take < want && this.mapping.map(guest + take, 1)?.kind !== "data") take += this.blockSize;
    const spare = take === this.blockSize ? this.#spare.pop() : undefined;
    return { guest, length: take, storage: this.storage, offset: spare ?? this.mapping.take(take), fresh: true };
  }

  *#publish({ guest, length, offset }: Allocation): Task {
    const table = yield* this.mapping.change(guest), { l1Index, index } = this.mapping.place(guest);
    for (let i = 0; i * this.blockSize < length; i++) this.mapping.set(table, l1Index, index + i, offset + i * this.blockSize);
  }

  /** Compressed data begins at any byte; what was there before is lost space, as is what could not be written. */
  *#storePacked(guest: number, packed: Uint8Array): Task {
    if (this.mapping.full) yield* this.mapping.writeBack();
    yield* this.mapping.change(guest);
    const at = this.mapping.take(packed.length, 1);
    yield write(this.storage, at, packed);
    const table = yield* this.mapping.change(guest), { l1Index, index } = this.mapping.place(guest);
    this.mapping.setPacked(table, l1Index, index, at, packed.length);
  }

  /** Clusters in the file stay, and their space goes where the storage can. What hides a backing file has to be written. */
  *#zero(guest: number, length: number, keep: boolean): Task<boolean> {
    if (this.backing !== undefined) return false;
    for (let at = guest, end = guest + length; at < end;) {
      const extent = yield* this.#lookUp(at, end - at);
      if (extent.kind === "data") yield zero(this.storage, extent.offset, extent.length, keep);
      if (extent.kind === "packed") yield* this.#drop(at);
      at += extent.length;
    }
    return true;
  }

  *#drop(guest: number): Task {
    if (this.mapping.full) yield* this.mapping.writeBack();
    const table = yield* this.mapping.change(guest), { l1Index, index } = this.mapping.place(guest);
    this.mapping.set(table, l1Index, index, 0);
  }

  *#discard(guest: number, length: number): Task {
    for (let at = guest, end = guest + length; at < end;) {
      const extent = yield* this.#lookUp(at, end - at);
      if (extent.kind === "data") yield discard(this.storage, extent.offset, extent.length);
      at += extent.length;
    }
  }

  *#flush(): Task {
    if (this.mapping.dirty) yield* this.mapping.writeBack();
    else yield flush(this.storage, "guest data");
  }

  /** The last cluster reaches beyond the disk's end. */
  *#lookUp(offset: number, length: number): Task<Extent> {
    for (;;) {
      const extent = this.mapping.map(offset, length);
      if (extent !== undefined) return extent;
      yield* this.mapping.load(offset);
    }
  }

  #refuseSize(size: number): void {
    if (size === this.size) return;
    throw new DiskError("unsupported", "a qcow image of version 1 cannot be resized: convert it to qcow2", { path: this.storage.name, format: "qcow", operation: "resize" });
  }
}
