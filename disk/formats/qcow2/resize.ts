import { setU64 } from "../../bytes/struct.ts";
import { DiskError } from "../../errors.ts";
import { Table } from "../../metadata/table.ts";
import type { Storage } from "../../storage.ts";
import { flush, write, type Task } from "../../task.ts";
import { HeaderFields, LIMITS, type Qcow2Header } from "./header.ts";
import { ENTRY_SIZE } from "./l2-entry.ts";
import type { Mapping } from "./mapping.ts";
import type { Refcounts } from "./refcounts.ts";

/** Gives the L1 table room for a guest disk of `size` bytes. Everything else is durable already. */
export function* reserve(file: Storage, header: Qcow2Header, mapping: Mapping, refcounts: Refcounts, size: number): Task {
  const refuse = (what: string): never => { throw new DiskError("unsupported", what, { path: file.name, format: "qcow2", operation: "resize" }); };
  if (size % 512 !== 0) refuse(`the size ${size} is not a multiple of 512`);
  if (header.snapshotCount > 0 && header.version < 3) refuse("a version 2 image with snapshots cannot be resized, since it does not record their sizes; delete them first");
  const entries = Math.ceil(size / (mapping.clusterSize * mapping.perTable));
  if (entries * ENTRY_SIZE > LIMITS.l1Bytes) refuse(`${size} bytes need an L1 table over QEMU's bound of 32 MiB; use larger clusters`);
  yield* mapping.settle(refcounts);
  if (entries * ENTRY_SIZE > mapping.l1.bytes.length) yield* growL1(file, mapping, refcounts, entries);
}

/**
 * Sets the guest size in the header. Everything else is durable already, and nothing that may follow relies on the
 * size: the next flush, which every change of a table begins with, makes it durable.
 */
export function* writeSize(file: Storage, size: number): Task {
  const bytes = new Uint8Array(8);
  setU64(new DataView(bytes.buffer), 0, size);
  yield write(file, HeaderFields.offsetOf("size"), bytes);
}

/** A larger L1 elsewhere: its contents, then the header, and only then the old one is given back. */
function* growL1(file: Storage, mapping: Mapping, refcounts: Refcounts, entries: number): Task {
  const clusters = Math.ceil((entries * ENTRY_SIZE) / mapping.clusterSize), first = yield* refcounts.allocateRun(clusters);
  const table = new Table(first * mapping.clusterSize, new Uint8Array(entries * ENTRY_SIZE));
  table.bytes.set(mapping.l1.bytes);
  try {
    yield* refcounts.writeBack();
    yield write(file, table.at, padded(table.bytes, clusters * mapping.clusterSize));
    yield flush(file, "grown L1 before the header that points at it");
  } catch (error) {
    yield* refcounts.release(Array.from({ length: clusters }, (_, i) => first + i));
    throw error;
  }
  yield* mapping.moveL1(table, refcounts);
}

function padded(bytes: Uint8Array, length: number): Uint8Array {
  const into = new Uint8Array(length);
  into.set(bytes);
  return into;
}
