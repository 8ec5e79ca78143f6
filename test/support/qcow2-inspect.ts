import { readBitmaps } from "./qcow2-bitmaps.ts";

/**
 * A second, independent reading of a qcow2 file, straight from docs/interop/qcow2.rst: what every cluster is, how
 * often it is referenced, and whether the refcounts and COPIED flags agree. It shares no code with disk/, so both
 * would have to be wrong in the same way.
 */
export type Role = "header" | "refcount table" | "refcount block" | "L1" | "L2" | "data" | "snapshots" | "bitmaps";

export interface Inspection {
  readonly clusterSize: number;
  /** What breaks the format: qemu-img check would call it an error. */
  readonly corruptions: readonly string[];
  /** Clusters counted higher than referenced. */
  readonly leaks: number;
  readonly role: (offset: number) => Role | undefined;
}

const OFFSET = 0x00ff_ffff_ffff_fe00n, COPIED = 1n << 63n, COMPRESSED = 1n << 62n;

class Inspector {
  readonly corruptions: string[] = [];
  readonly view: DataView;
  readonly clusterBits: number;
  readonly clusterSize: number;
  readonly references = new Map<number, number>();
  readonly roles = new Map<number, Role>();
  readonly refcountBits: number;
  /** Entries of the active tables that point at a cluster: (cluster, copied, what). */
  readonly copied: [cluster: number, copied: boolean, what: string][] = [];
  readonly version: number;
  /** With extended L2 entries: 16. */
  readonly entrySize: number;
  readonly external: boolean;

  constructor(readonly bytes: Uint8Array) {
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    if (bytes.length < 104 || this.u32(0) !== 0x514649fb) throw new Error("not a qcow2 file");
    this.version = this.u32(4);
    this.clusterBits = this.u32(20);
    this.clusterSize = 2 ** this.clusterBits;
    this.refcountBits = this.version === 2 ? 16 : 2 ** this.u32(96);
    this.external = this.version > 2 && (this.u64(72) & 4n) !== 0n;
    this.entrySize = this.version > 2 && (this.u64(72) & 16n) !== 0n ? 16 : 8;
  }

  u32(at: number): number {
    return at + 4 <= this.bytes.length ? this.view.getUint32(at) : 0;
  }

  u64(at: number): bigint {
    return at + 8 <= this.bytes.length ? this.view.getBigUint64(at) : 0n;
  }

  number(at: number): number {
    return Number(this.u64(at));
  }

  use(offset: number, length: number, role: Role, what: string): void {
    if (length === 0) return;
    if (role !== "data" && offset % this.clusterSize !== 0) this.corruptions.push(`${what} is misaligned at ${offset}`);
    if (offset >= this.bytes.length || length > this.bytes.length + this.clusterSize) {
      this.corruptions.push(`${what} stands at ${offset} and has ${length} bytes: behind the end of the file`);
      return;
    }
    const last = Math.floor((offset + length - 1) / this.clusterSize);
    for (let cluster = Math.floor(offset / this.clusterSize); cluster <= last; cluster++) {
      this.references.set(cluster, (this.references.get(cluster) ?? 0) + 1);
      const other = this.roles.get(cluster);
      if (other !== undefined && other !== role) this.corruptions.push(`${what}: cluster ${cluster} is ${other} and ${role}`);
      this.roles.set(cluster, role);
    }
  }

  mapping(l1Offset: number, l1Size: number, active: boolean): void {
    const whose = active ? "" : "a snapshot's ";
    this.use(l1Offset, l1Size * 8, "L1", `${whose}L1`);
    for (let i = 0; i < Math.min(l1Size, this.bytes.length / 8); i++) {
      const entry = this.u64(l1Offset + i * 8), at = Number(entry & OFFSET);
      if (at === 0) continue;
      this.use(at, this.clusterSize, "L2", `${whose}L2 ${i}`);
      if (active) this.copied.push([at / this.clusterSize, (entry & COPIED) !== 0n, `L1 entry ${i}`]);
      for (let j = 0; j < this.clusterSize / this.entrySize; j++) {
        const place = at + j * this.entrySize, what = `${whose}L2 ${i} entry ${j}`;
        if (this.external) this.inDataFile(this.u64(place), (i * this.clusterSize) / this.entrySize + j, what);
        else this.entry(this.u64(place), what, active);
        if (this.entrySize === 16) this.subclusters(this.u64(place), this.u32(place + 8), this.u32(place + 12), what);
      }
    }
  }

