import { DiskError } from "../../errors.ts";
import type { Table } from "../../metadata/table.ts";
import { discard, type Task } from "../../task.ts";
import type { DroppedClusters } from "./dropped.ts";
import { type Content, type Entry, referenced, UNALLOCATED } from "./l2-entry.ts";
import type { Mapping } from "./mapping.ts";
import type { Refcounts } from "./refcounts.ts";
import { touched } from "./subclusters.ts";

interface Range { readonly offset: number; readonly length: number }

/** What becomes of the subclusters `mask` of an entry; `undefined`: it stays as it is. */
export type Change = (entry: Entry, mask: number) => Content | undefined;

/** Changes L2 entries, and drops what they referenced before. */
export class Entries {
  /** Bytes of a subcluster. */
  readonly block: number;

  /** `relieve`: the image's whole ordered flush, if too much is dirty. */
  constructor(readonly mapping: Mapping, readonly dropped: DroppedClusters, readonly relieve: () => Task) {
    this.block = mapping.clusterSize / mapping.layout.subclusters;
  }

  get refcounts(): Refcounts {
    const { refcounts, file } = this.mapping;
    if (refcounts === undefined) throw new DiskError("read-only", "the image is open read-only", { path: file.name, format: "qcow2" });
    return refcounts;
  }

  /** The L2 table of `guest`, ours alone, to be changed until the next yield. */
  table(guest: number): Task<Table> {
    return this.mapping.writable(this.mapping.place(guest).l1Index, this.refcounts, (clusters) => { this.dropped.add(clusters, false); });
  }

  /** Which subclusters of the cluster at `start` lie in `[from, end)`. */
  touched(start: number, from: number, end: number): number {
    return touched(start, from, end, this.block, this.mapping.layout.subclusters);
  }

  /** Sets the entry of the guest cluster at `guest`. */
  set(table: Table, guest: number, old: Entry, now: Content, punch: boolean): void {
    const { layout, clusterSize } = this.mapping, leaves = old.packed !== undefined || old.host !== now.host;
    if (leaves && !layout.external) this.dropped.add(referenced(old, clusterSize), punch);
    layout.encode(table, this.mapping.place(guest).index, now);
  }

  /**
   * Changes what stands in the guest's `[from, end)`, subcluster by subcluster. `spare`: what loses its data in a place
   * that stays gives up its space at once; until that is durable it reads as before, or as zeros.
   */
  *change(from: number, end: number, spare: boolean, to: Change): Task {
    const { clusterSize, perTable, data } = this.mapping;
    while (from < end) {
      yield* this.relieve();
      const { l1Index, index } = this.mapping.place(from), start = from - (from % clusterSize);
      const stop = Math.min(end, start + (perTable - index) * clusterSize);
      const old = yield* this.mapping.load(l1Index);
      if (this.#any(old, from, stop, to)) {
        const holes = this.#changeAll(yield* this.table(from), from, stop, to);
        if (spare) for (const { offset, length } of holes) yield discard(data, offset, length);
      }
      from = stop;
    }
  }

  #any(table: Table | undefined, from: number, end: number, to: Change): boolean {
    const { clusterSize, layout } = this.mapping;
    if (table === undefined) return to(UNALLOCATED, layout.all) !== undefined;
    for (let at = from - (from % clusterSize); at < end; at += clusterSize) if (to(this.mapping.entry(table, at), this.touched(at, from, end)) !== undefined) return true;
    return false;
  }

  /** Answers the ranges of the data that lost their meaning in places that stay. */
  #changeAll(table: Table, from: number, end: number, to: Change): Range[] {
    const { clusterSize, layout } = this.mapping, holes: Range[] = [];
    for (let at = from - (from % clusterSize); at < end; at += clusterSize) {
      const entry = this.mapping.entry(table, at), change = to(entry, this.touched(at, from, end));
      if (change === undefined) continue;
      this.set(table, at, entry, change, true);
      const stays = entry.host === change.host || layout.external;
      if (!stays || entry.host === undefined || !entry.copied || (entry.present & ~change.present) === 0) continue;
      addRange(holes, entry.host + Math.max(0, from - at), Math.min(end, at + clusterSize) - Math.max(at, from));
    }
    return holes;
  }
}

/** Adds a range, to the last one if it goes on there. */
function addRange(ranges: Range[], offset: number, length: number): void {
  const last = ranges.at(-1);
  if (last !== undefined && last.offset + last.length === offset) ranges[ranges.length - 1] = { offset: last.offset, length: last.length + length };
  else ranges.push({ offset, length });
}
