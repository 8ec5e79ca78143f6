import type { Progress, Space } from "../../image.ts";
import type { Table } from "../../metadata/table.ts";
import { giveSpace } from "../../metadata/space.ts";
import type { Task } from "../../task.ts";
import type { Entries } from "./entries.ts";
import type { Entry } from "./l2-entry.ts";
import type { ClusterRun } from "./refcounts.ts";

/**
 * Gives the clusters of the guest's `[from, to)` that have none their places: behind the end of the file, where nothing
 * was ever written. Subclusters stay unallocated, in a cluster of their own. `falloc` and `full` give the places their
 * space in the file, too, and then all tables come before the data, which is in one piece.
 */
export function* preallocate(entries: Entries, from: number, to: number, space: Space, progress: Progress): Task {
  const { mapping } = entries, { clusterSize, perTable } = mapping, end = Math.ceil(to / clusterSize) * clusterSize;
  const start = from - (from % clusterSize), coverage = clusterSize * perTable;
  if (!mapping.layout.external) yield* entries.refcounts.describe(Math.ceil(mapping.file.size / clusterSize) + (end - start) / clusterSize + Math.ceil((end - start) / coverage) + 1);
  const tables = space === "metadata" ? start : end;
  for (let at = start; at < tables; at += coverage - (at % coverage)) {
    yield* entries.relieve();
    yield* entries.table(at);
  }
  for (let at = start; at < end;) {
    yield* entries.relieve();
    const count = countPlaceless(entries, yield* entries.table(at), at, end);
    at += count === 0 ? clusterSize : clusterSize * (yield* placeRun(entries, at, count, to, space, progress));
    progress(Math.min(at, to) - from, to - from);
  }
}

const hasPlace = ({ host, packed }: Entry): boolean => host !== undefined || packed !== undefined;

/** How many clusters in a row, in this table, have no place yet. */
function countPlaceless({ mapping }: Entries, table: Table, at: number, end: number): number {
  const { index } = mapping.place(at), most = Math.min(mapping.perTable - index, (end - at) / mapping.clusterSize);
  let count = 0;
  while (count < most && !hasPlace(mapping.layout.decode(table, index + count))) count++;
  return count;
}

/** Answers how many clusters it gave places to. */
function* placeRun(entries: Entries, guest: number, most: number, to: number, space: Space, progress: Progress): Task<number> {
  const { mapping, dropped } = entries, { clusterSize, layout, data } = mapping;
  const { cluster, count } = yield* takeRun(entries, guest, most), length = count * clusterSize, host = cluster * clusterSize;
  try {
    yield* giveSpace(data, host, layout.external ? Math.min(length, to - guest) : length, space, (done) => { progress(guest + done, to); });
    const table = yield* entries.table(guest);
    for (let done = 0; done < length; done += clusterSize) {
      const old = mapping.entry(table, guest + done), plain = layout.subclusters === 1 && old.zeros === 0;
      entries.set(table, guest + done, old, { host: host + done, copied: true, present: plain ? 1 : 0, zeros: old.zeros }, false);
    }
  } catch (error) {
    if (!layout.external) dropped.add(Array.from({ length: count }, (_, i) => cluster + i), false);
    throw error;
  }
  return count;
}

function* takeRun({ mapping, refcounts }: Entries, guest: number, count: number): Task<ClusterRun> {
  const { clusterSize, layout, file } = mapping;
  if (layout.external) return { cluster: guest / clusterSize, count };
  return yield* refcounts.allocate(count, Math.ceil(file.size / clusterSize));
}
