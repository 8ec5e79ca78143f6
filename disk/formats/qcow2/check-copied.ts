import { read, write, type Task } from "../../task.ts";
import { PAGE, PAGE_BITS } from "./check-counts.ts";
import { eachTable, looksRight } from "./check-l2.ts";
import type { Refcounting } from "./check-refcounts.ts";
import { MARK, type CheckState } from "./check-state.ts";
import { entryText } from "./check-walk.ts";
import { ENTRY_SIZE, hostOffset, isCompressed, isCopied, isZero } from "./l2-entry.ts";

const MIB = 2 ** 20, COPIED = 0x8000_0000, HIGH_OFFSET = 0x00ff_ffff;

/**
 * Compares the COPIED flags of the active tables with the refcounts, which are what they will be after the repair:
 * the flag says "refcount 1, write in place". docs/interop/qcow2.rst, "L1 table entry" and "L2 table entry".
 */
export function* checkCopied(state: CheckState, refcounts: Refcounting): Task {
  const { report, options } = state;
  // As QEMU: where only leaks are repaired, the flags are touched only if everything else is right.
  const mending = state.mending || (options.repair === "leaks" && report.corruptions === 0 && report.checkErrors === 0);
  const flags = new Flags(state, refcounts, mending);
  yield* checkL1(state, flags);
  yield* eachTable(state, state.activeTables, (view, cluster) => flags.table(view, cluster * state.clusterSize, state.activeTables.get(cluster), !state.marks.has(cluster, MARK.metadata)));
  for (const [offset, { active }] of state.oddTables) {
    if (active === 0) continue;
    const bytes = new Uint8Array(state.clusterSize);
    state.charge(bytes.length);
    yield read(state.file, offset, bytes);
    flags.table(new DataView(bytes.buffer), offset, active, false);
  }
}

function* checkL1(state: CheckState, flags: Flags): Task {
  const { l1Offset, l1Size } = state.header, length = l1Size * ENTRY_SIZE;
  if (l1Offset >= state.file.size) return;
  for (let at = 0; at < length; at += MIB) {
    const bytes = new Uint8Array(Math.min(MIB, length - at)), view = new DataView(bytes.buffer);
    state.charge(bytes.length);
    yield read(state.file, l1Offset + at, bytes);
    if (!flags.l1(view, l1Offset + at, at / ENTRY_SIZE)) continue;
    yield write(state.file, l1Offset + at, bytes);
    state.changed = true;
  }
}

class Flags {
  constructor(readonly state: CheckState, readonly refcounts: Refcounting, readonly mending: boolean) {}

  /** Entries from `first` on. Answers whether any was mended. */
  l1(view: DataView, at: number, first: number): boolean {
    let mended = false;
    for (let i = 0; i < view.byteLength; i += ENTRY_SIZE) {
      const high = view.getUint32(i), low = view.getUint32(i + 4), host = hostOffset(high, low);
      if (host === 0) continue;
      const cluster = Math.floor(host / this.state.clusterSize);
      if (this.state.marks.has(cluster, MARK.one) === isCopied(high)) continue;
      if (this.#wrong(view, i, at, cluster, () => `OFLAG_COPIED L2 cluster: l1_index=${first + i / ENTRY_SIZE} l1_entry=${entryText(high, low)}`, 1, true, false)) mended = true;
    }
    return mended;
  }

  /** The L2 table at `at`, which the active L1 names `active` times. Answers whether an entry was mended. */
  table(view: DataView, at: number, active: number, writable: boolean): boolean {
    const { entrySize, clusterSize, clusterBits, externalData, marks, clusters } = this.state, extended = entrySize === 16;
    const scale = 2 ** (32 - clusterBits);
    let mended = false, page = marks.page(0), pageIndex = 0, sound: boolean | undefined;
    for (let i = 0; i < clusterSize; i += entrySize) {
      const high = view.getUint32(i), low = view.getUint32(i + 4);
      if ((high === 0 && low === 0) || isCompressed(high)) continue;
      const copied = isCopied(high), cluster = (high & HIGH_OFFSET) * scale + (low >>> clusterBits);
      if (cluster === 0 && hostOffset(high, low) === 0 && !(externalData && copied && (extended || !isZero(low)))) continue;
      if (cluster <= clusters && cluster >>> PAGE_BITS !== pageIndex) page = marks.page(pageIndex = cluster >>> PAGE_BITS);
      const one = externalData || (cluster <= clusters && ((page?.[cluster & (PAGE - 1)] ?? 0) & MARK.one) !== 0);
      if (one === copied) continue;
      const mayMend = this.mending && writable && (sound ??= looksRight(this.state, view));
      if (this.#wrong(view, i, at, cluster, () => `OFLAG_COPIED data cluster: l2_entry=${entryText(high, low)}`, active, mayMend, externalData)) mended = true;
    }
    return mended;
  }

  /** `external`: the entry points into the data file, where nothing is counted. */
  #wrong(view: DataView, i: number, at: number, cluster: number, what: () => string, times: number, writable: boolean, external: boolean): boolean {
    if (!external && this.refcounts.isUnknown(cluster)) return false;
    const mended = this.mending && writable;
    this.state.report.mendable(at + i, mended, () => `${what()} refcount=${external ? 1 : this.#refcount(cluster)}`, mended ? 1 : times);
    if (mended) view.setUint32(i, (view.getUint32(i) ^ COPIED) >>> 0);
    return mended;
  }

  #refcount(cluster: number): number {
    const { differing, clusters, references } = this.state;
    return differing.get(cluster) ?? (cluster < clusters ? Math.min(references.get(cluster), this.refcounts.width.max) : 0);
  }
}
