import { getU64 } from "../../bytes/struct.ts";
import { inflateZlibChecked, inflateZlibCheckedLater } from "../../codecs/zlib.ts";
import type { Extent } from "../../image.ts";
import { LARGEST_APART, Pieces, ReadOnlyImage } from "../../metadata/readOnly.ts";
import type { Storage } from "../../storage.ts";
import type { Task } from "../../task.ts";
import { LIMITS, OFFSETS_AT, type CloopHeader } from "./header.ts";

const ENTRY_SIZE = 8;

/** An open compressed loop: equal blocks, each packed by itself, one behind the other. */
export class CloopImage extends ReadOnlyImage {
  readonly #offsets: Pieces;

  constructor(storage: Storage, readonly header: CloopHeader, tableCache: number) {
    super("cloop", storage, header.size);
    this.#offsets = new Pieces(storage, tableCache);
  }

  map(offset: number, length: number): Extent | undefined {
    const { blockSize } = this.header, skip = offset % blockSize, block = (offset - skip) / blockSize;
    const at = this.#offset(block), end = this.#offset(block + 1);
    if (at === undefined || end === undefined) return undefined;
    const entry = OFFSETS_AT + block * ENTRY_SIZE;
    if (end <= at || end - at > LIMITS.packed) throw this.corrupt(`block ${block} should stand from ${at} to ${end}, which is impossible`, entry);
    if (end > this.storage.size) throw this.corrupt(`the file is truncated: block ${block} should end at ${end}, but the file has ${this.storage.size} bytes`, entry);
    return {
      kind: "packed", length: Math.min(length, blockSize - skip), storage: this.storage, offset: at, packedLength: end - at,
      clusterSize: blockSize, skip, unpack: inflateZlibChecked, unpackLater: blockSize > LARGEST_APART ? undefined : inflateZlibCheckedLater,
    };
  }

  *load(offset: number): Task {
    const at = OFFSETS_AT + Math.floor(offset / this.header.blockSize) * ENTRY_SIZE;
    yield* this.#offsets.load(at);
    yield* this.#offsets.load(at + ENTRY_SIZE);
  }

  #offset(block: number): number | undefined {
    const found = this.#offsets.find(OFFSETS_AT + block * ENTRY_SIZE);
    return found && getU64(found.table.view, found.index);
  }
}
