import { DiskError } from "../errors.ts";
import { ReadFence, type Allocation, type Extent, type Image } from "../image.ts";
import type { Storage } from "../storage.ts";
import { close, discard, flush, truncate, zero, type Step, type Task } from "../task.ts";
import type { BlockMap } from "./blockMap.ts";

/** Blocks from this size on are not filled up with zeros that a longer file has anyway; below that one write is cheaper. */
const LARGE = 64 * 1024, SECTOR = 512;

/** What `flush` writes once the data it points at are durable. */
export interface Tables {
  readonly dirty: boolean;
  /** So much is dirty that it must be flushed before more is changed. */
  readonly full: boolean;
  writeBack(): Task;
  /** What `writeBack` wrote is durable. */
  clean(): void;
}

/**
 * An open image whose guest blocks a block map finds in its file. A block that once has space keeps it, so no space is
 * ever reused. The format says where new blocks stand, and what else must be written when.
 */
export abstract class BlockImage implements Image {
  readonly format: string;
  readonly blockSize: number;
  readonly backing: Image["backing"] = undefined;
  readonly reads = new ReadFence();
  /** What to do instead of a resize, for the error that refuses it. */
  protected abstract readonly noResize: string;

  /** `tables`: the block map, and what else must not be durable before the data are. */
  constructor(readonly storage: Storage, readonly size: number, readonly blocks: BlockMap, protected readonly tables: readonly Tables[] = [blocks]) {
    this.format = blocks.layout.format;
    this.blockSize = blocks.layout.blockSize;
  }

  get writeSize(): number {
    return this.#leavesZeros() ? SECTOR : this.blockSize;
  }

  get readOnly(): boolean {
    return !this.blocks.writable;
  }

  map(offset: number, length: number): Extent | undefined {
    return this.blocks.map(offset, length);
  }

  load(offset: number): Task {
    return this.blocks.load(Math.floor(offset / this.blockSize));
  }

  *allocate(guest: number, length: number): Task<Allocation> {
    this.#writable();
    if (this.tables.some((table) => table.full)) yield* this.flush();
    const { offset, count } = this.take(yield* this.blocks.vacant(guest / this.blockSize, length / this.blockSize));
    const zeroed = this.#leavesZeros() && offset >= this.storage.size, allocation = { guest, length: count * this.blockSize, storage: this.storage, offset, fresh: true, zeroed };
    if (zeroed) yield* this.#extend(allocation);
    return allocation;
  }

  #leavesZeros(): boolean {
    return this.backing === undefined && this.blockSize >= LARGE;
  }

  /** Behind the end of the file a block is zeros without a write, and takes no space where the file has holes. */
  *#extend(allocation: Allocation): Task {
    try {
      yield truncate(this.storage, allocation.offset + allocation.length);
    } catch (error) {
      this.abandon(allocation);
      throw error;
    }
  }

  /** Space for up to `limit` blocks, one behind the other. */
  protected abstract take(limit: number): { readonly offset: number; readonly count: number };

  *publish({ guest, length, offset }: Allocation): Task {
    yield* this.blocks.set(guest / this.blockSize, offset, length / this.blockSize);
  }

  /** Changes run one at a time: it is the last one that was taken. */
  abstract abandon(allocation: Allocation): void;

  /** Blocks keep their space, but it may be given back to the file system. Those without read as zeros already. */
  *zero(guest: number, length: number, keep: boolean): Task<boolean> {
    yield* this.#inPlace(guest, length, (offset, count) => zero(this.storage, offset, count, keep));
    return true;
  }

  *discard(guest: number, length: number): Task {
    yield* this.#inPlace(guest, length, (offset, count) => discard(this.storage, offset, count));
  }

  /** Refused before the disk clears what is behind its end. */
  // oxlint-disable-next-line require-yield -- it only refuses
  *reserve(): Task {
    throw this.#cannotResize();
  }

  // oxlint-disable-next-line require-yield -- see reserve
  *resize(size: number): Task {
    if (size !== this.size) throw this.#cannotResize();
  }

  *flush(): Task {
    this.#writable();
    yield* this.beforeMap();
    yield flush(this.storage, "data before the block map that points at them");
    const dirty = this.tables.filter((table) => table.dirty);
    if (dirty.length === 0) return;
    for (const table of dirty) yield* table.writeBack();
    yield flush(this.storage, "the block map");
    for (const table of dirty) table.clean();
  }

  /** Writes what must be durable before the map is. */
  protected *beforeMap(): Task {}

  *close(): Task {
    try {
      if (!this.readOnly) {
        yield* this.flush();
        yield* this.closing();
      }
    } finally {
      yield close(this.storage);
    }
  }

  /** Writes the marks of a clean shutdown. */
  protected *closing(): Task {}

  *#inPlace(guest: number, length: number, change: (offset: number, length: number) => Step): Task {
    this.#writable();
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

  #writable(): void {
    if (this.readOnly) throw new DiskError("read-only", "the image is open read-only", { path: this.storage.name, format: this.format });
  }

  #cannotResize(): DiskError {
    return new DiskError("unsupported", this.noResize, { path: this.storage.name, format: this.format, operation: "resize" });
  }
}
