import { bunzip2 } from "../../codecs/bzip2.ts";
import { inflateZlibChecked, inflateZlibCheckedLater } from "../../codecs/zlib.ts";
import { DiskError } from "../../errors.ts";
import type { Extent, PackedExtent } from "../../image.ts";
import { LARGEST_APART, ReadOnlyImage } from "../../metadata/readOnly.ts";
import type { Storage } from "../../storage.ts";
import type { Task } from "../../task.ts";
import { CHUNK, type Chunk } from "./chunks.ts";

const SECTOR = 512;
const UNPACK: Readonly<Record<number, Pick<PackedExtent, "unpack" | "unpackLater"> | undefined>> = {
  [CHUNK.zlib]: { unpack: inflateZlibChecked, unpackLater: inflateZlibCheckedLater }, [CHUNK.bzip2]: { unpack: bunzip2 },
};
const UNREAD: Readonly<Record<number, string | undefined>> = { [CHUNK.adc]: "ADC", [CHUNK.lzfse]: "LZFSE", [CHUNK.lzma]: "LZMA" };

/** An open disk image of macOS: chunks of several kinds, all known since it was opened. */
export class DmgImage extends ReadOnlyImage {
  constructor(storage: Storage, size: number, readonly chunks: readonly Chunk[]) {
    super("dmg", storage, size);
  }

  map(offset: number, length: number): Extent {
    const chunk = this.#find(offset), skip = offset - chunk.start, rest = Math.min(length, chunk.size - skip);
    switch (chunk.type) {
      case CHUNK.zero:
      case CHUNK.ignored: return { kind: "zero", length: rest };
      case CHUNK.raw: return this.#raw(chunk, skip, rest);
      default: return this.#packed(chunk, skip, rest);
    }
  }

  *load(): Task {}

  /** The last chunk that begins at or before `offset`; it must reach there. */
  #find(offset: number): Chunk {
    let from = 0, to = this.chunks.length;
    while (from < to) {
      const middle = (from + to) >> 1, { start } = this.chunks[middle] as Chunk;
      if (start <= offset) from = middle + 1;
      else to = middle;
    }
    const chunk = this.chunks[from - 1];
    if (chunk === undefined || chunk.start + chunk.size <= offset) throw this.corrupt(`no chunk holds sector ${Math.floor(offset / SECTOR)} of the disk`, 0);
    return chunk;
  }

  /** The bytes of the last sector may be fewer. */
  #raw({ start, size, offset, length }: Chunk, skip: number, rest: number): Extent {
    if (length <= size - SECTOR) throw this.corrupt(`a chunk of ${size} bytes from sector ${start / SECTOR} has only ${length} in the file`, offset);
    this.#within(offset, Math.min(length, size));
    if (skip >= length) return { kind: "zero", length: rest };
    return { kind: "data", length: Math.min(rest, length - skip), storage: this.storage, offset: offset + skip, writable: false };
  }

  #packed({ type, start, size, offset, length }: Chunk, skip: number, rest: number): Extent {
    const method = UNPACK[type];
    if (method === undefined) {
      throw new DiskError("unsupported", `the chunk at sector ${start / SECTOR} is compressed with ${UNREAD[type] ?? `an unknown method (0x${type.toString(16)})`}; zlib and bzip2 are read: convert the image with hdiutil convert -format UDZO`, { path: this.storage.name, offset, format: "dmg" });
    }
    this.#within(offset, length);
    return { kind: "packed", length: rest, storage: this.storage, offset, packedLength: length, clusterSize: size, skip, unpack: method.unpack, unpackLater: size > LARGEST_APART ? undefined : method.unpackLater };
  }

  #within(offset: number, length: number): void {
    if (offset + length > this.storage.size) throw this.corrupt(`the file is truncated: a chunk should stand from ${offset} to ${offset + length}, but the file has ${this.storage.size} bytes`, offset);
  }
}
