import { DiskError } from "../../errors.ts";
import { ReadFence, type Allocation, type Extent, type Image } from "../../image.ts";
import type { Storage } from "../../storage.ts";
import { close, discard, flush, write, zero, type Task } from "../../task.ts";
import { HeaderFields, type VdiHeader } from "./header.ts";
import type { BlockMap } from "./map.ts";
import type { Space } from "./space.ts";

/** An open VDI. A block that once has space keeps it, so no space is ever reused; FORMAT.md tells the order of writes. */
export class VdiImage implements Image {
  readonly format = "vdi";
  readonly blockSize: number;
  readonly size: number;
  readonly backing = undefined;
  readonly reads = new ReadFence();
  /** A fixed image may have holes in its file, for which a listing asks the file system; as QEMU it does not ask for a dynamic one. */
  readonly layout?: NonNullable<Image["layout"]>;
  /** As the header has it. */
  #counted: number;

  /** Without `space` the image is read-only. */
  constructor(readonly storage: Storage, readonly header: VdiHeader, readonly blockMap: BlockMap, readonly space: Space | undefined) {
    this.blockSize = header.blockSize;
    this.size = header.size;
    this.#counted = header.allocated;
    if (!header.fixed) this.layout = (offset, length) => this.map(offset, length);
  }

  get readOnly(): boolean {
    return this.space === undefined;
  }

  map(offset: number, length: number): Extent | undefined {
    return this.blockMap.map(offset, length);
  }

  load(offset: number): Task {
    return this.blockMap.load(Math.floor(offset / this.blockSize));
  }

  *allocate(guest: number, length: number): Task<Allocation> {
    const space = this.#writable();
    if (this.blockMap.full) yield* this.flush();
    const vacant = yield* this.blockMap.vacant(guest / this.blockSize, length / this.blockSize);
    const { number, count } = space.take(vacant);
    return { guest, length: count * this.blockSize, storage: this.storage, offset: this.blockMap.placeOf(number), fresh: true };
  }

  *publish({ guest, length, offset }: Allocation): Task {
    yield* this.blockMap.set(guest / this.blockSize, this.#number(offset), length / this.blockSize);
  }

  abandon({ length, offset }: Allocation): void {
    this.#writable().give(this.#number(offset), length / this.blockSize);
  }

  /** Blocks keep their space, but it may be given back to the file system. Those without read as zeros already. */
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
    const { end } = this.#writable();
    // A count too low would have QEMU give a block away twice: it is never behind the map.
    if (end !== this.#counted) yield* this.#writeCount(end);
    yield flush(this.storage, "data and the count of blocks before the block map");
    if (!this.blockMap.dirty) return;
    yield* this.blockMap.writeBack();
    yield flush(this.storage, "the block map");
    this.blockMap.clean();
  }

  *close(): Task {
    try {
      if (!this.readOnly) yield* this.flush();
    } finally {
      yield close(this.storage);
    }
  }

  *#writeCount(count: number): Task {
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setUint32(0, count, true);
    yield write(this.storage, HeaderFields.offsetOf("allocated"), bytes);
    this.#counted = count;
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

  #number(offset: number): number {
    return (offset - this.header.dataOffset) / this.blockSize;
  }

  #writable(): Space {
    if (this.space === undefined) throw new DiskError("read-only", "the image is open read-only", { path: this.storage.name, format: "vdi" });
    return this.space;
  }

  #noResize(): DiskError {
    return new DiskError("unsupported", "a VDI image cannot be resized: convert it to qcow2, or use VBoxManage modifymedium --resize", { path: this.storage.name, format: "vdi", operation: "resize" });
  }
}
