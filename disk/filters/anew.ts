import { DiskError } from "../errors.ts";
import type { Pending } from "../storage.ts";
import { Filter } from "./filter.ts";

/** A storage of fixed size as an empty file that grows, for making an image there. What it had reads as zeros as far as the file reaches. */
export class AnewStorage extends Filter {
  #size = 0;

  override get size(): number {
    return this.#size;
  }

  override read(offset: number, into: Uint8Array): Pending {
    const inside = this.#clip(offset, into.length);
    into.fill(0, inside);
    return inside > 0 ? super.read(offset, into.subarray(0, inside)) : undefined;
  }

  override write(offset: number, from: Uint8Array): Pending {
    const end = offset + from.length;
    if (end <= this.#size) return super.write(offset, from);
    this.#fits(end);
    const gap = offset > this.#size ? this.truncate(offset) : undefined;
    this.#size = end;
    return gap ? gap.then(() => super.write(offset, from)) : super.write(offset, from);
  }

  override zero(offset: number, length: number, keep?: boolean): Pending {
    return super.zero(offset, this.#clip(offset, length), keep);
  }

  override discard(offset: number, length: number): Pending {
    return super.discard(offset, this.#clip(offset, length));
  }

  override truncate(size: number): Pending {
    this.#fits(size);
    const old = this.#size;
    this.#size = size;
    return size > old ? super.zero(old, size - old) : undefined;
  }

  #fits(end: number): void {
    if (end > this.inner.size) throw new DiskError("no-space", `has ${this.inner.size} bytes and cannot grow, and ${end} are needed`, { path: this.name });
  }

  /** How many of `length` bytes at `offset` lie inside. */
  #clip(offset: number, length: number): number {
    return Math.max(0, Math.min(length, this.#size - offset));
  }
}
