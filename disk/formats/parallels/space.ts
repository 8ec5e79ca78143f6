import { DiskError } from "../../errors.ts";
import { entryAt, scanBlockMap } from "../../metadata/blockMap.ts";
import type { Storage } from "../../storage.ts";
import type { Task } from "../../task.ts";
import { batLayout, corrupt, type ParallelsHeader } from "./header.ts";

/** One bit a cluster of the file: enough for 256 TiB in clusters of 1 MiB. */
const MAX_BITS = 2 ** 28;

/** The clusters that the BAT points at, while it is read. */
export class Used {
  readonly #bits: Uint8Array;

  constructor(readonly header: ParallelsHeader, fileSize: number, limit = MAX_BITS) {
    const clusters = Math.max(0, Math.ceil((fileSize - header.dataOffset) / header.clusterSize));
    if (clusters > limit) throw new DiskError("unsupported", `a file of ${clusters} clusters is too large to be written or checked: the bound is ${limit}`, { format: "parallels" });
    this.#bits = new Uint8Array(Math.ceil(clusters / 8));
  }

  /** What is wrong with an entry that points to `at`, which lies within the file; else it counts as used. */
  add(at: number): string | undefined {
    const { dataOffset, clusterSize } = this.header, number = (at - dataOffset) / clusterSize;
    if (number < 0) return "is before the data begin";
    if (!Number.isInteger(number)) return "is between clusters";
    const bit = 1 << (number & 7), byte = number >>> 3, old = this.#bits[byte] ?? 0;
    if ((old & bit) !== 0) return "shares its place with another";
    this.#bits[byte] = old | bit;
    return undefined;
  }
}

/** Where the data end, and new clusters begin. Reads the whole BAT: one that contradicts itself must not be written. */
export function* dataEnd(file: Storage, header: ParallelsHeader): Task<number> {
  const used = new Used(header, file.size), layout = batLayout(header);
  let end = header.dataOffset;
  yield* scanBlockMap(file, layout, (cluster, at) => {
    const wrong = at >= file.size ? "is outside the image: the file is truncated" : used.add(at);
    if (wrong !== undefined) throw corrupt(file, `guest cluster ${cluster} ${wrong}; the image can only be read, or mended by check -r all`, entryAt(layout, cluster));
    end = Math.max(end, at + header.clusterSize);
    return undefined;
  });
  return end;
}
