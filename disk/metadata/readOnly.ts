import { DiskError } from "../errors.ts";
import { ReadFence, type Allocation, type Extent, type Image } from "../image.ts";
import type { Storage } from "../storage.ts";
import { close, type Task } from "../task.ts";
import { TableCache, type Table } from "./table.ts";

const SECTOR = 512;
/** Tables are read in pieces of this many bytes; they begin at multiples of it. */
const PIECE = 4096;
/** Larger blocks are not unpacked on other threads: who reads one in several pieces at once would have it unpacked for each. In bytes. */
export const LARGEST_APART = 2 ** 21;

/** An image of one file, of a format that is only read: what it says of mapping is left to its format. */
export abstract class ReadOnlyImage implements Image {
  readonly readOnly = true;
  readonly blockSize = SECTOR;
  readonly backing = undefined;
  readonly reads = new ReadFence();

  /** `size`: of the guest disk, in bytes. */
  constructor(readonly format: string, readonly storage: Storage, readonly size: number) {}

  abstract map(offset: number, length: number): Extent | undefined;
  abstract load(offset: number): Task;

  // oxlint-disable-next-line require-yield -- it only refuses
  *allocate(): Task<Allocation> {
    throw this.#refused();
  }

  // oxlint-disable-next-line require-yield -- it only refuses
  *publish(): Task {
    throw this.#refused();
  }

  abandon(): void {}

  // oxlint-disable-next-line require-yield -- it only refuses
  *zero(): Task<boolean> {
    throw this.#refused();
  }

  // oxlint-disable-next-line require-yield -- it only refuses
  *discard(): Task {
    throw this.#refused();
  }

  // oxlint-disable-next-line require-yield -- it only refuses
  *resize(): Task {
    throw this.#refused();
  }

  *flush(): Task {}

  *close(): Task {
    yield close(this.storage);
  }

  /** What cannot be right in the file at `offset`. */
  protected corrupt(what: string, offset: number): DiskError {
    return new DiskError("corrupt", what, { path: this.storage.name, offset, format: this.format });
  }

  #refused(): DiskError {
    return new DiskError("read-only", `disk86 only reads ${this.format} images`, { path: this.storage.name, format: this.format });
  }
}

/** Refuses to open for writing an image of a format that is only read. */
export function refuseWriting(storage: Storage, format: string, readOnly: boolean): void {
  if (!readOnly) throw new DiskError("read-only", `disk86 only reads ${format} images: put an overlay on it, or convert it to qcow2`, { path: storage.name, format });
}

/** A file's tables, whatever they are, in a bounded cache. Entries must not lie across a multiple of 4096 bytes. */
export class Pieces {
  readonly #cache: TableCache;

  constructor(file: Storage, limit: number) {
    this.#cache = new TableCache(file, PIECE, limit);
  }

  /** The piece with byte `at` of the file, if it is resident, and where that byte stands in it. */
  find(at: number): { readonly table: Table; readonly index: number } | undefined {
    const index = at % PIECE, table = this.#cache.get((at - index) / PIECE);
    return table === undefined ? undefined : { table, index };
  }

  /** Makes the next `find` of `at` answer. */
  *load(at: number): Task {
    const index = at % PIECE;
    yield* this.#cache.load((at - index) / PIECE, at - index);
  }
}
