import { DiskError } from "../../errors.ts";
import type { Task } from "../../task.ts";
import type { Qcow2Header } from "./header.ts";
import { packedLimit } from "./l2-entry.ts";
import type { Refcounts } from "./refcounts.ts";

/**
 * Space for compressed clusters: one behind the other to the byte, over the borders of host clusters that follow each
 * other, as QEMU lays them out. Each counts once on every host cluster that it touches. docs/interop/qcow2.rst,
 * "Compressed Clusters Descriptor".
 */
export class PackedSpace {
  /** Where the last one ended, in bytes; `undefined`: the next begins a cluster. */
  #end: number | undefined;

  constructor(readonly path: string, readonly header: Qcow2Header, readonly refcounts: Refcounts) {}

  /** Takes `length` bytes, at most a cluster, and counts them. Answers the host offset. */
  *take(length: number): Task<number> {
    const size = this.header.clusterSize, end = yield* this.#open();
    this.#end = undefined; // whatever fails now: what is left of the cluster is given up
    let at = end ?? 0;
    if (end !== undefined && length <= size - (end % size)) yield* this.refcounts.share(Math.floor(end / size));
    else {
      const next = (yield* this.refcounts.allocate(1)).cluster * size;
      if (end !== undefined && next === Math.ceil(end / size) * size) yield* this.refcounts.share(Math.floor(end / size));
      else at = next;
    }
    if (at + length > packedLimit(this.header.clusterBits)) throw new DiskError("no-space", "the image is too long for another compressed cluster: use larger clusters", { path: this.path, offset: at, format: "qcow2" });
    if ((at + length) % size !== 0) this.#end = at + length;
    return at;
  }

  /** These clusters were given back: nothing goes on there. */
  freed(clusters: ReadonlySet<number>): void {
    if (this.#end !== undefined && clusters.has(Math.floor(this.#end / this.header.clusterSize))) this.#end = undefined;
  }

  /** Where the next may go on: in a cluster that can have one reference more. */
  *#open(): Task<number | undefined> {
    if (this.#end === undefined) return undefined;
    const count = yield* this.refcounts.get(Math.floor(this.#end / this.header.clusterSize));
    return count < this.refcounts.width.max ? this.#end : undefined;
  }
}
