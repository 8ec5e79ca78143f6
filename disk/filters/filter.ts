import type { Pending, Storage } from "../storage.ts";

/** A storage that passes every call on to another; a filter overrides what it changes. It owns `inner`: closing closes both. */
export class Filter implements Storage {
  constructor(protected readonly inner: Storage) {}

  get name(): string {
    return this.inner.name;
  }

  get size(): number {
    return this.inner.size;
  }

  get readOnly(): boolean {
    return this.inner.readOnly;
  }

  read(offset: number, into: Uint8Array): Pending {
    return this.inner.read(offset, into);
  }

  write(offset: number, from: Uint8Array): Pending {
    return this.inner.write(offset, from);
  }

  zero(offset: number, length: number, keep?: boolean): Pending {
    return this.inner.zero(offset, length, keep);
  }

  discard(offset: number, length: number): Pending {
    return this.inner.discard(offset, length);
  }

  truncate(size: number): Pending {
    return this.inner.truncate(size);
  }

  flush(barrier?: string): Pending {
    return this.inner.flush(barrier);
  }

  close(): Pending {
    return this.inner.close();
  }
}
