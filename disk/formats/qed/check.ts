import { setU64, flags64 } from "../../bytes/struct.ts";
import { DiskError, hex } from "../../errors.ts";
import type { Storage } from "../../storage.ts";
import { flush, read, truncate, write, type Task } from "../../task.ts";
import type { CheckOptions, CheckResult, Finding, FindingKind } from "../check.ts";
import { endOf, FEATURE, readHeader, type QedHeader } from "./header.ts";
import { ENTRY_SIZE, ZERO } from "./mapping.ts";
import { writeFeatures } from "./marks.ts";

/** Tables are read in pieces of this size: no cluster is smaller. */
const PIECE = 4096, MIB = 2 ** 20;

/**
 * Checks that every cluster is referenced once, as `qemu-img check` does, in an image that nobody has open. `repair: "all"`
 * clears entries that point where nothing can be; `leaks`, too, cuts off unused clusters at the end of the file.
 */
export function* checkQed(file: Storage, options: CheckOptions = {}): Task<CheckResult> {
  if (options.repair !== undefined && file.readOnly) throw new DiskError("read-only", "cannot repair: the file is open read-only", { path: file.name, operation: "repair" });
  const header = yield* readHeader(file), walk = new Walk(file, header, options);
  yield* walk.tables();
  yield* walk.leaks();
  const result = walk.result();
  if (options.repair !== undefined && result.corruptions === 0 && (header.features & FEATURE.needCheck) !== 0n) {
    yield* writeFeatures(file, header.features & ~FEATURE.needCheck);
    yield flush(file, "the repaired image is clean");
  }
  return result;
}

/** Checks and repairs an image that was not closed in order, before it is opened for writing. */
export function* repairUnclean(file: Storage): Task {
  const { corruptions, findings } = yield* checkQed(file, { repair: "leaks" });
  if (corruptions === 0) return;
  const first = findings.find(({ kind, repaired }) => kind === "corruption" && !repaired);
  throw new DiskError("corrupt", `the image was not closed in order, and is damaged: ${first?.message ?? "it has errors"}; repair it with check -r all, or open it read-only to rescue what it holds`, { path: file.name, offset: first?.offset, format: "qed", operation: "repair" });
}

class Walk {
  readonly #used: Uint8Array;
  readonly #clusters: number;
  readonly #end: number;
  readonly #findings: Finding[] = [];
  #findingCount = 0;
  #allocated = 0;
  #fragmented = 0;
  #leaks = 0;
  #corruptions = 0;
  #leaksFixed = 0;
  #corruptionsFixed = 0;
  #done = 0;
  #total: number;

  constructor(readonly file: Storage, readonly header: QedHeader, readonly options: CheckOptions) {
    this.#end = endOf(file, header);
    this.#clusters = this.#end / header.clusterSize;
    this.#total = header.tableBytes;
    const bytes = Math.ceil(this.#clusters / 8), limit = options.limits?.memory ?? 256 * MIB;
    if (bytes > limit) throw new DiskError("unsupported", `the image cannot be checked: its ${this.#clusters} clusters need ${bytes} bytes of memory, over the limit of ${limit}`, { path: file.name, format: "qed", operation: "check" });
    this.#used = new Uint8Array(bytes);
  }

  /** The L1 and every L2 table. */
  *tables(): Task {
    const { l1Offset, tableBytes, headerBytes } = this.header;
    this.#reference(0, headerBytes);
    this.#reference(l1Offset, tableBytes);
    yield* this.#table(l1Offset, "L1", function* (this: Walk, at: number): Task<boolean> {
      if (!this.#fits(at, tableBytes)) return false;
      if (!this.#reference(at, tableBytes)) {
        this.#add("corruption", at, false, `ERROR: the L2 table at ${hex(at)} stands where something else does`);
        return true;
      }
      this.#total += tableBytes;
      yield* this.#l2(at);
      return true;
    });
  }

