import { hex } from "../../errors.ts";
import type { Extent } from "../../image.ts";
import { TableCache, type Table } from "../../metadata/table.ts";
import type { Storage } from "../../storage.ts";
import { read, type Task } from "../../task.ts";
import { corrupt, DISCARDED, ENTRY_SIZE, type VdiHeader } from "./header.ts";

/** The map is kept in slices of this many bytes, a whole number of sectors. */
const SLICE = 4096;
const PER_SLICE = SLICE / ENTRY_SIZE;
/** How much of the map is read at once when all of it is. */
const CHUNK = 2 ** 20;

/** The resident slices of the block map: from guest offset to extent. The last may reach into the data; that part is never used nor written. */
export class BlockMap {
  readonly #slices: TableCache;

  constructor(readonly file: Storage, readonly header: VdiHeader, readonly writable: boolean, cacheBytes: number) {
    this.#slices = new TableCache(file, SLICE, cacheBytes);
  }

  /** `Image.map`. */
  map(offset: number, length: number): Extent | undefined {
    const { blockSize } = this.header, skip = offset % blockSize, block = (offset - skip) / blockSize, index = block % PER_SLICE;
    const slice = this.#slices.get((block - index) / PER_SLICE);
    if (slice === undefined) return undefined;
    const first = entry(slice, index), step = first < DISCARDED ? 1 : 0;
    length = Math.min(length, (PER_SLICE - index) * blockSize - skip);
    let done = blockSize - skip, expected = first;
    for (let next = index + 1; done < length; next++, done += blockSize) {
      expected += step;
      const here = entry(slice, next);
      if (step === 1 ? here !== expected : here < DISCARDED) break;
    }
    if (done < length) length = done;
    if (step === 0) return { kind: "zero", length };
    return this.#data(block, first, skip, length);
  }

  #data(block: number, number: number, skip: number, length: number): Extent {
    const { blockSize } = this.header, at = this.placeOf(number);
    if (at >= this.file.size) throw corrupt(this.file, `the file is truncated: guest block ${block} should stand at ${hex(at)}, but the file has ${this.file.size} bytes`, this.entryAt(block));
    // What begins behind the end of the file is no part of this answer: asked for, it is the error above.
    const present = Math.ceil((this.file.size - at) / blockSize) * blockSize - skip;
    return { kind: "data", length: Math.min(length, present), storage: this.file, offset: at + skip, writable: this.writable };
  }

  *load(block: number): Task {
    yield* this.#load(Math.floor(block / PER_SLICE));
  }

  *#load(slice: number): Task<Table> {
    return yield* this.#slices.load(slice, this.header.mapOffset + slice * SLICE);
  }

  /** How many blocks from `block` on have no space, at most `limit`; as far as one slice tells. */
  *vacant(block: number, limit: number): Task<number> {
    const index = block % PER_SLICE, slice = yield* this.#load((block - index) / PER_SLICE);
    const most = Math.min(limit, PER_SLICE - index);
    let count = 0;
    while (count < most && entry(slice, index + count) >= DISCARDED) count++;
    return count;
  }

  /** `count` guest blocks from `block` on, of one slice, get the numbers from `number` on. */
  *set(block: number, number: number, count: number): Task {
    const index = block % PER_SLICE, key = (block - index) / PER_SLICE, slice = yield* this.#load(key);
    this.#slices.modify(key, slice);
    for (let i = 0; i < count; i++) slice.view.setUint32((index + i) * ENTRY_SIZE, number + i, true);
    slice.touch(index * ENTRY_SIZE, (index + count) * ENTRY_SIZE);
  }

  get dirty(): boolean { return this.#slices.dirty; }
  get full(): boolean { return this.#slices.full; }

  writeBack(): Task {
    return this.#slices.writeBack();
  }

  clean(): void {
    this.#slices.clean();
  }

  /** Where the block of this number stands in the file. */
  placeOf(number: number): number {
    return this.header.dataOffset + number * this.header.blockSize;
  }

  /** Where the entry of a guest block stands in the file. */
  entryAt(block: number): number {
    return this.header.mapOffset + block * ENTRY_SIZE;
  }
}

function entry(slice: Table, index: number): number {
  return slice.view.getUint32(index * ENTRY_SIZE, true);
}

/** Shows every entry of the map that is a block's number to `see`, reading a bounded part of it at a time. `charge`: before each read. */
export function* scanMap(file: Storage, { mapOffset, blocks }: VdiHeader, see: (block: number, number: number) => void, charge: (bytes: number) => void = () => {}): Task {
  const chunk = new Uint8Array(Math.min(CHUNK, blocks * ENTRY_SIZE)), view = new DataView(chunk.buffer);
  for (let first = 0; first < blocks; first += CHUNK / ENTRY_SIZE) {
    const count = Math.min(CHUNK / ENTRY_SIZE, blocks - first);
    charge(count * ENTRY_SIZE);
    yield read(file, mapOffset + first * ENTRY_SIZE, chunk.subarray(0, count * ENTRY_SIZE));
    for (let i = 0; i < count; i++) {
      const number = view.getUint32(i * ENTRY_SIZE, true);
      if (number < DISCARDED) see(first + i, number);
    }
  }
}