  entry(entry: bigint, what: string, active: boolean): void {
    if ((entry & COMPRESSED) !== 0n) {
      const bits = BigInt(62 - (this.clusterBits - 8)), host = Number(entry & ((1n << bits) - 1n));
      const sectors = Number((entry & (COMPRESSED - 1n)) >> bits) + 1;
      if ((entry & COPIED) !== 0n) this.corruptions.push(`${what} is compressed and COPIED`);
      this.use(host, sectors * 512 - (host % 512), "data", what);
      return;
    }
    const host = Number(entry & OFFSET);
    if ((entry & 1n) !== 0n && this.version === 2) this.corruptions.push(`${what} has a zero flag in version 2`);
    if (host === 0) return;
    if (host % this.clusterSize !== 0) this.corruptions.push(`${what} is misaligned at ${host}`);
    this.use(host, this.clusterSize, "data", what);
    if (active) this.copied.push([host / this.clusterSize, (entry & COPIED) !== 0n, what]);
  }

  /** An entry of an image with an external data file. */
  inDataFile(entry: bigint, cluster: number, what: string): void {
    const host = Number(entry & OFFSET), copied = (entry & COPIED) !== 0n;
    if ((entry & COMPRESSED) !== 0n) this.corruptions.push(`${what} is compressed, with a data file`);
    else if (host !== 0 && !copied) this.corruptions.push(`${what} is not COPIED, with a data file`);
    else if (copied && host !== cluster * this.clusterSize) this.corruptions.push(`${what} points at ${host} of the data file`);
  }

  subclusters(entry: bigint, zeros: number, present: number, what: string): void {
    if ((zeros & present) !== 0) this.corruptions.push(`${what} has subclusters that are both`);
    if ((entry & COMPRESSED) !== 0n && (zeros | present) !== 0) this.corruptions.push(`${what} is compressed and has subclusters`);
    if ((entry & OFFSET) === 0n && present !== 0 && !(this.external && (entry & COPIED) !== 0n)) this.corruptions.push(`${what} has subclusters without a cluster`);
    if ((entry & (COMPRESSED | 1n)) === 1n) this.corruptions.push(`${what} has the zero flag and subclusters`);
  }

  snapshots(count: number, offset: number): void {
    let at = offset;
    for (let i = 0; i < Math.min(count, this.bytes.length / 40); i++) {
      this.mapping(this.number(at), this.u32(at + 8), false);
      const length = 40 + this.u32(at + 36) + this.view.getUint16(at + 12) + this.view.getUint16(at + 14);
      at += Math.ceil(length / 8) * 8;
    }
    this.use(offset, at - offset, "snapshots", "the snapshot table");
  }

  refcount(cluster: number, table: number, entries: number): number {
    const perBlock = (this.clusterSize * 8) / this.refcountBits, index = Math.floor(cluster / perBlock), i = cluster % perBlock;
    const block = index < entries ? this.number(table + index * 8) : 0;
    if (block === 0) return 0;
    if (this.refcountBits === 64) return this.number(block + i * 8);
    if (this.refcountBits === 32) return this.u32(block + i * 4);
    const at = block + Math.floor((i * this.refcountBits) / 8), byte = this.bytes[at] ?? 0;
    if (this.refcountBits === 16) return byte * 256 + (this.bytes[at + 1] ?? 0);
    return (byte >> ((i * this.refcountBits) % 8)) & (2 ** this.refcountBits - 1);
  }

  compareCounts(table: number, entries: number): number {
    let leaks = 0;
    const clusters = Math.ceil(this.bytes.length / this.clusterSize) + 1;
    for (let cluster = 0; cluster < clusters; cluster++) {
      const count = this.refcount(cluster, table, entries), used = this.references.get(cluster) ?? 0;
      if (count < used) this.corruptions.push(`cluster ${cluster} (${this.roles.get(cluster)}) has refcount ${count} but ${used} references`);
      if (count > used) leaks++;
    }
    for (const [cluster, copied, what] of this.copied) {
      const count = this.refcount(cluster, table, entries);
      if (copied !== (count === 1)) this.corruptions.push(`${what}: COPIED is ${copied} but the refcount of cluster ${cluster} is ${count}`);
    }
    return leaks;
  }

  run(): Inspection {
    const table = this.number(48), tableClusters = this.u32(56), entries = (tableClusters * this.clusterSize) / 8;
    this.use(0, 1, "header", "the header");
    this.use(table, tableClusters * this.clusterSize, "refcount table", "the refcount table");
    for (let i = 0; i < Math.min(entries, this.bytes.length / 8); i++) {
      const at = this.number(table + i * 8);
      if (at !== 0) this.use(at, this.clusterSize, "refcount block", `refcount block ${i}`);
    }
    this.mapping(this.number(40), this.u32(36), true);
    this.snapshots(this.u32(60), this.number(64));
    for (const [offset, length, what] of readBitmaps(this.bytes).uses) this.use(offset, length, "bitmaps", what);
    const leaks = this.compareCounts(table, entries), { clusterSize, corruptions, roles } = this;
    return { clusterSize, corruptions, leaks, role: (offset) => roles.get(Math.floor(offset / clusterSize)) };
  }
}

export function inspectQcow2(bytes: Uint8Array): Inspection {
  return new Inspector(bytes).run();
}
