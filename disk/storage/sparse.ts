import type { Storage } from "../storage.ts";

/** What a sparse file holds at some offset. `length` (bytes, at least 1) is how far the same answer holds. */
export interface SparseExtent { readonly data: boolean; readonly length: number }

/** A storage that can tell its holes from its data: what a raw image's `map` and a copy that skips zeros ask. */
export interface Sparse {
  /**
   * `data: false` only where the bytes surely read as zeros without taking space; `data: true` promises nothing.
   * `offset` is below `size`; the answer reaches to the end of the storage at most. Synchronous.
   */
  dataAt(offset: number): SparseExtent;
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