  *#l2(table: number): Task {
    const { clusterSize } = this.header;
    let last = 0;
    // oxlint-disable-next-line require-yield -- nothing to read below
    yield* this.#table(table, "L2", function* (this: Walk, at: number): Task<boolean> {
      if (at === ZERO) return true;
      this.#allocated++;
      if (last !== 0 && last + clusterSize !== at) this.#fragmented++;
      last = at;
      if (!this.#fits(at, clusterSize)) return false;
      if (!this.#reference(at, clusterSize)) this.#add("corruption", at, false, `ERROR: the cluster at ${hex(at)} is referenced more than once`);
      return true;
    });
  }

  /** Shows each entry that is not 0 to `judge`, whose `false` says that it points where nothing can be: then it may be cleared. */
  *#table(table: number, kind: "L1" | "L2", judge: (this: Walk, at: number) => Task<boolean>): Task {
    const bytes = new Uint8Array(PIECE), view = new DataView(bytes.buffer);
    for (let piece = 0; piece < this.header.tableBytes; piece += PIECE) {
      this.#charge(PIECE);
      yield read(this.file, table + piece, bytes);
      let changed = false;
      for (let i = 0; i < PIECE; i += ENTRY_SIZE) {
        const at = Number(flags64.get(view, i, true));
        if (at === 0 || (yield* judge.call(this, at))) continue;
        const mend = this.options.repair === "all";
        this.#add("corruption", table + piece + i, mend, `${mend ? "Repairing" : "ERROR"} ${kind} entry that points at ${hex(at)}, where nothing can be`);
        if (mend) setU64(view, i, 0, true);
        changed ||= mend;
      }
      if (changed) yield write(this.file, table + piece, bytes);
    }
  }

  /** Clusters that nothing references. With a repair those at the end of the file go. */
  *leaks(): Task {
    const { clusterSize } = this.header;
    let kept = this.#clusters;
    if (this.options.repair !== undefined && this.#corruptions === 0) {
      while (kept > 0 && !this.#isUsed(kept - 1)) kept--;
    }
    for (let cluster = 0; cluster < this.#clusters; cluster++) {
      if (this.#isUsed(cluster)) continue;
      const mended = cluster >= kept;
      this.#add("leak", cluster * clusterSize, mended, `${mended ? "Repairing" : "Leaked"} cluster ${cluster}, which nothing references`);
    }
    if (kept < this.#clusters) yield truncate(this.file, kept * clusterSize);
    if (this.#corruptionsFixed > 0 || kept < this.#clusters) yield flush(this.file, "what was repaired before the image counts as clean");
  }

  result(): CheckResult {
    return {
      imageEndOffset: 0, totalClusters: Math.ceil(this.header.size / this.header.clusterSize), allocatedClusters: this.#allocated,
      fragmentedClusters: this.#fragmented, compressedClusters: 0, leaks: this.#leaks, corruptions: this.#corruptions,
      leaksFixed: this.#leaksFixed, corruptionsFixed: this.#corruptionsFixed, checkErrors: 0, findings: this.#findings, findingCount: this.#findingCount,
    };
  }

  #fits(at: number, length: number): boolean {
    return at % this.header.clusterSize === 0 && at >= this.header.headerBytes && at + length <= this.#end;
  }

  /** Marks clusters as used. Answers whether none of them was. */
  #reference(offset: number, length: number): boolean {
    const first = offset / this.header.clusterSize, end = Math.min(first + length / this.header.clusterSize, this.#clusters);
    let fresh = true;
    for (let cluster = first; cluster < end; cluster++) {
      if (this.#isUsed(cluster)) fresh = false;
      this.#used[cluster >> 3] = (this.#used[cluster >> 3] ?? 0) | (1 << (cluster & 7));
    }
    return fresh;
  }

  #isUsed(cluster: number): boolean {
    return ((this.#used[Math.floor(cluster / 8)] ?? 0) & (1 << (cluster % 8))) !== 0;
  }

  #add(kind: FindingKind, offset: number, repaired: boolean, message: string): void {
    const count = repaired ? 0 : 1;
    if (kind === "leak") [this.#leaks, this.#leaksFixed] = [this.#leaks + count, this.#leaksFixed + 1 - count];
    else [this.#corruptions, this.#corruptionsFixed] = [this.#corruptions + count, this.#corruptionsFixed + 1 - count];
    this.#findingCount++;
    if (this.#findings.length < (this.options.maxFindings ?? 1000)) this.#findings.push({ kind, message, offset, repaired });
  }

  /** Keeps to the limits, and tells how far the check is. */
  #charge(bytes: number): void {
    const { signal, limits, onProgress } = this.options, most = limits?.reads ?? 2048 * MIB;
    if (signal?.aborted === true) throw new DiskError("io", "the check was stopped", { path: this.file.name, format: "qed", operation: "check" });
    this.#done += bytes;
    if (this.#done > most) throw new DiskError("unsupported", `the image cannot be checked: its tables are over the limit of ${most} bytes`, { path: this.file.name, format: "qed", operation: "check" });
    onProgress?.(this.#done, Math.max(this.#total, this.#done));
  }
}
