import { DiskError } from "../../errors.ts";
import type { Extent, Progress, Space } from "../../image.ts";
import { FlatImage } from "../../metadata/flatImage.ts";
import { giveSpace } from "../../metadata/space.ts";
import type { Storage } from "../../storage.ts";
import { isSparse, learnedAt } from "../../storage/sparse.ts";
import { truncate, type Task } from "../../task.ts";

const SECTOR = 512;

/** A file that is no whole number of sectors gets zeros behind its end, as in QEMU. */
export class RawImage extends FlatImage {
  constructor(storage: Storage, readOnly: boolean) {
    super("raw", storage, Math.ceil(storage.size / SECTOR) * SECTOR, readOnly);
  }

  layout(offset: number, length: number): Extent | undefined {
    const present = this.storage.size - offset;
    if (present <= 0) return { kind: "zero", length, offset };
    if (!isSparse(this.storage)) return this.map(offset, Math.min(length, present));
    const found = this.storage.dataAt(offset);
    if (found === undefined) return undefined;
    const { data, length: run } = found;
    return data ? this.map(offset, Math.min(run, length, present)) : { kind: "zero", length: Math.min(run, length), offset };
  }

  /** For `layout`: `map` always answers. */
  override *load(offset: number): Task {
    if (offset < this.storage.size && isSparse(this.storage)) yield* learnedAt(this.storage, offset);
  }

  *resize(size: number): Task {
    if (size % SECTOR !== 0) throw new DiskError("unsupported", `the size ${size} is not a multiple of ${SECTOR}`, { path: this.storage.name, format: "raw" });
    yield truncate(this.storage, size);
    this.size = size;
  }

  *preallocate(from: number, to: number, space: Space, progress: Progress): Task {
    if (space === "metadata") throw new DiskError("unsupported", `Unsupported preallocation mode: ${space}`, { path: this.storage.name, format: "raw" });
    yield* giveSpace(this.storage, from, to - from, space, (done) => { progress(done, to - from); });
  }
}
