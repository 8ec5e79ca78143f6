import { read, write, type Task } from "../../task.ts";
import { FULL, PAGE } from "./check-counts.ts";
import { MARK, type CheckState } from "./check-state.ts";
import { LIMITS } from "./header.ts";
import { refcountWidth, type RefcountWidth } from "./refcount-bits.ts";

const HIGH = 2 ** 32, ENTRY_SIZE = 8, RESERVED = 0x1ff, NO_MARKS = new Uint8Array(0);
const UNREADABLE = -1;
/** How many differing refcounts are remembered for messages. */
const MAX_DIFFERING = 65536;

/** `report`: only look. `raise` and `lower`: also set refcounts that are too low, or too high, in the blocks there are. */
export type Comparison = "report" | "raise" | "lower";

/** The refcount table and blocks as the image has them. docs/interop/qcow2.rst, "Host cluster management". */
export class Refcounting {
  readonly width: RefcountWidth;
  /** log2 of their bits. */
  readonly order: number;
  /** Refcounts a block. */
  readonly perBlock: number;
  #table = new DataView(new ArrayBuffer(0));
  /** Offsets of the blocks; 0: there is none. */
  #blocks: Float64Array = new Float64Array(0);
  /** Refcounts of one chunk, unpacked. */
  readonly #counts: Float64Array;
  /** Clusters that were counted for the structure itself. */
  readonly own: number[] = [];
  /** Whether the table or a block cannot stay where it is. */
  broken = false;
  /** Whether there is something for `raise` or `lower` to do. */
  readonly pending = { raise: false, lower: false };
  /** Whether some cluster is referenced that no block describes. */
  missing = false;

  constructor(readonly state: CheckState) {
    const { refcountOrder, clusterSize } = state.header;
    this.order = refcountOrder;
    this.width = refcountWidth(refcountOrder);
    this.perBlock = (clusterSize * 8) / 2 ** refcountOrder;
    this.#counts = new Float64Array(Math.min(PAGE, this.perBlock));
  }

  /** Whether everything that differs can be put right in the blocks that are there. */
  get usable(): boolean {
    return !this.broken && !this.missing;
  }

