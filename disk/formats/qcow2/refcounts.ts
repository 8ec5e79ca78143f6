import { setU64 } from "../../bytes/struct.ts";
import { DiskError } from "../../errors.ts";
import { Table, TableCache } from "../../metadata/table.ts";
import type { Storage } from "../../storage.ts";
import { flush, read, write, type Task } from "../../task.ts";
import { HeaderFields, LIMITS, type Qcow2Header } from "./header.ts";
import { refcountWidth, type RefcountWidth } from "./refcount-bits.ts";

const HIGH = 2 ** 32;

/** A run of host clusters, by number. */
export interface ClusterRun { readonly cluster: number; readonly count: number }

/**
 * The refcount table and blocks of one image. docs/interop/qcow2.rst, "Host cluster management".
 *
 * Order on disk: an increase is durable before anything points at the cluster (the caller flushes blocks, then
 * table, then its own tables); a decrease is made only after nothing durable points there any more (the caller
 * calls `release` only then). So a crash at worst leaks.
 */
export class Refcounts {
  readonly width: RefcountWidth;
  readonly #clusterSize: number;
  readonly #perBlock: number;
  readonly #blocks: TableCache;
  #table: Table;
  /** The table that the header may still point at. */
  #outgrown: Table | undefined;
  /** No free cluster stands before this one. */
  #hint = 0;

  /** Clusters that hold metadata: an image that counts one as free is corrupt, and must not lose it. */
  readonly #metadata = new Set<number>();

  private constructor(readonly file: Storage, header: Qcow2Header, table: Table, cacheBytes: number) {
    this.#clusterSize = header.clusterSize;
    this.width = refcountWidth(header.refcountOrder);
    this.#perBlock = (header.clusterSize * 8) / 2 ** header.refcountOrder;
    this.#blocks = new TableCache(file, header.clusterSize, cacheBytes);
    this.#table = table;
  }

  static *open(file: Storage, header: Qcow2Header, cacheBytes: number): Task<Refcounts> {
    const table = new Table(header.refcountTableOffset, new Uint8Array(header.refcountTableClusters * header.clusterSize));
    if (table.at >= file.size) throw new DiskError("corrupt", "the file is truncated: it ends before its refcount table; restore it from a copy", { path: file.name, offset: table.at, format: "qcow2" });
    yield read(file, table.at, table.bytes);
    return new Refcounts(file, header, table, cacheBytes);
  }

  /** Whether the cache wants the owner's ordered flush before more is changed. */
  get full(): boolean {
    return this.#blocks.full;
  }

