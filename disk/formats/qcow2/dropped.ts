import type { ReadFence } from "../../image.ts";
import type { Storage } from "../../storage.ts";
import { discard, type Task } from "../../task.ts";
import type { Refcounts } from "./refcounts.ts";

/** A reference that was dropped. It still counts until the tables that dropped it are durable and old reads have ended. */
interface Dropped { readonly cluster: number; readonly since: number; readonly punch: boolean }

/** Clusters that tables in memory no longer point at. */
export class DroppedClusters {
  #waiting: Dropped[] = [];

  constructor(readonly file: Storage, readonly clusterSize: number, readonly reads: ReadFence) {}

  /** `punch`: what becomes free gives up its space in the file. */
  add(clusters: readonly number[], punch: boolean): void {
    const since = this.reads.now();
    for (const cluster of clusters) this.#waiting.push({ cluster, since, punch });
  }

  /** Takes the references away, now that the tables which dropped them are durable; `all`: even if reads go on. Answers what is free. */
  *release(refcounts: Refcounts, all = false): Task<ReadonlySet<number>> {
    const passed = ({ since }: Dropped): boolean => all || this.reads.passed(since);
    const due = this.#waiting.filter((one) => passed(one));
    if (due.length === 0) return new Set();
    this.#waiting = this.#waiting.filter((one) => !passed(one));
    const free = new Set(yield* refcounts.release(due.map(({ cluster }) => cluster)));
    const holes = due.filter(({ cluster, punch }) => punch && free.has(cluster)).map(({ cluster }) => cluster).sort((a, b) => a - b);
    for (let i = 0; i < holes.length;) {
      let count = 1;
      while (holes[i + count] === (holes[i] ?? 0) + count) count++;
      yield discard(this.file, (holes[i] ?? 0) * this.clusterSize, count * this.clusterSize);
      i += count;
    }
    return free;
  }
}
