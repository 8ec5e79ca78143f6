import { DiskError } from "../errors.ts";
import type { Pending, Storage } from "../storage.ts";
import type { Sparse, SparseExtent } from "./sparse.ts";

const PAGE = 64 << 10;

/**
 * A storage in memory, page by page: only what was written takes space, and what is discarded gives it back. Bounded:
 * a write that would need more pages than `limit` bytes hold fails as `no-space` and changes nothing beyond the bound.
 */
export class PagedStorage implements Storage, Sparse {
  readonly readOnly = false;
  readonly #pages = new Map<number, Uint8Array>();
  #size = 0;

  constructor(readonly limit: number, readonly name = "memory") {}

  get size(): number {
    return this.#size;
  }

  /** Bytes of memory in use. */
  get used(): number {
    return this.#pages.size * PAGE;
  }

  read(offset: number, into: Uint8Array): Pending {
    for (const { page, skip, at, length } of parts(offset, into.length)) {
      const bytes = this.#pages.get(page);
      if (bytes === undefined) into.fill(0, at, at + length);
      else into.set(bytes.subarray(skip, skip + length), at);
    }
  }

  write(offset: number, from: Uint8Array): Pending {
    for (const { page, skip, at, length } of parts(offset, from.length)) {
      const bytes = this.#pages.get(page) ?? this.#newPage(page, offset + at);
      bytes.set(from.subarray(at, at + length), skip);
    }
    this.#size = Math.max(this.#size, offset + from.length);
  }

  zero(offset: number, length: number): Pending {
    for (const { page, skip, length: part } of parts(offset, Math.min(length, this.#size - offset))) {
      if (part === PAGE) this.#pages.delete(page);
      else this.#pages.get(page)?.fill(0, skip, skip + part);
    }
  }

  discard(offset: number, length: number): Pending {
    return this.zero(offset, length);
  }

  truncate(size: number): Pending {
    if (size < this.#size) {
      void this.zero(size, this.#size - size);
      for (const page of this.#pages.keys()) if (page * PAGE >= size) this.#pages.delete(page);
    }
    this.#size = size;
  }

  flush(): Pending {}

  close(): Pending {
    this.#pages.clear();
  }

  dataAt(offset: number): SparseExtent {
    const has = (at: number): boolean => this.#pages.has(Math.floor(at / PAGE)), data = has(offset);
    let end = offset;
    while (end < this.#size && has(end) === data) end = (Math.floor(end / PAGE) + 1) * PAGE;
    return { data, length: Math.min(end, this.#size) - offset };
  }

  #newPage(page: number, offset: number): Uint8Array {
    if ((this.#pages.size + 1) * PAGE > this.limit) throw new DiskError("no-space", `the ${this.limit} bytes of memory that it may take are full`, { path: this.name, offset, operation: "write" });
    const bytes = new Uint8Array(PAGE);
    this.#pages.set(page, bytes);
    return bytes;
  }
}

interface Part { readonly page: number; readonly skip: number; readonly at: number; readonly length: number }

/** The pages that a range touches: `skip` bytes into the page, `at` bytes into the range. */
function* parts(offset: number, length: number): Iterable<Part> {
  for (let at = 0; at < length;) {
    const page = Math.floor((offset + at) / PAGE), skip = (offset + at) % PAGE, part = Math.min(PAGE - skip, length - at);
    yield { page, skip, at, length: part };
    at += part;
  }
}
