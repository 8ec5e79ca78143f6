import { deflate } from "../../codecs/deflate.ts";
import { setU64 } from "../../bytes/struct.ts";
import { Filter } from "../../filters/filter.ts";
import { all, type Pending } from "../../storage.ts";
import { run, wait, write, type Task } from "../../task.ts";
import type { Grains } from "./grains.ts";
import { SECTOR } from "./header.ts";
import { MARKER_LENGTH_AT, MARKER_SIZE } from "./packed.ts";

/** Where grains that are written plainly to an image of compressed ones go: it compresses them, and appends them to the file. */
export class Packer extends Filter {
  /** Where the grains stand, once they were written. */
  sectors: readonly number[] = [];

  /** `guest`: where the first grain stands on the guest disk, in bytes. */
  constructor(readonly grains: Grains, readonly guest: number) {
    super(grains.file);
  }

  /** `from`: all the grains, whole. */
  override write(_offset: number, from: Uint8Array): Pending {
    return run(this.#store(from));
  }

  *#store(from: Uint8Array): Task {
    const { grainSize } = this.grains.header, packed: Uint8Array[] = [];
    // All begin at once: they may run side by side.
    const running = Array.from({ length: from.length / grainSize }, (_, i) => packGrain(from.subarray(i * grainSize, (i + 1) * grainSize)));
    yield wait(() => all(running.map((one, i) => (one instanceof Promise ? one.then((result) => { packed[i] = result; }) : void (packed[i] = one)))));
    this.sectors = yield* appendGrains(this.grains, this.guest, packed);
  }
}

/** Compressed even where that makes it longer: the format knows no others. */
export function packGrain(grain: Uint8Array): Uint8Array | Promise<Uint8Array> {
  return deflate(grain, "zlib");
}

/** Appends grains that follow each other from `guest` on, each with its marker and from a sector's beginning. Answers their sectors. */
export function* appendGrains(grains: Grains, guest: number, packed: readonly Uint8Array[]): Task<number[]> {
  const sizes = packed.map(({ length }) => Math.ceil((MARKER_SIZE + length) / SECTOR) * SECTOR), total = sizes.reduce((sum, size) => sum + size, 0);
  const bytes = new Uint8Array(total), view = new DataView(bytes.buffer), at = grains.take(total, SECTOR), sectors: number[] = [];
  let place = 0;
  for (const [i, one] of packed.entries()) {
    setU64(view, place, (guest + i * grains.header.grainSize) / SECTOR, true);
    view.setUint32(place + MARKER_LENGTH_AT, one.length, true);
    bytes.set(one, place + MARKER_SIZE);
    sectors.push((at + place) / SECTOR);
    place += sizes[i] ?? 0;
  }
  try {
    yield write(grains.file, at, bytes);
  } catch (error) {
    grains.give(at, total);
    throw error;
  }
  return sectors;
}
