import { DiskError } from "../../errors.ts";
import type { Allocation, Extent } from "../../image.ts";
import { BlockImage } from "../../metadata/blockImage.ts";
import type { BlockMap } from "../../metadata/blockMap.ts";
import type { Storage } from "../../storage.ts";
import { truncate, type Task } from "../../task.ts";
import { markClosed, type ParallelsHeader } from "./header.ts";

/** An open Parallels image; FORMAT.md tells the order of writes. */
export class ParallelsImage extends BlockImage {
  protected readonly noResize = "a Parallels image cannot be resized: convert it to qcow2";
  /** Behind the last cluster. */
  #end: number;

  /** `end`: where new clusters begin; of no meaning for an image that is only read. */
  constructor(storage: Storage, readonly header: ParallelsHeader, blocks: BlockMap, end: number) {
    super(storage, header.size, blocks);
    this.#end = end;
  }

  /** As QEMU: where a cluster has space, holes of the file are not told. */
  layout(offset: number, length: number): Extent | undefined {
    return this.map(offset, length);
  }

  protected override take(count: number): { offset: number; count: number } {
    const offset = this.#end, end = offset + count * this.blockSize;
    if (end / this.header.unit >= 2 ** 32) throw new DiskError("no-space", "the image file is as large as its BAT can tell", { path: this.storage.name, format: "parallels" });
    this.#end = end;
    return { offset, count };
  }

  override abandon({ offset }: Allocation): void {
    this.#end = offset;
  }

  protected override *closing(): Task {
    if (this.storage.size > this.#end) yield truncate(this.storage, this.#end);
    yield* markClosed(this.storage);
  }
}
