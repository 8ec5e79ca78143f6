import { DiskError } from "../errors.ts";
import { ReadFence, type Allocation, type DataExtent, type Image } from "../image.ts";
import type { Storage } from "../storage.ts";
import { close, discard, flush, truncate, zero, type Task } from "../task.ts";

const SECTOR = 512;

/** The guest disk byte for byte from the file's beginning. What of it is behind the file's end reads as zeros. */
export abstract class FlatImage implements Image {
  readonly blockSize = SECTOR;
  readonly backing = undefined;
  readonly reads = new ReadFence();

  constructor(readonly format: string, readonly storage: Storage, public size: number, readonly readOnly: boolean) {}

  map(offset: number, length: number): DataExtent {
    return { kind: "data", length, storage: this.storage, offset, writable: !this.readOnly };
  }

  // oxlint-disable-next-line require-yield -- everything is always resident
  *load(_offset: number): Task {}

  // oxlint-disable-next-line require-yield -- every extent is writable, so nobody asks
  *allocate(): Task<Allocation> {
    throw new DiskError("read-only", "the image is open read-only", { path: this.storage.name, format: this.format });
  }

  // oxlint-disable-next-line require-yield -- see allocate
  *publish(): Task {}

  abandon(): void {}

  *zero(guest: number, length: number, keep: boolean): Task<boolean> {
    // A file whose last sector is incomplete first grows to the guest's size.
    if (this.storage.size < this.size) yield truncate(this.storage, this.size);
    yield zero(this.storage, guest, Math.min(length, this.size - guest), keep);
    return true;
  }

  *discard(guest: number, length: number): Task {
    yield discard(this.storage, guest, Math.min(length, this.size - guest));
  }

  abstract resize(size: number): Task;

  *flush(): Task {
    if (!this.readOnly) yield flush(this.storage, "guest data");
  }

  *close(): Task {
    try {
      yield* this.flush();
    } finally {
      yield close(this.storage);
    }
  }
}
