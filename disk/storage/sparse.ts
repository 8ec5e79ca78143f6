import type { Pending, Storage } from "../storage.ts";
import { type Task, wait } from "../task.ts";

/** What a sparse file holds at some offset. `length` (bytes, at least 1) is how far the same answer holds. */
export interface SparseExtent { readonly data: boolean; readonly length: number }

/** A storage that can tell its holes from its data: what a raw image's `map` and a copy that skips zeros ask. */
export interface Sparse {
  /**
   * `data: false` only where the bytes surely read as zeros without taking space; `data: true` promises nothing.
   * `offset` is below `size`; the answer reaches to the end of the storage at most. Synchronous; `undefined`: `learn`
   * has to ask first.
   */
  dataAt(offset: number): SparseExtent | undefined;
  /** Makes the next `dataAt(offset)` answer. Absent: it always does. */
  learn?(offset: number): Pending;
}

/** `dataAt`, asking first where that is needed. */
export function* learnedAt(storage: Sparse, offset: number): Task<SparseExtent> {
  for (;;) {
    const known = storage.dataAt(offset);
    if (known !== undefined) return known;
    yield wait(() => storage.learn?.(offset));
  }
}

/** Where bytes stand: at which offset of which file. */
export interface Place { readonly file: string; readonly offset: number }

/** The place of `offset` of `storage`, in the file itself where the storage is a window into one. */
export function placeOf(storage: Storage & { placeOf?(offset: number): Place }, offset: number): Place {
  return storage.placeOf?.(offset) ?? { file: storage.name, offset };
}

export function isSparse(storage: Storage): storage is Storage & Sparse {
  return "dataAt" in storage && typeof storage.dataAt === "function";
}
