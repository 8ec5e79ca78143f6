import { DiskError } from "../errors.ts";
import type { Pending, Storage } from "../storage.ts";
import { isSparse, type Place, placeOf, type Sparse, type SparseExtent } from "../storage/sparse.ts";
import { Filter } from "./filter.ts";

/** A window into another storage: one partition, one extent. Nothing outside is ever read or changed. */
export class SliceStorage extends Filter implements Sparse {
  /** `length` bytes from `start`; they need not exist in `inner` yet, and then read as zero. `grows`: the window reaches to the end of `inner`, wherever that is. */
  constructor(inner: Storage, readonly start: number, readonly length: number, readonly grows = false) {
    super(inner);
    if (!(Number.isSafeInteger(start) && Number.isSafeInteger(length) && start >= 0 && length >= 0 && Number.isSafeInteger(start + length))) {
      throw new DiskError("invalid-argument", `there is no window of ${length} bytes at ${start}`, { path: inner.name });
    }
  }

  override get size(): number {
    return this.grows ? Math.max(0, this.inner.size - this.start) : this.length;
  }

  override read(offset: number, into: Uint8Array): Pending {
    const inside = this.#clip(offset, into.length);
    if (inside === into.length) return super.read(this.start + offset, into);
    into.fill(0, inside);
    return inside > 0 ? super.read(this.start + offset, into.subarray(0, inside)) : undefined;
  }

  override write(offset: number, from: Uint8Array): Pending {
    if (this.#clip(offset, from.length) < from.length) throw new DiskError("out-of-bounds", `reaches beyond the ${this.length} bytes there are`, { path: this.name, offset, operation: "write" });
    return super.write(this.start + offset, from);
  }

  override zero(offset: number, length: number, keep?: boolean): Pending {
    return super.zero(this.start + offset, this.#clip(offset, length), keep);
  }

  override discard(offset: number, length: number): Pending {
    return super.discard(this.start + offset, this.#clip(offset, length));
  }

  override truncate(size: number): Pending {
    if (this.grows) return super.truncate(this.start + size);
    if (size !== this.length) throw new DiskError("unsupported", "a window into another file has a fixed size", { path: this.name, operation: "truncate" });
  }

  dataAt(offset: number): SparseExtent | undefined {
    const rest = this.size - offset, at = this.start + offset;
    if (at >= this.inner.size) return { data: false, length: rest };
    if (!isSparse(this.inner)) return { data: true, length: rest };
    const found = this.inner.dataAt(at);
    return found && { data: found.data, length: Math.min(found.length, rest) };
  }

  learn(offset: number): Pending {
    return isSparse(this.inner) ? this.inner.learn?.(this.start + offset) : undefined;
  }

  placeOf(offset: number): Place {
    return placeOf(this.inner, this.start + offset);
  }

  /** How many of `length` bytes at `offset` lie inside. */
  #clip(offset: number, length: number): number {
    if (this.grows) return length;
    return Math.max(0, Math.min(length, this.length - offset));
  }
}
