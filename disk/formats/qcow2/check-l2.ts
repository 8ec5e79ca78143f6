import { read, write, type Task } from "../../task.ts";
import type { Counts } from "./check-counts.ts";
import { PAGE } from "./check-counts.ts";
import { MARK, type CheckState } from "./check-state.ts";
import { entryText } from "./check-walk.ts";
import { isCompressed, isCopied, isZero, hostOffset, packedPlace } from "./l2-entry.ts";

/** Of a plain entry: bits 56 to 61 and 1 to 8 are reserved. docs/interop/qcow2.rst, "Cluster mapping". */
const RESERVED_HIGH = 0x3f00_0000, RESERVED_LOW = 0x1fe, COPIED = 0x8000_0000, HIGH_OFFSET = 0x00ff_ffff;
const MIB = 2 ** 20;

/** Calls `visit` with every L2 table that `tables` counts, reading those that follow each other in one go; writes those it changed. */
export function* eachTable(state: CheckState, tables: Counts, visit: (view: DataView, cluster: number) => boolean): Task {
  const size = state.clusterSize, most = Math.max(1, MIB / size), buffer = new Uint8Array(most * size);
  for (let index = 0; index < tables.pages; index++) {
    const page = tables.page(index);
    if (page === undefined) continue;
    for (let i = 0; i < PAGE; i++) {
      if (page[i] === 0) continue;
      let count = 1;
      while (count < most && i + count < PAGE && page[i + count] !== 0) count++;
      const bytes = buffer.subarray(0, count * size), first = index * PAGE + i;
      state.charge(bytes.length);
      yield read(state.file, first * size, bytes);
      for (let n = 0; n < count; n++) {
        if (!visit(new DataView(buffer.buffer, n * size, size), first + n)) continue;
        yield write(state.file, (first + n) * size, buffer.subarray(n * size, (n + 1) * size));
        state.changed = true;
      }
      i += count - 1;
    }
  }
}

/** Counts what all L2 tables reference, and judges their entries. */
export function* countTables(state: CheckState): Task {
  const scan = new Scan(state);
  yield* eachTable(state, state.tables, (view, cluster) => {
    const writable = !state.marks.has(cluster, MARK.metadata);
    return scan.table(view, cluster * state.clusterSize, state.tables.get(cluster), state.activeTables.get(cluster), writable);
  });
  for (const [offset, { times, active }] of state.oddTables) {
    const bytes = new Uint8Array(state.clusterSize);
    state.charge(bytes.length);
    yield read(state.file, offset, bytes);
    scan.table(new DataView(bytes.buffer), offset, times, active, false);
  }
}

/** The table at hand: `at` is its place in the file, `times` and `active` how often L1 tables point there. */
interface Current { readonly view: DataView; readonly at: number; readonly times: number; readonly active: number; readonly writable: boolean }

class Scan {
  readonly #extended: boolean;
  /** The cluster that would follow the last one without a seek; 0: there was none yet. */
  #next = 0;
  #used = 0;
  #mended = false;
  #suspects: number[] = [];

  constructor(readonly state: CheckState) {
    this.#extended = state.entrySize === 16;
  }

