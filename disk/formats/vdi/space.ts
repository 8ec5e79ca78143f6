import { DiskError } from "../../errors.ts";
import { entryAt, scanBlockMap } from "../../metadata/blockMap.ts";
import type { Storage } from "../../storage.ts";
import type { Task } from "../../task.ts";
import { corrupt, mapLayout, type VdiHeader } from "./header.ts";

/** One bit a block: enough for a disk of 256 TiB. */
const MAX_BITS = 2 ** 28;

/** Which blocks of the data area are in use. The map alone tells; the header only counts them. */
export class Space {
  readonly #used: Uint8Array;
  /** All blocks below are in use. */
  #lowest = 0;
  /** Behind the last block in use. */
  end = 0;

  constructor(readonly blocks: number) {
    this.#used = new Uint8Array(Math.ceil(blocks / 8));
  }

  /** Reads the whole map. An image whose map contradicts itself must not be written. */
  static *read(file: Storage, header: VdiHeader): Task<Space> {
    const { blocks, dataOffset, blockSize } = header, layout = mapLayout(header);
    if (blocks > MAX_BITS) throw new DiskError("unsupported", `a VDI of ${blocks} blocks cannot be opened for writing: disk86's bound is ${MAX_BITS}`, { path: file.name, format: "vdi" });
    const space = new Space(blocks);
    yield* scanBlockMap(file, layout, (block, place) => {
      const number = (place - dataOffset) / blockSize;
      const bad = (what: string): DiskError => corrupt(file, `guest block ${block} ${what}; the image can only be read`, entryAt(layout, block));
      if (number >= blocks) throw bad(`has number ${number}, but there are only ${blocks} blocks`);
      if (space.#has(number)) throw bad(`shares block ${number} with another`);
      if (place >= file.size) throw bad(`stands behind the end of the file: it is truncated`);
      space.#mark(number);
      return undefined;
    });
    return space;
  }

  /** Takes up to `limit` free blocks that follow each other, the lowest there are. A map without contradictions has one free for each guest block without. */
  take(limit: number): { readonly number: number; readonly count: number } {
    while (this.#has(this.#lowest)) this.#lowest++;
    const number = this.#lowest;
    if (number >= this.blocks) throw new Error("more guest blocks than blocks");
    let count = 0;
    while (count < limit && number + count < this.blocks && !this.#has(number + count)) this.#mark(number + count++);
    return { number, count };
  }

  /** Gives back what nobody ever pointed at. */
  give(number: number, count: number): void {
    for (let i = number; i < number + count; i++) this.#used[i >>> 3] = (this.#used[i >>> 3] ?? 0) & ~(1 << (i & 7));
    this.#lowest = Math.min(this.#lowest, number);
    while (this.end > 0 && !this.#has(this.end - 1)) this.end--;
  }

  #has(number: number): boolean {
    return ((this.#used[number >>> 3] ?? 0) & (1 << (number & 7))) !== 0;
  }

  #mark(number: number): void {
    this.#used[number >>> 3] = (this.#used[number >>> 3] ?? 0) | (1 << (number & 7));
    this.end = Math.max(this.end, number + 1);
  }
}
