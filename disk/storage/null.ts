import { DiskError } from "../errors.ts";
import type { Storage } from "../storage.ts";
import type { Sparse, SparseExtent } from "./sparse.ts";

/** A disk of zeros that forgets what is written to it: QEMU's null-co, for measuring what is above. */
export class NullStorage implements Storage, Sparse {
  readonly readOnly = false;

  constructor(readonly size: number, readonly name = "null-co://") {}

  read(_offset: number, into: Uint8Array): void {
    into.fill(0);
  }

  write(offset: number, from: Uint8Array): void {
    if (offset + from.length > this.size) throw new DiskError("out-of-bounds", `it has ${this.size} bytes`, { path: this.name, offset, operation: "write" });
  }

  zero(): void {}
  discard(): void {}

  truncate(size: number): void {
    if (size !== this.size) throw new DiskError("unsupported", "its size is fixed", { path: this.name, operation: "truncate" });
  }

  flush(): void {}
  close(): void {}

  dataAt(offset: number): SparseExtent {
    return { data: false, length: this.size - offset };
  }
}
