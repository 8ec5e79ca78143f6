import { read, write, type Task } from "../../task.ts";
import { FULL, PAGE, PAGE_BITS, type Counts } from "./check-counts.ts";
import { MARK, type CheckState } from "./check-state.ts";
import { entryText } from "./check-walk.ts";
import { isCompressed, isCopied, isZero, hostOffset, packedPlace } from "./l2-entry.ts";

/** Of a plain entry: bits 56 to 61 and 1 to 8 are reserved. docs/interop/qcow2.rst, "Cluster mapping". */
const RESERVED_HIGH = 0x3f00_0000, RESERVED_LOW = 0x1fe, COPIED = 0x8000_0000, COMPRESSED = 0x4000_0000, HIGH_OFFSET = 0x00ff_ffff;
const MIB = 2 ** 20, NO_PAGE = new Uint16Array(0);

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
  /** Whether every entry needs a closer look. */
  readonly #special: boolean;
  /** Bits that an entry of a plain cluster, within 2^31 clusters, does not have. */
  readonly #unusualHigh: number;
  readonly #unusualLow: number;
  /** The cluster that would follow the last one without a seek; 0: there was none yet. */
  #next = 0;
  #mended = false;
  /** Whether the table at hand may be mended, once that was asked. */
  #trusted: boolean | undefined;

  constructor(readonly state: CheckState) {
    this.#extended = state.entrySize === 16;
    this.#special = this.#extended || state.externalData;
    this.#unusualHigh = RESERVED_HIGH | COMPRESSED | (HIGH_OFFSET & ~(2 ** (state.clusterBits - 1) - 1));
    this.#unusualLow = state.clusterSize - 1;
  }

  /** Counts one table. Answers whether entries were mended. */
  table(view: DataView, at: number, times: number, active: number, writable: boolean): boolean {
    const { references, clusters, clusterBits, clusterSize, entrySize, report } = this.state;
    const table: Current = { view, at, times, active, writable }, shift = 32 - clusterBits;
    this.#next = 0;
    this.#mended = false;
    this.#trusted = undefined;
    let allocated = 0, fragmented = 0, pageIndex = -1, page: Uint16Array = NO_PAGE;
    for (let i = 0; i < clusterSize; i += entrySize) {
      const high = view.getUint32(i), low = view.getUint32(i + 4), cluster = ((high & HIGH_OFFSET) << shift) | (low >>> clusterBits);
      if ((high & this.#unusualHigh) !== 0 || (low & this.#unusualLow) !== 0 || cluster >= clusters || this.#special) {
        this.#entry(table, i, high, low);
        continue;
      }
      if (cluster === 0) continue;
      allocated++;
      if (cluster !== this.#next && this.#next !== 0) fragmented++;
      this.#next = cluster + 1;
      if (cluster >>> PAGE_BITS !== pageIndex) page = references.own(pageIndex = cluster >>> PAGE_BITS);
      const count = (page[cluster & (PAGE - 1)] ?? 0) + times;
      if (count < FULL) page[cluster & (PAGE - 1)] = count;
      else references.add(cluster, times);
    }
    report.allocatedClusters += allocated * active;
    report.fragmentedClusters += fragmented * active;
    return this.#mended;
  }

  /** An entry of any kind. */
  #entry(table: Current, i: number, high: number, low: number): void {
    const { state } = this, { report } = state, { times } = table, at = table.at + i;
    const zeros = this.#extended ? table.view.getUint32(i + 8) : 0, present = this.#extended ? table.view.getUint32(i + 12) : 0;
    if (high === 0 && low === 0 && present === 0) return;
    if (isCompressed(high)) return this.#compressed(table, i, high, low, (zeros | present) !== 0);
    if ((high & RESERVED_HIGH) !== 0 || (low & RESERVED_LOW) !== 0) this.#ignored(table, i, () => `found l2 entry with reserved bits set: ${entryText(high, low)}`, RESERVED_HIGH, RESERVED_LOW);
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
    if (isCopied(high)) this.#ignored(table, i, () => `coffset=0x${packedPlace(high, low, state.clusterBits).host.toString(16)}: copied flag must never be set for compressed clusters`, COPIED, 0);
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
  #misaligned(table: Current, i: number, host: number, data: boolean): boolean {
    const { view, at, times } = table, { report } = this.state, text = host.toString(16);
    if (data) {
      report.corruption(at + i, () => `ERROR offset=${text}: Data cluster is not properly aligned; L2 entry corrupted.`, times);
      return false;
    }
    const mended = this.#mayMend(table);
    report.mendable(at + i, mended, () => `offset=${text}: Preallocated cluster is not properly aligned; L2 entry corrupted.`, mended ? 1 : times);
    if (!mended) return false;
    view.setUint32(i, 0);
    view.setUint32(i + 4, this.#extended ? 0 : 1);
    if (this.#extended) {
      view.setUint32(i + 8, (view.getUint32(i + 8) | view.getUint32(i + 12)) >>> 0);
      view.setUint32(i + 12, 0);
    }
    return true;
  }

  /** Bits that every reader ignores are cleared. QEMU only reports them. */
  #ignored(table: Current, i: number, what: () => string, high: number, low: number): void {
    const mended = this.#mayMend(table), { view, at, times } = table;
    this.state.report.mendable(at + i, mended, what, mended ? 1 : times);
    if (!mended) return;
    view.setUint32(i, (view.getUint32(i) & ~high) >>> 0);
    view.setUint32(i + 4, (view.getUint32(i + 4) & ~low) >>> 0);
  }

  #mayMend(table: Current): boolean {
    if (!this.state.mending || !table.writable) return false;
    this.#trusted ??= looksRight(this.state, table.view);
    if (this.#trusted) this.#mended = true;
    return this.#trusted;
  }
}

/** A table with more bad entries than good ones is hardly one: somebody's data must not be mended. */
export function looksRight({ clusterSize, clusterBits, entrySize, file, externalData }: CheckState, view: DataView): boolean {
  let balance = 0;
  for (let i = 0; i < clusterSize; i += entrySize) {
    const high = view.getUint32(i), low = view.getUint32(i + 4);
    if (high === 0 && low === 0) continue;
    const packed = isCompressed(high), host = packed ? packedPlace(high, low, clusterBits).host : hostOffset(high, low);
    const clean = packed ? !isCopied(high) : (high & RESERVED_HIGH) === 0 && (low & RESERVED_LOW) === 0 && host % clusterSize === 0;
    balance += clean && (externalData || host < file.size) ? 1 : -1;
  }
  return balance >= 0;
}
