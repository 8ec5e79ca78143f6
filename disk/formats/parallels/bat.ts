import { hex } from "../../errors.ts";
import type { Extent } from "../../image.ts";
import { TableCache, type Table } from "../../metadata/table.ts";
import type { Storage } from "../../storage.ts";
import { read, write, type Task } from "../../task.ts";
import { corrupt, ENTRY_SIZE, HeaderFields, type ParallelsHeader } from "./header.ts";

/** The BAT is kept in slices that begin with the file, so that what is written back is whole sectors: the first has the header, too. */
const SLICE = 4096;
const PER_SLICE = SLICE / ENTRY_SIZE, FIRST = HeaderFields.size / ENTRY_SIZE;
/** How much of the BAT is read at once when all of it is. */
const CHUNK = 2 ** 20;

/** The resident slices of the BAT: from guest offset to extent. The last may reach into the data; that part is never used nor written. */
export class Bat {
  readonly #slices: TableCache;

  constructor(readonly file: Storage, readonly header: ParallelsHeader, readonly writable: boolean, cacheBytes: number) {
    this.#slices = new TableCache(file, SLICE, cacheBytes);
  }

  /** `Image.map`. */
  map(offset: number, length: number): Extent | undefined {
    const { clusterSize, unit } = this.header, skip = offset % clusterSize, cluster = (offset - skip) / clusterSize;
    const index = (cluster + FIRST) % PER_SLICE, slice = this.#slices.get((cluster + FIRST - index) / PER_SLICE);
    if (slice === undefined) return undefined;
    const first = entry(slice, index), step = first === 0 ? 0 : clusterSize / unit;
    length = Math.min(length, (PER_SLICE - index) * clusterSize - skip);
    let done = clusterSize - skip, expected = first;
    for (let next = index + 1; done < length; next++, done += clusterSize) {
      expected += step;
      if (entry(slice, next) !== expected) break;
    }
    if (done < length) length = done;
    return first === 0 ? { kind: "backing", length } : this.#data(cluster, first * unit, skip, length);
  }

  #data(cluster: number, at: number, skip: number, length: number): Extent {
    const { clusterSize, dataOffset } = this.header;
    if (at < dataOffset) throw corrupt(this.file, `guest cluster ${cluster} should stand at ${hex(at)}, before the data begin`, entryAt(cluster));
    if (at >= this.file.size) throw corrupt(this.file, `the file is truncated: guest cluster ${cluster} should stand at ${hex(at)}, but the file has ${this.file.size} bytes`, entryAt(cluster));
    // What begins behind the end of the file is no part of this answer: asked for, it is the error above.
    const present = Math.ceil((this.file.size - at) / clusterSize) * clusterSize - skip;
    return { kind: "data", length: Math.min(length, present), storage: this.file, offset: at + skip, writable: this.writable };
  }

  *load(cluster: number): Task {
    yield* this.#load(Math.floor((cluster + FIRST) / PER_SLICE));
  }

  *#load(slice: number): Task<Table> {
    return yield* this.#slices.load(slice, slice * SLICE);
  }

  /** How many clusters from `cluster` on have no space, at most `limit`; as far as one slice tells. */
  *vacant(cluster: number, limit: number): Task<number> {
    const index = (cluster + FIRST) % PER_SLICE, slice = yield* this.#load((cluster + FIRST - index) / PER_SLICE);
    const most = Math.min(limit, PER_SLICE - index);
    let count = 0;
    while (count < most && entry(slice, index + count) === 0) count++;
    return count;
  }

  /** `count` guest clusters from `cluster` on, of one slice, stand one after the other from `at` on. */
  *set(cluster: number, at: number, count: number): Task {
    const { clusterSize, unit } = this.header, index = (cluster + FIRST) % PER_SLICE, key = (cluster + FIRST - index) / PER_SLICE;
    const slice = yield* this.#load(key);
    this.#slices.modify(key, slice);
    for (let i = 0; i < count; i++) slice.view.setUint32((index + i) * ENTRY_SIZE, (at + i * clusterSize) / unit, true);
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
}

function entry(slice: Table, index: number): number {
  return slice.view.getUint32(index * ENTRY_SIZE, true);
}

/** Where the entry of a guest cluster stands in the file. */
export function entryAt(cluster: number): number {
  return HeaderFields.size + cluster * ENTRY_SIZE;
}

/**
 * Shows every entry of the BAT to `see`, as an offset in bytes (0: no space), reading a bounded part of it at a time.
 * Where `see` answers "clear" the entry is made 0, in the file too. `charge`: before each read.
 */
export function* scanBat(file: Storage, { entries, unit }: ParallelsHeader, see: (cluster: number, at: number) => "clear" | undefined, charge: (bytes: number) => void = () => {}): Task {
  const chunk = new Uint8Array(Math.min(CHUNK, entries * ENTRY_SIZE)), view = new DataView(chunk.buffer);
  for (let first = 0; first < entries; first += CHUNK / ENTRY_SIZE) {
    const part = chunk.subarray(0, Math.min(CHUNK / ENTRY_SIZE, entries - first) * ENTRY_SIZE);
    charge(part.length);
    yield read(file, entryAt(first), part);
    let cleared = false;
    for (let at = 0; at < part.length; at += ENTRY_SIZE) {
      if (see(first + at / ENTRY_SIZE, view.getUint32(at, true) * unit) === undefined) continue;
      view.setUint32(at, 0);
      cleared = true;
    }
    if (cleared) yield write(file, entryAt(first), part);
  }
}
