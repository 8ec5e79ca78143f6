import type { Pending, Storage } from "../storage.ts";
import { Filter } from "./filter.ts";

/** Shows other bytes in some pages of a storage, which is not changed. */
export class PatchedStorage extends Filter {
  /** `pages`: by their number, each of `pageSize` bytes. `end`: the storage looks at least this long. */
  constructor(inner: Storage, readonly pages: ReadonlyMap<number, Uint8Array>, readonly pageSize: number, readonly end: number) {
    super(inner);
  }

  override get size(): number {
    return Math.max(super.size, this.end);
  }

  override get readOnly(): boolean {
    return true;
  }

  override read(offset: number, into: Uint8Array): Pending {
    const pending = super.read(offset, into);
    return pending ? pending.then(() => { this.#patch(offset, into); }) : this.#patch(offset, into);
  }

  #patch(offset: number, into: Uint8Array): void {
    const end = offset + into.length;
    for (let number = Math.floor(offset / this.pageSize); number * this.pageSize < end; number++) {
      const page = this.pages.get(number), at = number * this.pageSize;
      if (page !== undefined) into.set(page.subarray(Math.max(0, offset - at), Math.min(this.pageSize, end - at)), Math.max(0, at - offset));
    }
  }
}