  /** Counts one table. Answers whether entries were mended. */
  table(view: DataView, at: number, times: number, active: number, writable: boolean): boolean {
    const { references, clusters, clusterBits, clusterSize, entrySize, externalData, report } = this.state;
    const table: Current = { view, at, times, active, writable }, special = this.#extended || externalData;
    const scale = 2 ** (32 - clusterBits), unusualLow = clusterSize - 1, unusualHigh = RESERVED_HIGH | 0x4000_0000;
    this.#next = this.#used = 0;
    this.#mended = false;
    this.#suspects = [];
    let allocated = 0, fragmented = 0;
    for (let i = 0; i < clusterSize; i += entrySize) {
      const high = view.getUint32(i), low = view.getUint32(i + 4);
      const cluster = (high & HIGH_OFFSET) * scale + (low >>> clusterBits);
      if ((high & unusualHigh) !== 0 || (low & unusualLow) !== 0 || cluster >= clusters || special) {
        this.#entry(table, i, high, low);
        continue;
      }
      if (cluster === 0) continue;
      allocated++;
      if (cluster !== this.#next && this.#next !== 0) fragmented++;
      this.#next = cluster + 1;
      references.add(cluster, times);
    }
    this.#used += allocated;
    report.allocatedClusters += allocated * active;
    report.fragmentedClusters += fragmented * active;
    if (this.#suspects.length > 0) this.#settle(table);
    return this.#mended;
  }

  /** An entry of any kind. */
  #entry(table: Current, i: number, high: number, low: number): void {
    const { state } = this, { report } = state, { times } = table, at = table.at + i;
    const zeros = this.#extended ? table.view.getUint32(i + 8) : 0, present = this.#extended ? table.view.getUint32(i + 12) : 0;
    if (high === 0 && low === 0 && present === 0) return;
    this.#used++;
    if (isCompressed(high)) return this.#compressed(table, i, high, low, (zeros | present) !== 0);
    if ((high & RESERVED_HIGH) !== 0 || (low & RESERVED_LOW) !== 0) this.#suspects.push(i);
    const host = hostOffset(high, low), zero = !this.#extended && isZero(low);
    // QEMU's check lets this pass, but neither it nor we read such a cluster.
    if (zero && state.header.version < 3) report.corruption(at, () => `ERROR L2 entry ${entryText(high, low)} has the zero flag, which version 2 does not have`, times);
    if (host === 0 && (zero || !(state.externalData && isCopied(high)))) {
      if (present !== 0) report.corruption(at, () => "ERROR: Unallocated cluster has non-zero subcluster allocation map", times);
      return;
    }
    if ((zeros & present) !== 0) report.corruption(at, () => `ERROR offset=${host.toString(16)}: Allocated cluster has corrupted subcluster allocation bitmap`, times);
    if (host % state.clusterSize !== 0 && this.#misaligned(table, i, host, this.#extended ? present !== 0 : !zero)) return;
    const cluster = host / state.clusterSize;
    report.allocatedClusters += table.active;
    if (this.#next !== 0 && cluster !== this.#next) report.fragmentedClusters += table.active;
    this.#next = cluster + 1;
    if (!state.externalData) state.reference(host, state.clusterSize, times);
  }

  #compressed(table: Current, i: number, high: number, low: number, bitmap: boolean): void {
    const { state } = this, { report } = state, { times, active } = table, at = table.at + i;
    if (isCopied(high)) this.#suspects.push(i);
    const wrong = state.externalData ? "data file" : "non-zero subcluster allocation bitmap";
    if (state.externalData || bitmap) {
      return report.corruption(at, () => `ERROR compressed cluster ${i / state.entrySize} with ${wrong}, entry=0x${entryText(high, low)}`, times);
    }
    const { host, packedLength } = packedPlace(high, low, state.clusterBits);
    state.reference(host, packedLength, times);
    report.allocatedClusters += active;
    report.compressedClusters += active;
    // They never stand alone in their sectors.
    report.fragmentedClusters += active;
  }

  /** Without data the entry becomes a plain zero cluster, as QEMU does; with data nobody can tell what is meant. Answers whether it was mended. */
  #misaligned({ view, at, times, writable }: Current, i: number, host: number, data: boolean): boolean {
    const { report } = this.state, mended = this.state.mending && writable && !data, text = host.toString(16);
    if (data) report.corruption(at + i, () => `ERROR offset=${text}: Data cluster is not properly aligned; L2 entry corrupted.`, times);
    else report.mendable(at + i, mended, () => `offset=${text}: Preallocated cluster is not properly aligned; L2 entry corrupted.`, mended ? 1 : times);
    if (!mended) return false;
    view.setUint32(i, 0);
    view.setUint32(i + 4, this.#extended ? 0 : 1);
    if (this.#extended) {
      view.setUint32(i + 8, (view.getUint32(i + 8) | view.getUint32(i + 12)) >>> 0);
      view.setUint32(i + 12, 0);
    }
    return (this.#mended = true);
  }

  /** Bits that every reader ignores: cleared, unless there are so many that this is hardly a table. QEMU only reports them. */
  #settle({ view, at, times, writable }: Current): void {
    const mended = writable && this.state.trusts(this.#suspects.length, this.#used);
    for (const i of this.#suspects) {
      const high = view.getUint32(i), low = view.getUint32(i + 4), packed = isCompressed(high), text = entryText(high, low);
      const what = (): string => (packed ? `compressed entry ${text}: copied flag must never be set for compressed clusters` : `found l2 entry with reserved bits set: ${text}`);
      this.state.report.mendable(at + i, mended, what, mended ? 1 : times);
      if (!mended) continue;
      view.setUint32(i, (high & ~(packed ? COPIED : RESERVED_HIGH)) >>> 0);
      if (!packed) view.setUint32(i + 4, (low & ~RESERVED_LOW) >>> 0);
      this.#mended = true;
    }
  }
}
