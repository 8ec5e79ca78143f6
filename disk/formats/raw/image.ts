import { DiskError } from "../../errors.ts";
import { ReadFence, type Allocation, type DataExtent, type Extent, type Image } from "../../image.ts";
import type { Storage } from "../../storage.ts";
import { close, discard, flush, truncate, zero, type Task } from "../../task.ts";
import { isSparse } from "../../storage/sparse.ts";

const SECTOR = 512;

/** The guest disk byte for byte. A file that is no whole number of sectors gets zeros behind its end, as in QEMU. */
export class RawImage implements Image {
  readonly format = "raw";
  readonly blockSize = SECTOR;
  readonly backing = undefined;
  readonly reads = new ReadFence();
  size: number;

  constructor(readonly storage: Storage, readonly readOnly: boolean) {
    this.size = Math.ceil(storage.size / SECTOR) * SECTOR;
  }

  map(offset: number, length: number): DataExtent {
    return { kind: "data", length, storage: this.storage, offset, writable: !this.readOnly };
  }

  layout(offset: number, length: number): Extent {
    const present = this.storage.size - offset;
    if (present <= 0) return { kind: "zero", length, offset };
    if (!isSparse(this.storage)) return this.map(offset, Math.min(length, present));
    const { data, length: run } = this.storage.dataAt(offset);
    return data ? this.map(offset, Math.min(run, length, present)) : { kind: "zero", length: Math.min(run, length), offset };
  }

  // oxlint-disable-next-line require-yield -- everything is always resident
  *load(): Task {}

  // oxlint-disable-next-line require-yield -- every extent is writable, so nobody asks
  *allocate(): Task<Allocation> {
    throw new DiskError("read-only", "the image is open read-only", { path: this.storage.name, format: "raw" });
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

  *resize(size: number): Task {
    if (size % SECTOR !== 0) throw new DiskError("unsupported", `the size ${size} is not a multiple of ${SECTOR}`, { path: this.storage.name, format: "raw" });
    yield truncate(this.storage, size);
    this.size = size;
  }

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
