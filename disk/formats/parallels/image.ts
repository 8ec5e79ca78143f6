import { DiskError } from "../../errors.ts";
import { ReadFence, type Allocation, type Extent, type Image } from "../../image.ts";
import type { Storage } from "../../storage.ts";
import { close, discard, flush, truncate, zero, type Task } from "../../task.ts";
import type { Bat } from "./bat.ts";
import { markClosed, type ParallelsHeader } from "./header.ts";

/** An open Parallels image. A cluster that once has space keeps it, so no space is ever reused; FORMAT.md tells the order of writes. */
export class ParallelsImage implements Image {
  readonly format = "parallels";
  readonly blockSize: number;
  readonly size: number;
  readonly backing = undefined;
  readonly reads = new ReadFence();
  /** Behind the last cluster; `undefined`: the image is read-only. */
  #end: number | undefined;

  constructor(readonly storage: Storage, readonly header: ParallelsHeader, readonly bat: Bat, end: number | undefined) {
    this.blockSize = header.clusterSize;
    this.size = header.size;
    this.#end = end;
  }

  get readOnly(): boolean {
    return this.#end === undefined;
  }

  map(offset: number, length: number): Extent | undefined {
    return this.bat.map(offset, length);
  }

  /** As QEMU: where a cluster has space, holes of the file are not told. */
  layout(offset: number, length: number): Extent | undefined {
    return this.map(offset, length);
  }

  load(offset: number): Task {
    return this.bat.load(Math.floor(offset / this.blockSize));
  }

  *allocate(guest: number, length: number): Task<Allocation> {
    if (this.bat.full) yield* this.flush();
    const count = yield* this.bat.vacant(guest / this.blockSize, length / this.blockSize), offset = this.#writable();
    this.#end = offset + count * this.blockSize;
    if (this.#end / this.header.unit >= 2 ** 32) {
      this.#end = offset;
      throw new DiskError("no-space", "the image file is as large as its BAT can tell", { path: this.storage.name, format: "parallels" });
    }
    return { guest, length: count * this.blockSize, storage: this.storage, offset, fresh: true };
  }

  *publish({ guest, length, offset }: Allocation): Task {
    yield* this.bat.set(guest / this.blockSize, offset, length / this.blockSize);
  }

  /** Changes run one at a time: it is the last one that was taken. */
  abandon({ offset }: Allocation): void {
    this.#end = offset;
  }

  /** Clusters keep their space, but it may be given back to the file system. Those without read as zeros already. */
  *zero(guest: number, length: number, keep: boolean): Task<boolean> {
    this.#writable();
    yield* this.#inPlace(guest, length, (offset, count) => zero(this.storage, offset, count, keep));
    return true;
  }

  *discard(guest: number, length: number): Task {
    this.#writable();
    yield* this.#inPlace(guest, length, (offset, count) => discard(this.storage, offset, count));
  }

  /** Refused before the disk clears what is behind its end. */
  // oxlint-disable-next-line require-yield -- it only refuses
  *reserve(): Task {
    throw this.#noResize();
  }

  // oxlint-disable-next-line require-yield -- see reserve
  *resize(size: number): Task {
    if (size !== this.size) throw this.#noResize();
  }

  *flush(): Task {
    this.#writable();
    yield flush(this.storage, "data before the BAT that points at them");
    if (!this.bat.dirty) return;
    yield* this.bat.writeBack();
    yield flush(this.storage, "the BAT");
    this.bat.clean();
  }

  *close(): Task {
    try {
      if (!this.readOnly) {
        yield* this.flush();
        const end = this.#writable();
        if (this.storage.size > end) yield truncate(this.storage, end);
        yield* markClosed(this.storage);
      }
    } finally {
      yield close(this.storage);
    }
  }

  *#inPlace(guest: number, length: number, change: (offset: number, length: number) => ReturnType<typeof zero>): Task {
    const end = Math.min(guest + length, this.size);
    while (guest < end) {
      yield* this.load(guest);
      const extent = this.map(guest, end - guest);
      // Another load may have taken the slice's place in the cache.
      if (extent === undefined) continue;
      if (extent.kind === "data") yield change(extent.offset, extent.length);
      guest += extent.length;
    }
  }

  #writable(): number {
    if (this.#end === undefined) throw new DiskError("read-only", "the image is open read-only", { path: this.storage.name, format: "parallels" });
    return this.#end;
  }

  #noResize(): DiskError {
    return new DiskError("unsupported", "a Parallels image cannot be resized: convert it to qcow2", { path: this.storage.name, format: "parallels", operation: "resize" });
  }
}