  /** Reads the table, and marks what it says is its own as metadata. */
  *read(): Task {
    const { state } = this, { header, report, clusterSize, file } = state, at = header.refcountTableOffset, length = header.refcountTableClusters * clusterSize;
    if (length === 0) return;
    if (at % clusterSize !== 0 || at === 0 || length > LIMITS.refcountTableBytes) {
      report.corruption(48, () => `ERROR refcount table at an impossible place or of an impossible size: offset 0x${at.toString(16)} size 0x${length.toString(16)}`);
      this.broken = true;
      return;
    }
    if (!this.#count(at, length)) return;
    state.charge(length);
    this.#table = new DataView(new ArrayBuffer(length));
    yield read(file, at, new Uint8Array(this.#table.buffer));
    for (let index = 0; index < length / ENTRY_SIZE; index++) {
      const cluster = this.#offset(index) / clusterSize;
      if (cluster < state.clusters && Number.isInteger(cluster)) state.marks.set(cluster, MARK.metadata);
    }
  }

  /** Judges the table, and counts its blocks: the last references, so that a block that is anything else is found out. */
  judge(): void {
    this.#blocks = new Float64Array(this.#table.byteLength / ENTRY_SIZE);
    for (let index = 0; index < this.#blocks.length; index++) this.#blocks[index] = this.#judge(index);
  }

  #offset(index: number): number {
    return this.#table.getUint32(index * ENTRY_SIZE) * HIGH + ((this.#table.getUint32(index * ENTRY_SIZE + 4) & ~RESERVED) >>> 0);
  }

  #count(offset: number, length: number): boolean {
    const { state } = this, { beyond } = state;
    if (!state.reference(offset, length, 1, MARK.metadata)) {
      state.beyond = beyond;
      return false;
    }
    for (let cluster = offset / state.clusterSize; cluster * state.clusterSize < offset + length; cluster++) this.own.push(cluster);
    return true;
  }

  /** Where to read the block from. */
  #judge(index: number): number {
    const { state } = this, { report, header } = state, reserved = this.#table.getUint32(index * ENTRY_SIZE + 4) & RESERVED;
    const offset = this.#offset(index), aligned = offset % state.clusterSize === 0;
    if (offset === 0 && reserved === 0) return 0;
    const wrong = (what: string): void => {
      report.add("corruption", header.refcountTableOffset + index * ENTRY_SIZE, state.mending, () => `ERROR ${what}`);
      this.broken = true;
    };
    if (reserved !== 0) {
      wrong(`refcount table entry ${index} has reserved bits set`);
      return aligned ? offset : UNREADABLE;
    }
    if (!aligned) {
      wrong(`refcount block ${index} is not cluster aligned; refcount table entry corrupted`);
      return UNREADABLE;
    }
    if (offset >= state.clusters * state.clusterSize) {
      wrong(`refcount block ${index} is outside image`);
      return 0;
    }
    this.#count(offset, state.clusterSize);
    const count = state.references.get(offset / state.clusterSize);
    // What is more than a refcount can say is found again, and counted, when the refcounts are compared.
    if (count > this.width.max) this.broken = true;
    else if (count !== 1) wrong(`refcount block ${index} refcount=${count}`);
    return offset;
  }

  /** Whether the cluster's refcount cannot be known. */
  isUnknown(cluster: number): boolean {
    return !this.state.mending && this.#blocks[Math.floor(cluster / this.perBlock)] === UNREADABLE;
  }

  /** Compares every refcount with the references. Only `report` counts and marks. */
  *compare(comparison: Comparison): Task {
    const { state } = this, end = state.references.get(state.clusters) > 0 ? state.clusters + 1 : state.clusters;
    const buffer = new Uint8Array(state.clusterSize), view = new DataView(buffer.buffer);
    for (let index = 0; index < this.#blocks.length && index * this.perBlock < end; index++) {
      const at = this.#blocks[index] ?? 0, first = index * this.perBlock;
      if (at === UNREADABLE) {
        if (comparison === "report") this.#unreadable(first, Math.min(end, first + this.perBlock));
        continue;
      }
      if (at === 0) {
        if (comparison === "report") this.#undescribed(first, Math.min(end, first + this.perBlock));
        continue;
      }
      if (comparison === "report") state.charge(buffer.length);
      yield read(state.file, at, buffer);
      if (!this.#compareBlock(view, first, end, comparison)) continue;
      yield write(state.file, at, buffer);
      state.changed = true;
    }
    if (comparison === "report") this.#undescribed(this.#blocks.length * this.perBlock, end);
  }

  /** Answers whether refcounts were changed. */
  #compareBlock(view: DataView, first: number, end: number, comparison: Comparison): boolean {
    const { references, marks, report, clusterSize } = this.state, chunk = Math.min(PAGE, this.perBlock), counts = this.#counts;
    let changed = false, highest = -1;
    for (let from = 0; from < this.perBlock && first + from < end; from += chunk) {
      const base = first + from, page = references.page(Math.floor(base / PAGE)), skip = base % PAGE, length = Math.min(chunk, end - base);
      this.#unpack(view, from, counts);
      const marked = page === undefined ? NO_MARKS : marks.own(Math.floor(base / PAGE));
      for (let i = 0; i < length; i++) {
        const count = counts[i] ?? 0, seen = page === undefined ? 0 : page[skip + i] ?? 0;
        if (count === seen && seen !== FULL) {
          if (count === 0) continue;
          highest = base + i;
          if (count === 1) marked[skip + i] = (marked[skip + i] ?? 0) | MARK.one;
        } else if (comparison === "report") {
          if (this.#differs(base + i, count)) highest = base + i;
        } else if (this.#adjust(view, from + i, base + i, count, comparison)) changed = true;
      }
    }
    if (comparison === "report") report.imageEndOffset = Math.max(report.imageEndOffset, (highest + 1) * clusterSize);
    return changed;
  }

  /** Reports a refcount that is or may be wrong. Answers whether the cluster is in use by either account. */
  #differs(cluster: number, count: number): boolean {
    const { state } = this, { report, references, differing, options } = state, { max } = this.width;
    const seen = references.get(cluster), wanted = Math.min(seen, max), offset = cluster * state.clusterSize;
    if (seen > max) report.corruption(offset, () => `ERROR: overflow cluster offset=0x${offset.toString(16)}`, seen - max);
    let after = count;
    if (count !== wanted) {
      const leak = count > wanted, fixed = leak ? options.repair !== undefined && !state.incomplete && (state.mending || !this.broken) : state.mending;
      report.add(leak ? "leak" : "corruption", offset, fixed, () => `${fixed ? "Repairing" : leak ? "Leaked" : "ERROR"} cluster ${cluster} refcount=${count} reference=${wanted}`);
      if (fixed) {
        after = wanted;
        this.pending[leak ? "lower" : "raise"] = true;
      }
      if (differing.size < MAX_DIFFERING) differing.set(cluster, after);
    }
    if (after === 1) state.marks.set(cluster, MARK.one);
    return count > 0 || wanted > 0;
  }

  #adjust(view: DataView, index: number, cluster: number, count: number, comparison: Comparison): boolean {
    const wanted = Math.min(this.state.references.get(cluster), this.width.max);
    if (count === wanted || (comparison === "raise") !== (count < wanted)) return false;
    this.width.set(view, index, wanted);
    return true;
  }

  /** Clusters without a block: their refcounts are 0. */
  #undescribed(first: number, end: number): void {
    const { references, report, clusterSize } = this.state;
    for (let index = Math.floor(first / PAGE); index * PAGE < end; index++) {
      if (references.page(index) === undefined) continue;
      for (let cluster = Math.max(first, index * PAGE); cluster < Math.min(end, (index + 1) * PAGE); cluster++) {
        if (references.get(cluster) === 0) continue;
        this.missing = true;
        this.#differs(cluster, 0);
        report.imageEndOffset = Math.max(report.imageEndOffset, (cluster + 1) * clusterSize);
      }
    }
  }

  /** A rebuild makes these refcounts right; without one, nothing is known of them. */
  #unreadable(first: number, end: number): void {
    const { state } = this;
    if (!state.mending) return state.report.add("error", first * state.clusterSize, false, () => `Can't get refcount for cluster ${first}: its refcount block is not aligned`, end - first);
    for (let cluster = first; cluster < end; cluster++) if (Math.min(state.references.get(cluster), this.width.max) === 1) state.marks.set(cluster, MARK.one);
  }

  /** Refcounts from index `from` on. Of 64 bits only the order of magnitude matters beyond 2^53: it is wrong anyway. */
  #unpack(view: DataView, from: number, into: Float64Array): void {
    const { refcountOrder } = this.state.header;
    if (refcountOrder === 4) for (let i = 0; i < into.length; i++) into[i] = view.getUint16((from + i) * 2);
    else if (refcountOrder === 6) for (let i = 0; i < into.length; i++) into[i] = view.getUint32((from + i) * 8) * HIGH + view.getUint32((from + i) * 8 + 4);
    else for (let i = 0; i < into.length; i++) into[i] = this.width.get(view, from + i);
  }
}
