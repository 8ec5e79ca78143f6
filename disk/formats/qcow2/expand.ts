import { Table } from "../../metadata/table.ts";
import type { Storage } from "../../storage.ts";
import { flush, read, write, type Task } from "../../task.ts";
import type { AmendOptions } from "../amendment.ts";
import { examineSound } from "./check.ts";
import type { CheckState } from "./check-state.ts";
import { readHeader, type Qcow2Header } from "./header.ts";
import { ENTRY_SIZE, EntryLayout } from "./l2-entry.ts";
import { Refcounts } from "./refcounts.ts";

/** Bytes of tables that are changed together. */
const BATCH = 8 * 2 ** 20, CACHE = 2 ** 21;

/** An L2 table: how many L1 entries lead to it, of snapshots too, and whether the disk's own does. */
interface SharedTable { readonly at: number; readonly times: number; readonly active: boolean }

/**
 * Makes an image without zero flags, as version 2 needs it, of the disk and all snapshots: above a backing file zeros
 * are written; where there is none, what is unallocated reads as zeros. Tables are changed in place: each of their
 * entries is as good as the other at any moment.
 */
export function* expandZeroClusters(file: Storage, options: AmendOptions): Task {
  const { state } = yield* examineSound(file, options), header = yield* readHeader(file), refcounts = yield* Refcounts.open(file, header, CACHE);
  const due: SharedTable[] = [];
  let done = 0;
  for (const table of tablesOf(state)) {
    due.push(table);
    if (due.length * header.clusterSize < BATCH) continue;
    yield* expand(file, header, refcounts, due.splice(0));
    options.onProgress?.(done += BATCH, file.size);
  }
  yield* expand(file, header, refcounts, due);
  yield* refcounts.writeBack();
}

function* tablesOf({ tables, activeTables, clusters, clusterSize }: CheckState): Iterable<SharedTable> {
  for (let cluster = 0; cluster <= clusters; cluster++) {
    const times = tables.get(cluster);
    if (times > 0) yield { at: cluster * clusterSize, times, active: activeTables.get(cluster) > 0 };
  }
}

function* expand(file: Storage, header: Qcow2Header, refcounts: Refcounts, places: readonly SharedTable[]): Task {
  const dropped: number[] = [], changed: Table[] = [];
  for (const place of places) {
    const table = new Table(place.at, new Uint8Array(header.clusterSize));
    yield read(file, table.at, table.bytes);
    yield* expandTable(file, header, refcounts, table, place, dropped);
    if (table.dirty) changed.push(table);
  }
  if (changed.length === 0) return;
  yield* refcounts.writeBack();
  for (const table of changed) yield* table.writeBack(file);
  yield flush(file, "tables without zero clusters before what those took is reused");
  yield* refcounts.release(dropped);
}

function* expandTable(file: Storage, header: Qcow2Header, refcounts: Refcounts, table: Table, { times, active }: SharedTable, dropped: number[]): Task {
  const { clusterBits, clusterSize, backingFile } = header, layout = new EntryLayout(clusterBits, 0n);
  for (let index = 0; index < clusterSize / ENTRY_SIZE; index++) {
    const { zeros, host, packed } = layout.decode(table, index);
    if (zeros === 0 || packed !== undefined) continue;
    if (host !== undefined) dropped.push(...Array.from({ length: times }, () => host / clusterSize));
    const own = backingFile === undefined ? undefined : yield* zeroCluster(file, refcounts, clusterSize, times);
    layout.encode(table, index, { host: own, copied: active && times === 1, present: own === undefined ? 0 : 1, zeros: 0 });
  }
}

/** A cluster of zeros with as many references. */
function* zeroCluster(file: Storage, refcounts: Refcounts, clusterSize: number, references: number): Task<number> {
  const { cluster } = yield* refcounts.allocate(1);
  for (let i = 1; i < references; i++) yield* refcounts.share(cluster);
  yield write(file, cluster * clusterSize, new Uint8Array(clusterSize));
  return cluster * clusterSize;
}
