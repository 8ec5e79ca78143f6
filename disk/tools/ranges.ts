import type { Extent, Image } from "../image.ts";
import type { Storage } from "../storage.ts";
import { isSparse, learnedAt, placeOf } from "../storage/sparse.ts";
import type { Task } from "../task.ts";
import { allocatedBytes } from "./images.ts";

/** A range of the guest's disk whose bytes have one origin. */
export interface Entry {
  readonly start: number;
  readonly length: number;
  readonly depth: number;
  readonly present: boolean;
  readonly zero: boolean;
  readonly data: boolean;
  readonly offset?: number;
  readonly file?: string;
}

/** For `entryAt`: which images' data the file system need not be asked about. */
export function denseImages(chain: readonly Image[]): boolean[] {
  return chain.map((image) => !looksPreallocated(image));
}

/** What answers for the range that begins at `start`: the first image of the chain that has it. */
export function* entryAt(chain: readonly Image[], start: number, length: number, dense: readonly boolean[]): Task<Entry> {
  for (const [depth, image] of chain.entries()) {
    const extent = yield* layout(image, start, Math.min(length, image.size - start));
    length = extent.length;
    if (extent.kind !== "backing") return yield* toEntry(extent, image, start, depth, dense[depth] === true || image.layout !== undefined);
    const below = chain[depth + 1];
    if (below === undefined || start >= below.size) return { start, length, depth, present: false, zero: true, data: false, ...(extent.offset === undefined ? {} : { offset: extent.offset }) };
  }
  throw new Error("an empty chain");
}

function* layout(image: Image, offset: number, length: number): Task<Extent> {
  for (;;) {
    const extent = image.layout === undefined ? image.map(offset, length) : image.layout(offset, length);
    if (extent !== undefined) return extent;
    yield* image.load(offset);
  }
}

function* toEntry(extent: Exclude<Extent, { kind: "backing" }>, image: Image, start: number, depth: number, dense: boolean): Task<Entry> {
  const entry = { start, length: extent.length, depth, present: true, zero: extent.kind === "zero", data: extent.kind !== "zero" };
  if (extent.kind === "packed" || (extent.kind === "data" && extent.encrypted === true)) return entry;
  // A raw image's bytes are its file's; other formats count from where they begin.
  const placed = image.format === "raw" ? placeOf : (storage: Storage, offset: number) => ({ file: storage.name, offset });
  if (extent.kind === "zero") return extent.offset === undefined ? entry : { ...entry, offset: placed(image.storage, extent.offset).offset };
  const { storage, offset } = extent, place = placed(storage, offset);
  if ((dense && extent.sparse !== true) || !isSparse(storage)) return { ...entry, ...place };
  // Preallocated: the space is reserved in the tables, but the file has nothing there yet.
  const { data, length } = yield* learnedAt(storage, offset);
  return { ...entry, ...place, length: Math.min(length, extent.length), zero: !data };
}

/**
 * Whether the file takes clearly less space than it is long, so that data may be holes: QEMU's rule for asking the
 * file system about them (block/qcow2-refcount.c, qcow2_detect_metadata_preallocation), taking all clusters for used.
 */
function looksPreallocated(image: Image): boolean {
  if (!isSparse(image.storage)) return false;
  const allocated = Math.floor((allocatedBytes(image.storage.name) ?? Infinity) / image.blockSize);
  return Math.ceil(image.storage.size / image.blockSize) >= Math.max(Math.floor((allocated * 10) / 9), allocated + 2);
}
