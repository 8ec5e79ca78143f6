import { entryAt, INVALID, scanBlockMap } from "../../metadata/blockMap.ts";
import type { Storage } from "../../storage.ts";
import type { Task } from "../../task.ts";
import { batLayout, type VhdxLayout } from "./header.ts";
import { corrupt, MIB, unsupported } from "./structures.ts";

/** One bit a MiB of the file: enough for 256 TiB. */
const MAX_BITS = 2 ** 28;

/** The space in a file that blocks have, while the BAT is read. */
export class Used {
  readonly #bits: Uint8Array;
  /** Behind the last block. */
  end: number;

  constructor(readonly file: Storage, readonly layout: VhdxLayout, limit = MAX_BITS) {
    const units = Math.ceil(file.size / MIB);
    if (units > limit) throw unsupported(file, `a file of ${units} MiB is too large to be written or checked: the bound is ${limit}`);
    this.#bits = new Uint8Array(Math.ceil(units / 8));
    this.end = Math.max(...layout.taken.map(([, to]) => to));
  }

  /** What is wrong with a block that stands at `at`; else it counts as used. Fixed images of QEMU end within their last block. */
  add(at: number): string | undefined {
    const { blockSize, taken } = this.layout;
    if (at === INVALID) return "is in a state that it cannot be in";
    if (at >= this.file.size) return "is behind the end of the file: it is truncated";
    if (taken.some(([from, to]) => at < to && from < at + blockSize)) return "stands in the header, the log or a region";
    for (let unit = at / MIB; unit < Math.min(at + blockSize, this.file.size) / MIB; unit++) {
      const bit = 1 << (unit & 7), byte = unit >>> 3, old = this.#bits[byte] ?? 0;
      if ((old & bit) !== 0) return "shares its place with another";
      this.#bits[byte] = old | bit;
    }
    this.end = Math.max(this.end, at + blockSize);
    return undefined;
  }
}

/** Where new blocks begin. Reads the whole BAT: one that contradicts itself must not be written. */
export function* dataEnd(file: Storage, layout: VhdxLayout): Task<number> {
  const used = new Used(file, layout), bat = batLayout(layout);
  yield* scanBlockMap(file, bat, (block, at) => {
    const wrong = used.add(at);
    if (wrong !== undefined) throw corrupt(file, `guest block ${block} ${wrong}; the image can only be read`, entryAt(bat, block));
    return undefined;
  });
  return used.end;
}
