import type { Pending, Storage } from "../storage.ts";

/** A storage in one growing array. Synchronous; nothing survives the process. */
export class MemoryStorage implements Storage {
  readonly readOnly = false;
  #bytes: Uint8Array;
  #size: number;

  /** `bytes` becomes the storage's own. */
  constructor(bytes: Uint8Array = new Uint8Array(0), readonly name = "memory") {
    this.#bytes = bytes;
    this.#size = bytes.length;
  }

  get size(): number {
    return this.#size;
  }

  /** A view of the contents; it stays valid until the storage next grows. */
  get bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.#size);
  }

  read(offset: number, into: Uint8Array): Pending {
    const end = Math.max(offset, Math.min(this.#size, offset + into.length));
    into.set(this.#bytes.subarray(offset, end));
    into.fill(0, end - offset);
  }

  write(offset: number, from: Uint8Array): Pending {
    this.#grow(offset + from.length);
    this.#bytes.set(from, offset);
  }

  zero(offset: number, length: number): Pending {
    this.#bytes.fill(0, offset, Math.min(this.#size, offset + length));
  }

  discard(offset: number, length: number): Pending {
    return this.zero(offset, length);
  }

  truncate(size: number): Pending {
    if (size < this.#size) this.#bytes.fill(0, size, this.#size);
    this.#grow(size);
    this.#size = size;
  }

  flush(): Pending {}

  close(): Pending {}

  #grow(size: number): void {
    if (size > this.#bytes.length) {
      const grown = new Uint8Array(Math.max(size, this.#bytes.length * 2));
      grown.set(this.#bytes.subarray(0, this.#size));
      this.#bytes = grown;
    }
    this.#size = Math.max(this.#size, size);
  }
}
