import { DiskError, hex } from "../../errors.ts";
import type { Storage } from "../../storage.ts";
import { read, type Task } from "../../task.ts";
import { ENTRY_SIZE, fitsL2, type QcowHeader } from "./header.ts";

const MIB = 2 ** 20;
/** More tables than this are not opened for writing: of images that QEMU makes, 8 TiB in use. */
const MAX_TABLES = 2 ** 22;

/** Where every L2 table stands: the guest's data must never reach them. Ascending, none over another. */
export class L2Places {
  private constructor(readonly header: QcowHeader, readonly places: number[]) {}

  /** Reads the L1 through. */
  static *collect(file: Storage, header: QcowHeader): Task<L2Places> {
    const fail = (kind: "corrupt" | "unsupported", what: string, offset: number): never => { throw new DiskError(kind, what, { path: file.name, offset, format: "qcow" }); };
    const { l1Offset, l1Entries, l2Bytes } = header, places: number[] = [], l1Bytes = l1Entries * ENTRY_SIZE;
    const bytes = new Uint8Array(Math.min(MIB, l1Bytes)), view = new DataView(bytes.buffer);
    for (let from = 0; from < l1Bytes; from += bytes.length) {
      yield read(file, l1Offset + from, bytes);
      for (let i = 0, end = Math.min(bytes.length, l1Bytes - from); i < end; i += ENTRY_SIZE) {
        const at = view.getUint32(i) * 2 ** 32 + view.getUint32(i + 4);
        if (at === 0) continue;
        if (!fitsL2(at, header, file.size)) fail("corrupt", `an L1 entry points at ${hex(at)}, where no L2 table can be`, l1Offset + from + i);
        if (places.push(at) > MAX_TABLES) fail("unsupported", `more than ${MAX_TABLES} L2 tables are not written to: open it read-only, and convert it to qcow2`, l1Offset + from + i);
      }
    }
    places.sort((a, b) => a - b);
    const twice = places.findIndex((at, i) => i > 0 && at < (places[i - 1] ?? 0) + l2Bytes);
    if (twice > 0) fail("corrupt", "two L2 tables stand in one place", places[twice] ?? 0);
    return new L2Places(header, places);
  }

  /** A new table at the end of the file. */
  add(at: number): void {
    this.places.push(at);
  }

  /** Whether any table has bytes of `[at, at + length)`. */
  overlap(at: number, length: number): boolean {
    let from = 0, to = this.places.length;
    while (from < to) {
      const middle = (from + to) >> 1;
      if ((this.places[middle] ?? 0) < at + length) from = middle + 1;
      else to = middle;
    }
    return from > 0 && (this.places[from - 1] ?? 0) + this.header.l2Bytes > at;
  }
}
