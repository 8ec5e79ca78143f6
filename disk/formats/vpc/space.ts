import { DiskError } from "../../errors.ts";
import { entryAt, scanBlockMap } from "../../metadata/blockMap.ts";
import type { Storage } from "../../storage.ts";
import { read, type Task } from "../../task.ts";
import { SECTOR } from "./footer.ts";
import { batLayout, corrupt, type VpcSparse } from "./header.ts";

/** Four bytes for each block that the file has room for: enough for 32 TiB in blocks of 2 MiB. */
const MAX_BLOCKS = 2 ** 24;

/** Where the blocks stand that were seen so far, in buckets as long as a block: each has one beginning at most. */
class Places {
  readonly #begins: Uint32Array;

  constructor(readonly length: number, end: number) {
    this.#begins = new Uint32Array(Math.ceil(end / length) + 1);
  }

  /** Whether the block overlaps no other, and then counts as seen. */
  add(at: number): boolean {
    const bucket = Math.floor(at / this.length), near = [bucket - 1, bucket, bucket + 1].map((one) => (this.#begins[one] ?? 0) * SECTOR);
    if (near.some((other) => other !== 0 && Math.abs(other - at) < this.length)) return false;
    this.#begins[bucket] = at / SECTOR;
    return true;
  }
}

/** Where new blocks begin, in bytes, and whether the footer stands there. */
export interface DataEnd { readonly end: number; readonly footer: boolean }

/** Reads the whole BAT: one that contradicts itself must not be written. */
export function* dataEnd(file: Storage, header: VpcSparse): Task<DataEnd> {
  const { blockSize, bitmapSize, taken } = header, length = bitmapSize + blockSize, layout = batLayout(header);
  if (file.size / length > MAX_BLOCKS) throw new DiskError("unsupported", `a VHD file with room for ${Math.floor(file.size / length)} blocks cannot be opened for writing: the bound is ${MAX_BLOCKS}`, { path: file.name, format: "vpc" });
  const places = new Places(length, file.size);
  let end = Math.max(...taken.map(([, to]) => to));
  yield* scanBlockMap(file, layout, (block, place) => {
    const at = place - bitmapSize, bad = (what: string): DiskError => corrupt(file, `guest block ${block} ${what}; the image can only be read`, entryAt(layout, block));
    if (at + length > file.size) throw bad("reaches behind the end of the file: it is truncated");
    if (taken.some(([from, to]) => at < to && from < at + length)) throw bad("stands in what is not for blocks");
    if (!places.add(at)) throw bad("shares its place with another");
    end = Math.max(end, at + length);
    return undefined;
  });
  end = Math.ceil(end / SECTOR) * SECTOR;
  // Where the footer is at the file's end, as it should be, nobody knows what else may stand before it.
  const at = file.size - SECTOR, last = new Uint8Array(SECTOR);
  yield read(file, at, last);
  const footer = at >= end && at % SECTOR === 0 && last.every((byte, i) => byte === header.footer[i]);
  return { end: footer ? at : end, footer };
}
