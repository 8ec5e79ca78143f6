import { DiskError } from "../../errors.ts";
import type { Storage } from "../../storage.ts";
import type { CheckOptions } from "../check.ts";
import { Budget, Counts, Marks } from "./check-counts.ts";
import { Report } from "./check-report.ts";
import { INCOMPATIBLE } from "./features.ts";
import type { Qcow2Header } from "./header.ts";
import { ENTRY_SIZE } from "./l2-entry.ts";

/** What a qcow2 check may be told besides. */
export interface Qcow2CheckOptions extends CheckOptions {
  /** Bytes for the check's counters (default 256 MiB: 5 TiB of 64 KiB clusters), and bytes of tables to read (default 2 GiB). */
  readonly limits?: { readonly memory?: number | undefined; readonly reads?: number | undefined } | undefined;
}

/** What is known of a cluster besides its references. */
export const MARK = {
  /** Header, L1, refcount, snapshot or bitmap table: never to be written as an L2 table. */
  metadata: 1,
  /** Its refcount is 1, as it will be when the repair is done. */
  one: 2,
} as const;

const MIB = 2 ** 20;
/** QEMU counts clusters in an int. */
const MAX_CLUSTERS = 2 ** 31 - 1;

/** Everything that one run of the check has found out so far. */
export class CheckState {
  readonly report: Report;
  readonly clusterSize: number;
  readonly clusterBits: number;
  /** Clusters in the file; the last may be a part of one. */
  readonly clusters: number;
  /** Bytes of one L2 entry. */
  readonly entrySize: number;
  readonly externalData: boolean;
  /** References to every cluster that were seen. Data may end behind the file's end, by less than a cluster: hence one more. */
  readonly references: Counts;
  /** L2 tables that are aligned, by their clusters: how often L1 tables point there, and how often the active one does. */
  readonly tables: Counts;
  readonly activeTables: Counts;
  /** Those that are not aligned, by their offsets. */
  readonly oddTables = new Map<number, { times: number; active: number }>();
  readonly marks: Marks;
  /** Refcounts (as they are after the repair) that differ from the references: some of them, for messages. */
  readonly differing = new Map<number, number>();
  readonly budget: Budget;
  /** Whether references could not be counted in full: then nothing may be given back. */
  incomplete = false;
  /** The first byte behind the end of the file that a table points at: of a truncated file, usually. */
  beyond = Infinity;
  /** Why nothing could be repaired. */
  refusal: string | undefined;
  /** Whether the file was changed. */
  changed = false;
  #done = 0;
  total = 0;

  constructor(readonly file: Storage, readonly header: Qcow2Header, readonly options: Qcow2CheckOptions) {
    this.report = new Report(options.maxFindings ?? 1000);
    this.clusterSize = header.clusterSize;
    this.clusterBits = header.clusterBits;
    this.clusters = Math.ceil(file.size / header.clusterSize);
    if (this.clusters > MAX_CLUSTERS) throw new DiskError("unsupported", `the image cannot be checked: the file has ${this.clusters} clusters, QEMU's bound is ${MAX_CLUSTERS}`, { path: file.name, format: "qcow2", operation: "check" });
    this.entrySize = (header.incompatible & INCOMPATIBLE.extendedL2) === 0n ? ENTRY_SIZE : 2 * ENTRY_SIZE;
    this.externalData = (header.incompatible & INCOMPATIBLE.externalData) !== 0n;
    this.budget = new Budget(options.limits?.memory ?? 256 * MIB, options.limits?.reads ?? 2048 * MIB, file.name);
    const count = (): Counts => new Counts(this.clusters + 1, this.budget);
    this.references = count();
    this.tables = count();
    this.activeTables = count();
    this.marks = new Marks(this.clusters + 1, this.budget);
    this.report.imageEndOffset = header.clusterSize;
    this.report.totalClusters = Math.ceil(header.size / header.clusterSize);
  }

  /** Whether corruptions are mended. */
  get mending(): boolean {
    return this.options.repair === "all" && !this.incomplete;
  }

  /**
   * Counts `times` references to each cluster that the range touches. A range that ends a cluster or more behind
   * the end of the file is a corruption and not counted. Answers whether it was.
   */
  reference(offset: number, length: number, times = 1, mark = 0): boolean {
    if (length <= 0) return true;
    if (offset + length - this.file.size >= this.clusterSize) {
      this.report.corruption(offset, () => `ERROR: counting reference for region exceeding the end of the file by one cluster or more: offset 0x${offset.toString(16)} size 0x${length.toString(16)}`, times);
      this.beyond = Math.min(this.beyond, Math.max(offset, this.file.size));
      return false;
    }
    const last = Math.floor((offset + length - 1) / this.clusterSize);
    for (let cluster = Math.floor(offset / this.clusterSize); cluster <= last; cluster++) {
      this.references.add(cluster, times);
      if (mark !== 0) this.marks.set(cluster, mark);
    }
    return true;
  }

  /** Before every batch of metadata is read: keeps to the limits, and tells how far the check is. */
  charge(bytes: number): void {
    if (this.options.signal?.aborted === true) throw new DiskError("io", "the check was stopped", { path: this.file.name, format: "qcow2", operation: "check" });
    this.budget.read(bytes);
    this.#done += bytes;
    this.total = Math.max(this.total, this.#done);
    this.options.onProgress?.(this.#done, this.total);
  }
}
