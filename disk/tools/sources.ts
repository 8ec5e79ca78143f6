import type { Disk } from "../disk.ts";
import { DiskError } from "../errors.ts";
import { type Task, wait } from "../task.ts";
import { denseImages, entryAt } from "./ranges.ts";

const SECTOR = 512;

/** What a range of the sources is to the copy. `backing`: the target has it from its own backing file. */
export interface Range { readonly kind: "data" | "zero" | "backing"; readonly length: number }

/** Told of each error that a copy goes on after. */
export type Salvage = (what: string, offset: number, error: DiskError) => void;

/** Several disks, one behind the other. */
export class Sources {
  readonly size: number;
  readonly #parts: readonly { readonly disk: Disk; readonly start: number; readonly dense: readonly boolean[] }[];

  /** `topOnly`: only what the disk's own top image has counts. With `salvage` what cannot be read is zeros. */
  constructor(disks: readonly Disk[], readonly topOnly: boolean, readonly salvage?: Salvage) {
    let start = 0;
    this.#parts = disks.map((disk) => {
      const part = { disk, start, dense: denseImages(disk.chain) };
      start += disk.size;
      return part;
    });
    this.size = start;
  }

  /** What begins at `offset`, and how far it goes. */
  *range(offset: number): Task<Range> {
    try {
      return yield* this.#range(offset);
    } catch (error) {
      if (this.salvage === undefined || !(error instanceof DiskError)) throw error;
      this.salvage("block status at offset", offset, error);
      return { kind: "data", length: SECTOR - (offset % SECTOR) };
    }
  }

  /** Fills `into` from `offset`, which is below `size` with all of it. */
  *read(offset: number, into: Uint8Array): Task {
    for (const { disk, start } of this.#parts) {
      const from = Math.max(offset, start), to = Math.min(offset + into.length, start + disk.size);
      if (from < to) yield* this.#readPart(disk, from - start, into.subarray(from - offset, to - offset));
    }
  }

  *#readPart(disk: Disk, offset: number, into: Uint8Array): Task {
    try {
      yield wait(() => disk.read(offset, into));
    } catch (error) {
      if (this.salvage === undefined || !(error instanceof DiskError)) throw error;
      // Sector by sector: only those that cannot be read are lost.
      const length = SECTOR - (offset % SECTOR);
      if (into.length > length) for (let at = 0; at < into.length; at += at === 0 ? length : SECTOR) yield* this.#readPart(disk, offset + at, into.subarray(at, at === 0 ? length : at + SECTOR));
      else {
        this.salvage("offset", offset, error);
        into.fill(0);
      }
    }
  }

  *#range(offset: number): Task<Range> {
    const part = this.#parts.find(({ start, disk }) => offset < start + disk.size);
    if (part === undefined) return { kind: "zero", length: 0 };
    const { disk, dense } = part, at = offset - part.start, [top, below] = disk.chain, rest = disk.size - at;
    if (!this.topOnly || below === undefined) {
      const { zero, length } = yield* entryAt(disk.chain, at, rest, dense);
      return { kind: zero ? "zero" : "data", length };
    }
    const { zero, present, length } = yield* entryAt([top], at, rest, dense);
    if (present) return { kind: zero ? "zero" : "data", length };
    return at < below.size ? { kind: "backing", length: Math.min(length, below.size - at) } : { kind: "zero", length };
  }
}