  /** Names the clusters that hold other metadata; those of the refcounts are added here. */
  protect(clusters: Iterable<number>): void {
    for (const cluster of clusters) this.#metadata.add(cluster);
    for (let at = 0; at < this.#table.bytes.length; at += this.#clusterSize) this.#metadata.add((this.#table.at + at) / this.#clusterSize);
    for (let index = 0; index < this.#entries; index++) this.#metadata.add(this.#blockAt(index) / this.#clusterSize);
  }

  /** These no longer hold metadata: they may be given back. */
  unprotect(clusters: Iterable<number>): void {
    for (const cluster of clusters) this.#metadata.delete(cluster);
  }

  /** Whether the cluster was named to `protect`, and not to `unprotect` since. */
  isMetadata(cluster: number): boolean {
    return this.#metadata.has(cluster);
  }

  *get(cluster: number): Task<number> {
    const block = yield* this.#loadBlock(Math.floor(cluster / this.#perBlock));
    return block === undefined ? 0 : this.width.get(block.view, cluster % this.#perBlock);
  }

  /** Takes one to `max` free clusters in a row, none before `from`, and gives each the refcount 1. */
  *allocate(max: number, from = 0): Task<ClusterRun> {
    for (;;) {
      const first = Math.max(this.#hint, from), index = Math.floor(first / this.#perBlock);
      const block = (yield* this.#loadBlock(index)) ?? (yield* this.#newBlock(index));
      const run = this.#findFree(block, first % this.#perBlock, max), next = index * this.#perBlock + (run === undefined ? this.#perBlock : run.first + run.count);
      if (this.#hint === first) this.#hint = next;
      if (run === undefined) {
        if (from > 0) from = next;
        continue;
      }
      const cluster = index * this.#perBlock + run.first;
      for (let i = 0; i < run.count; i++) this.#take(block, run.first + i, cluster + i);
      this.#changed(index, block, run.first, run.first + run.count - 1);
      return { cluster, count: run.count };
    }
  }

  /** Takes exactly `count` clusters in a row, for a table. Answers the first. */
  *allocateRun(count: number): Task<number> {
    // Blocks that describe themselves would cut such a run to pieces for ever.
    if (count * 2 > this.#perBlock) return yield* this.#appendRun(count);
    const scattered: number[] = [];
    let run: number[] = [];
    try {
      while (run.length < count) {
        const { cluster, count: more } = yield* this.allocate(count - run.length);
        if (cluster !== (run.at(-1) ?? NaN) + 1) scattered.push(...run.splice(0));
        for (let i = 0; i < more; i++) run.push(cluster + i);
      }
    } catch (error) {
      scattered.push(...run);
      run = [];
      throw error;
    } finally {
      yield* this.release(scattered);
    }
    return run[0] ?? 0;
  }

  /** One reference more on a cluster that has one. Only below `width.max`. */
  *share(cluster: number): Task {
    const index = Math.floor(cluster / this.#perBlock), at = cluster % this.#perBlock;
    const block = yield* this.#loadBlock(index), count = block === undefined ? 0 : this.width.get(block.view, at);
    if (block === undefined || count === 0 || count >= this.width.max) throw this.#corrupt(`cluster ${cluster} has the refcount ${count}, and is to be shared; run check -r all`, cluster * this.#clusterSize);
    this.width.set(block.view, at, count + 1);
    this.#changed(index, block, at, at);
  }

  /** Takes one reference away from each cluster. Only when nothing durable points there any more. Answers those now free. */
  *release(clusters: readonly number[]): Task<number[]> {
    const free: number[] = [];
    for (const cluster of clusters) {
      const index = Math.floor(cluster / this.#perBlock), at = cluster % this.#perBlock;
      const block = yield* this.#loadBlock(index);
      const count = block === undefined ? 0 : this.width.get(block.view, at);
      if (block === undefined || count === 0) throw this.#corrupt(`cluster ${cluster} is in use but its refcount is 0; run check -r all`, cluster * this.#clusterSize);
      if (count === 1 && this.isMetadata(cluster)) throw this.#corrupt(`cluster ${cluster} holds metadata, but an entry for data points at it too; run check -r all`, cluster * this.#clusterSize);
      this.width.set(block.view, at, count - 1);
      this.#changed(index, block, at, at);
      if (count > 1) continue;
      free.push(cluster);
      this.#hint = Math.min(this.#hint, cluster);
    }
    return free;
  }

  /** Whether anything has to be written back. */
  get dirty(): boolean {
    return this.#blocks.dirty || this.#table.dirty;
  }

  /** Writes blocks, then the table that points at them, each durable before the next: with them all data written before. */
  *writeBack(): Task {
    yield* this.#settle();
    yield* this.#blocks.writeBack();
    yield flush(this.file, "data and refcount blocks before the tables that point at them");
    this.#blocks.clean();
    if (!this.#table.dirty) return;
    yield* this.#table.writeBack(this.file);
    yield flush(this.file, "refcount table before L2");
    this.#table.clean();
  }

  get #entries(): number {
    return this.#table.bytes.length / 8;
  }

  #blockAt(index: number): number {
    const high = this.#table.view.getUint32(index * 8), low = this.#table.view.getUint32(index * 8 + 4);
    const at = high * HIGH + low;
    // The low 9 bits are reserved; an image that uses them, or that misaligns, is not one we understand.
    if (at % this.#clusterSize !== 0 || high >= 2 ** 21) throw this.#corrupt(`refcount table entry ${index} is not a cluster's offset`, this.#table.at + index * 8);
    return at;
  }

  *#loadBlock(index: number): Task<Table | undefined> {
    const resident = this.#blocks.get(index);
    if (resident !== undefined) return resident;
    const at = index < this.#entries ? this.#blockAt(index) : 0;
    if (at === 0) return undefined;
    // A block that is not there would read as zeros: everything it counts would seem free.
    if (at >= this.file.size) throw this.#corrupt("the file is truncated: it ends before a refcount block; restore it from a copy", at);
    return yield* this.#blocks.load(index, at);
  }

  #changed(index: number, block: Table, first: number, last: number): void {
    const { from, to } = this.width.bytes(first, last);
    block.touch(from, to);
    this.#blocks.modify(index, block);
  }

  #findFree(block: Table, first: number, max: number): { first: number; count: number } | undefined {
    while (first < this.#perBlock && this.width.get(block.view, first) !== 0) first++;
    let count = 0;
    while (count < max && first + count < this.#perBlock && this.width.get(block.view, first + count) === 0) count++;
    return count === 0 ? undefined : { first, count };
  }

  #take(block: Table, index: number, cluster: number): void {
    if (this.isMetadata(cluster)) throw this.#corrupt(`cluster ${cluster} holds metadata but its refcount is 0; run check -r all`, cluster * this.#clusterSize);
    this.width.set(block.view, index, 1);
  }

  /** Nothing that block `index` would describe is in use, so it can stand in the first cluster it describes. */
  *#newBlock(index: number): Task<Table> {
    if (index >= this.#entries) {
      yield* this.#growTable(index + 1);
      const grown = yield* this.#loadBlock(index);
      if (grown !== undefined) return grown;
    }
    this.#countArea(this.#table, index, 1, 0);
    this.#table.touch(index * 8, index * 8 + 8);
    return yield* this.#blocks.load(index, this.#blockAt(index));
  }

  /** Makes the blocks that describe all clusters below `end`, so that none of them will stand amid a long run. */
  *describe(end: number): Task {
    for (let index = 0; index * this.#perBlock < end; index++) {
      if ((yield* this.#loadBlock(index)) !== undefined) continue;
      if (this.full) yield* this.writeBack();
      if (index >= this.#entries) yield* this.#growTable(Math.ceil(end / this.#perBlock));
      const { cluster } = yield* this.allocate(1);
      if ((yield* this.#loadBlock(index)) !== undefined) {
        yield* this.release([cluster]);
        continue;
      }
      this.#blocks.create(index, cluster * this.#clusterSize);
      setU64(this.#table.view, index * 8, cluster * this.#clusterSize);
      this.#table.touch(index * 8, index * 8 + 8);
    }
  }

  /** Enters into `table` new blocks from `first` on, in the first clusters they describe, that count themselves and `more` clusters. */
  #countArea(table: Table, first: number, blocks: number, more: number): void {
    const start = first * this.#perBlock;
    for (let i = 0; i < blocks; i++) {
      const block = this.#blocks.create(first + i, (start + i) * this.#clusterSize), from = i * this.#perBlock;
      for (let c = from; c < Math.min(from + this.#perBlock, blocks + more); c++) this.#take(block, c - from, start + c);
      setU64(table.view, (first + i) * 8, block.at);
    }
  }

  /** How many blocks describe themselves and `count` clusters behind them. */
  #blocksFor(count: number): number {
    return Math.ceil(count / (this.#perBlock - 1));
  }

  /** A run behind all that is counted so far. */
  *#appendRun(count: number): Task<number> {
    const blocks = this.#blocksFor(count);
    let first = this.#entries;
    while (first > 0 && this.#blockAt(first - 1) === 0) first--;
    if (first + blocks > this.#entries) {
      yield* this.#growTable(first + blocks);
      return yield* this.#appendRun(count);
    }
    this.#countArea(this.#table, first, blocks, count);
    this.#table.touch(first * 8, (first + blocks) * 8);
    return first * this.#perBlock + blocks;
  }

  /**
   * A larger table, with the blocks that describe it, in the first clusters that the old one could not describe:
   * blocks, then table, then header, and only then the old table is given back.
   */
  *#growTable(entries: number): Task {
    yield* this.#settle();
    const perCluster = this.#clusterSize / 8, old = this.#table, first = this.#entries;
    let clusters = Math.ceil(Math.max(entries, first * 1.5) / perCluster);
    while (clusters * perCluster < first + this.#blocksFor(clusters)) clusters++;
    if (clusters * this.#clusterSize > LIMITS.refcountTableBytes) throw new DiskError("no-space", "the image cannot grow further: its refcount table is at QEMU's bound of 8 MiB; use larger clusters", { path: this.file.name, format: "qcow2" });
    const blocks = this.#blocksFor(clusters);
    const table = new Table((first * this.#perBlock + blocks) * this.#clusterSize, new Uint8Array(clusters * this.#clusterSize));
    table.bytes.set(old.bytes);
    try {
      this.#countArea(table, first, blocks, clusters);
      yield* this.#blocks.writeBack();
      yield write(this.file, table.at, table.bytes);
      yield flush(this.file, "grown refcount table before the header that points at it");
    } catch (error) {
      for (let i = 0; i < blocks; i++) this.#blocks.drop(first + i);
      throw error;
    }
    this.#blocks.clean();
    [this.#table, this.#outgrown] = [table, old];
    yield* this.#settle();
  }

  /**
   * Points the header at the grown table, and gives the old one back. Where that failed nobody knows which one the
   * header has: it is done again before anything else is written that relies on it.
   */
  *#settle(): Task {
    const old = this.#outgrown;
    if (old === undefined) return;
    // Offset and size stand side by side in the header: one write.
    const bytes = new Uint8Array(12), view = new DataView(bytes.buffer);
    setU64(view, 0, this.#table.at);
    view.setUint32(8, this.#table.bytes.length / this.#clusterSize);
    yield write(this.file, HeaderFields.offsetOf("refcountTableOffset"), bytes);
    yield flush(this.file, "header points at the grown refcount table before the old one is reused");
    this.#outgrown = undefined;
    const freed = Array.from({ length: old.bytes.length / this.#clusterSize }, (_, i) => old.at / this.#clusterSize + i);
    this.unprotect(freed);
    yield* this.release(freed);
  }

  #corrupt(what: string, offset: number): DiskError {
    return new DiskError("corrupt", what, { path: this.file.name, offset, format: "qcow2" });
  }
}

