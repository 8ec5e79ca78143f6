import { DiskError, hex } from "../errors.ts";
import type { Extent } from "../image.ts";
import type { Storage } from "../storage.ts";
import { read, write, type Task } from "../task.ts";
import { TableCache, type Table } from "./table.ts";

/** The map is kept in slices of this many bytes, whole sectors, so that this is what is written back. */
const SLICE = 4096;
/** How much of the map is read at once when all of it is. */
const CHUNK = 2 ** 20;
/** What an entry says of a block without space: that it reads as zeros, or as the backing file does. */
export const ZERO = -1, BACKING = -2;

/** How a format maps the guest disk's blocks: a table in the file with an entry for each. Offsets and sizes in bytes. */
export interface BlockMapLayout {
  readonly format: string;
  /** What the format calls a block, for messages. */
  readonly noun: "block" | "cluster";
  readonly blockSize: number;
  /** Entries, one a block: those of a disk of this size at least. */
  readonly entries: number;
  readonly entrySize: number;
  /** Where the slices begin in the file. */
  readonly slicesAt: number;
  /** Where the first entry stands in the first slice: what comes before it is something else. */
  readonly firstEntry: number;
  /** No block stands before here. */
  readonly dataOffset: number;
  /** Where the block of the entry at `at` stands in the file, or `ZERO` or `BACKING`. */
  decode(view: DataView, at: number): number;
  encode(view: DataView, at: number, place: number): void;
}

/**
 * The resident slices of a block map: from guest offset to extent. The last slice may reach into what follows the map;
 * that part is never used nor written.
 */
export class BlockMap {
  readonly #slices: TableCache;
  readonly #perSlice: number;
  readonly #before: number;

  constructor(readonly file: Storage, readonly layout: BlockMapLayout, readonly writable: boolean, cacheBytes: number) {
    this.#slices = new TableCache(file, SLICE, cacheBytes);
    this.#perSlice = SLICE / layout.entrySize;
    this.#before = layout.firstEntry / layout.entrySize;
  }

  /** `Image.map`. */
  map(offset: number, length: number): Extent | undefined {
    const { blockSize } = this.layout, skip = offset % blockSize, block = (offset - skip) / blockSize;
    const index = (block + this.#before) % this.#perSlice, slice = this.#slices.get((block + this.#before - index) / this.#perSlice);
    if (slice === undefined) return undefined;
    const first = this.#place(slice, index), step = first < 0 ? 0 : blockSize;
    length = Math.min(length, (this.#perSlice - index) * blockSize - skip);
    let done = blockSize - skip, expected = first;
    for (let next = index + 1; done < length; next++, done += blockSize) {
      expected += step;
      if (this.#place(slice, next) !== expected) break;
    }
    if (done < length) length = done;
    return first >= 0 ? this.#data(block, first, skip, length) : { kind: first === ZERO ? "zero" : "backing", length };
  }

  #data(block: number, at: number, skip: number, length: number): Extent {
    const { file, layout: { blockSize, dataOffset, noun } } = this;
    if (at < dataOffset) throw this.#corrupt(`guest ${noun} ${block} should stand at ${hex(at)}, before the data begin`, block);
    if (at >= file.size) throw this.#corrupt(`the file is truncated: guest ${noun} ${block} should stand at ${hex(at)}, but the file has ${file.size} bytes`, block);
    // What begins behind the end of the file is no part of this answer: asked for, it is the error above.
    const present = Math.ceil((file.size - at) / blockSize) * blockSize - skip;
    return { kind: "data", length: Math.min(length, present), storage: file, offset: at + skip, writable: this.writable };
  }

  *load(block: number): Task {
    yield* this.#load(Math.floor((block + this.#before) / this.#perSlice));
  }

  *#load(slice: number): Task<Table> {
    return yield* this.#slices.load(slice, this.layout.slicesAt + slice * SLICE);
  }

  /** How many blocks from `block` on have no space, at most `limit`; as far as one slice tells. */
  *vacant(block: number, limit: number): Task<number> {
    const index = (block + this.#before) % this.#perSlice, slice = yield* this.#load((block + this.#before - index) / this.#perSlice);
    const most = Math.min(limit, this.#perSlice - index);
    let count = 0;
    while (count < most && this.#place(slice, index + count) < 0) count++;
    return count;
  }

  /** Where a block stands, or `ZERO` or `BACKING`. */
  *place(block: number): Task<number> {
    const index = (block + this.#before) % this.#perSlice;
    return this.#place(yield* this.#load((block + this.#before - index) / this.#perSlice), index);
  }

  /** `count` guest blocks from `block` on, of one slice, stand one after the other from `place` on. */
  *set(block: number, place: number, count: number): Task {
    const { blockSize, entrySize } = this.layout, index = (block + this.#before) % this.#perSlice, key = (block + this.#before - index) / this.#perSlice;
    const slice = yield* this.#load(key);
    this.#slices.modify(key, slice);
    for (let i = 0; i < count; i++) this.layout.encode(slice.view, (index + i) * entrySize, place + i * blockSize);
    slice.touch(index * entrySize, (index + count) * entrySize);
  }

  get dirty(): boolean { return this.#slices.dirty; }
  get full(): boolean { return this.#slices.full; }

  writeBack(): Task {
    return this.#slices.writeBack();
  }

  clean(): void {
    this.#slices.clean();
  }

  #place(slice: Table, index: number): number {
    return this.layout.decode(slice.view, index * this.layout.entrySize);
  }

  #corrupt(what: string, block: number): DiskError {
    return new DiskError("corrupt", what, { path: this.file.name, offset: entryAt(this.layout, block), format: this.layout.format });
  }
}

/** Where the entry of a guest block stands in the file. */
export function entryAt({ slicesAt, firstEntry, entrySize }: BlockMapLayout, block: number): number {
  return slicesAt + firstEntry + block * entrySize;
}

/**
 * Shows where every block that has space stands to `see`, reading a bounded part of the map at a time. Where `see`
 * answers "clear" the entry is made 0, in the file too. `charge`: before each read.
 */
export function* scanBlockMap(file: Storage, layout: BlockMapLayout, see: (block: number, place: number) => "clear" | undefined, charge: (bytes: number) => void = () => {}): Task {
  const { entries, entrySize } = layout, chunk = new Uint8Array(Math.min(CHUNK, entries * entrySize)), view = new DataView(chunk.buffer);
  for (let first = 0; first < entries; first += CHUNK / entrySize) {
    const part = chunk.subarray(0, Math.min(CHUNK / entrySize, entries - first) * entrySize);
    charge(part.length);
    yield read(file, entryAt(layout, first), part);
    let cleared = false;
    for (let at = 0; at < part.length; at += entrySize) {
      const place = layout.decode(view, at);
      if (place < 0 || see(first + at / entrySize, place) === undefined) continue;
      part.fill(0, at, at + entrySize);
      cleared = true;
    }
    if (cleared) yield write(file, entryAt(layout, first), part);
  }
}
