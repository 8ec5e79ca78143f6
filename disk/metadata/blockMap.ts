import { DiskError, hex } from "../errors.ts";
import type { Extent } from "../image.ts";
import type { Storage } from "../storage.ts";
import { read, write, type Task } from "../task.ts";
import { TableCache, type Table } from "./table.ts";

/** The map is kept in slices of this many bytes, whole sectors, so that this is what is written back. */
const SLICE = 4096;
/** How much of the map is read at once when all of it is. */
const CHUNK = 2 ** 20;
/** What an entry says of a block without space: that it reads as zeros, or as the backing file does. `INVALID`: nothing that it may. */
export const ZERO = -1, BACKING = -2, INVALID = -3;

/** How a format maps the guest disk's blocks: a table in the file with an entry for each. Offsets and sizes in bytes. */
export interface BlockMapLayout {
  readonly format: string;
  /** What the format calls a block, for messages. */
  readonly noun: "block" | "cluster";
  readonly blockSize: number;
  /** Entries, one a block, and those between: enough for a disk of this size. */
  readonly entries: number;
  /** After the entries of so many blocks comes one of something else. Absent: none does. */
  readonly chunk?: number;
  readonly entrySize: number;
  /** Where the slices begin in the file. */
  readonly slicesAt: number;
  /** Where the first entry stands in the first slice: what comes before it is something else. */
  readonly firstEntry: number;
  /** No block stands before here. */
  readonly dataOffset: number;
  /** Where the block of the entry at `at` stands in the file, or `ZERO`, `BACKING` or `INVALID`. */
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
    const { key, index, room } = this.#find(block), slice = this.#slices.get(key);
    if (slice === undefined) return undefined;
    const first = this.#place(slice, index), step = first < 0 ? 0 : blockSize;
    length = Math.min(length, room * blockSize - skip);
    let done = blockSize - skip, expected = first;
    for (let next = index + 1; done < length; next++, done += blockSize) {
      expected += step;
      if (this.#place(slice, next) !== expected) break;
    }
    if (done < length) length = done;
    if (first === INVALID) throw this.#corrupt(`guest ${this.layout.noun} ${block} is in a state that it cannot be in`, block);
    return first >= 0 ? this.#data(block, first, skip, length) : { kind: first === ZERO ? "zero" : "backing", length };
  }

  /** Where a block's entry is: in which slice, at which index, and how many blocks' entries follow from there on in the slice. */
  #find(block: number): { readonly key: number; readonly index: number; readonly room: number } {
    const { chunk } = this.layout, slot = slotOf(this.layout, block) + this.#before, index = slot % this.#perSlice, rest = this.#perSlice - index;
    return { key: (slot - index) / this.#perSlice, index, room: chunk === undefined ? rest : Math.min(rest, chunk - (block % chunk)) };
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
    yield* this.#load(this.#find(block).key);
  }

  *#load(slice: number): Task<Table> {
    return yield* this.#slices.load(slice, this.layout.slicesAt + slice * SLICE);
  }

  /** How many blocks from `block` on have no space, at most `limit`; as far as one slice tells. */
  *vacant(block: number, limit: number): Task<number> {
    const { key, index, room } = this.#find(block), slice = yield* this.#load(key), most = Math.min(limit, room);
    let count = 0;
    while (count < most && this.#place(slice, index + count) < 0) count++;
    return count;
  }

  /** Where a block stands, or `ZERO`, `BACKING` or `INVALID`. */
  *place(block: number): Task<number> {
    const { key, index } = this.#find(block);
    return this.#place(yield* this.#load(key), index);
  }

  /** The entry itself of a block, or with `slot` of whatever has that one; `undefined`: not resident. */
  entry(block: number, slot = slotOf(this.layout, block)): { readonly view: DataView; readonly at: number } | undefined {
    const index = (slot + this.#before) % this.#perSlice, slice = this.#slices.get((slot + this.#before - index) / this.#perSlice);
    return slice && { view: slice.view, at: index * this.layout.entrySize };
  }

  /** Makes the next `entry` for this slot answer. */
  *loadSlot(slot: number): Task {
    yield* this.#load(Math.floor((slot + this.#before) / this.#perSlice));
  }

  /** `count` guest blocks from `block` on, of one slice, stand one after the other from `place` on. */
  *set(block: number, place: number, count: number): Task {
    const { blockSize, entrySize } = this.layout, { key, index } = this.#find(block);
    const slice = yield* this.#load(key);
    this.#slices.modify(key, slice);
    for (let i = 0; i < count; i++) this.layout.encode(slice.view, (index + i) * entrySize, place + i * blockSize);
    slice.touch(index * entrySize, (index + count) * entrySize);
  }

  /** The slices that must be written back. */
  get dirtySlices(): readonly Table[] { return this.#slices.dirtyTables; }
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

/** Which entry is a guest block's. */
function slotOf({ chunk }: BlockMapLayout, block: number): number {
  return chunk === undefined ? block : block + Math.floor(block / chunk);
}

/** Where the entry of a guest block stands in the file. */
export function entryAt(layout: BlockMapLayout, block: number): number {
  return layout.slicesAt + layout.firstEntry + slotOf(layout, block) * layout.entrySize;
}

/**
 * Shows where every block that has space stands to `see` (or that its entry is `INVALID`), reading a bounded part of the map at a time. Where `see`
 * answers "clear" the entry is made 0, in the file too. `charge`: before each read.
 */
export function* scanBlockMap(file: Storage, layout: BlockMapLayout, see: (block: number, place: number) => "clear" | undefined, charge: (bytes: number) => void = () => {}): Task {
  const { entries, entrySize, slicesAt, firstEntry, chunk: period = Infinity } = layout, chunk = new Uint8Array(Math.min(CHUNK, entries * entrySize)), view = new DataView(chunk.buffer);
  for (let first = 0; first < entries; first += CHUNK / entrySize) {
    const part = chunk.subarray(0, Math.min(CHUNK / entrySize, entries - first) * entrySize), place = slicesAt + firstEntry + first * entrySize;
    charge(part.length);
    yield read(file, place, part);
    let cleared = false;
    for (let at = 0, slot = first; at < part.length; at += entrySize, slot++) {
      if (slot % (period + 1) === period) continue;
      const stands = layout.decode(view, at);
      if (stands < 0 && stands !== INVALID) continue;
      if (see(slot - Math.floor(slot / (period + 1)), stands) === undefined) continue;
      part.fill(0, at, at + entrySize);
      cleared = true;
    }
    if (cleared) yield write(file, place, part);
  }
}
