import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { runTool, tryTool } from "./tools.ts";
import type { CheckOptions, CheckResult } from "../../disk/formats/check.ts";
import { checkQcow2 } from "../../disk/formats/qcow2/check.ts";
import { FileStorage } from "../../disk/storage/file.node.ts";
import { run } from "../../disk/task.ts";

/** Where the structures of an image are, read without any of our own code; and typed access to its bytes. */
export class RawQcow2 {
  readonly bytes: Buffer;

  constructor(readonly path: string) {
    this.bytes = readFileSync(path);
  }

  u32(at: number): number { return this.bytes.readUInt32BE(at); }
  u64(at: number): bigint { return at + 8 <= this.bytes.length ? this.bytes.readBigUInt64BE(at) : 0n; }
  set(at: number, value: bigint): this {
    this.bytes.writeBigUInt64BE(BigInt.asUintN(64, value), at);
    return this;
  }

  get version(): number { return this.u32(4); }
  get clusterSize(): number { return 2 ** this.u32(20); }
  get l1(): number { return Number(this.u64(40)); }
  get l1Size(): number { return this.u32(36); }
  get refcountTable(): number { return Number(this.u64(48)); }
  get refcountTableClusters(): number { return this.u32(56); }
  get refcountBits(): number { return this.version === 2 ? 16 : 2 ** this.u32(96); }
  get entrySize(): number { return this.version === 3 && (this.u64(72) & 16n) !== 0n ? 16 : 8; }

  /** Offsets of the entries that are not 0 in a table of `count` entries. */
  used(at: number, count: number, size = 8): number[] {
    return Array.from({ length: count }, (_, i) => at + i * size).filter((entry) => this.u64(entry) !== 0n);
  }

  get l1Entries(): number[] { return this.used(this.l1, this.l1Size); }
  l2Tables(): number[] { return this.l1Entries.map((entry) => Number(this.u64(entry) & 0x00ff_ffff_ffff_fe00n)); }
  get l2Entries(): number[] { return this.l2Tables().flatMap((table) => this.used(table, this.clusterSize / this.entrySize, this.entrySize)); }
  get blockEntries(): number[] { return this.used(this.refcountTable, (this.refcountTableClusters * this.clusterSize) / 8); }
  get blocks(): number[] { return this.blockEntries.map((entry) => Number(this.u64(entry))); }

  refcount(cluster: number): bigint {
    const { at, shift, mask } = this.#place(cluster);
    return (BigInt(this.bytes[at] ?? 0) >> shift) & mask;
  }

  /** Sets the low byte (or the bits, if fewer) of a refcount. */
  setRefcount(cluster: number, value: bigint): this {
    const { at, shift, mask } = this.#place(cluster);
    this.bytes[at] = Number((BigInt(this.bytes[at] ?? 0) & ~(mask << shift)) | ((value & mask) << shift));
    return this;
  }

  #place(cluster: number): { at: number; shift: bigint; mask: bigint } {
    const bits = this.refcountBits, perBlock = (this.clusterSize * 8) / bits, block = Number(this.u64(this.refcountTable + Math.floor(cluster / perBlock) * 8));
    const bit = (cluster % perBlock) * bits;
    if (bits < 8) return { at: block + Math.floor(bit / 8), shift: BigInt(bit % 8), mask: (1n << BigInt(bits)) - 1n };
    return { at: block + bit / 8 + bits / 8 - 1, shift: 0n, mask: 0xffn };
  }

  save(path = this.path): string {
    writeFileSync(path, this.bytes);
    return path;
  }
}

/** What `qemu-img check` says, with the fields it leaves out as 0; `undefined`: it refused. */
export type QemuCheck = Omit<CheckResult, "findings" | "findingCount">;

export function qemuCheck(path: string, repair?: "leaks" | "all", prefix: readonly string[] = []): QemuCheck | undefined {
  const { stdout } = tryTool("qemu-img", ["check", "--output=json", ...(repair === undefined ? [] : ["-r", repair]), ...prefix, path]);
  if (!stdout.startsWith("{")) return undefined;
  const json = JSON.parse(stdout) as Record<string, number | undefined>, field = (name: string): number => json[name] ?? 0;
  return {
    imageEndOffset: field("image-end-offset"), totalClusters: field("total-clusters"), allocatedClusters: field("allocated-clusters"),
    fragmentedClusters: field("fragmented-clusters"), compressedClusters: field("compressed-clusters"),
    leaks: field("leaks"), corruptions: field("corruptions"), leaksFixed: field("leaks-fixed"), corruptionsFixed: field("corruptions-fixed"), checkErrors: field("check-errors"),
  };
}

/** Our check of the same file. */
export async function ourCheck(path: string, repair?: "leaks" | "all", options: CheckOptions = {}): Promise<CheckResult> {
  const file = FileStorage.open(path, { mode: repair === undefined ? "read" : "write" });
  try {
    return await run(checkQcow2(file, { ...options, repair }));
  } finally {
    file.close();
  }
}

export function counts(result: CheckResult): QemuCheck {
  return Object.fromEntries(Object.entries(result).filter(([name]) => !name.startsWith("finding"))) as unknown as QemuCheck;
}

/** The sha256 of the guest's data, now or in a snapshot, as QEMU reads it; `undefined` where it cannot. */
export function tryGuestHash(path: string, snapshot?: string): string | undefined {
  const raw = `${path}.raw`, from = snapshot === undefined ? [] : ["-l", snapshot];
  if (tryTool("qemu-img", ["convert", "-f", "qcow2", "-O", "raw", ...from, path, raw]).status !== 0) return undefined;
  return createHash("sha256").update(readFileSync(raw)).digest("hex");
}

export function qemuIo(path: string, ...commands: string[]): void {
  runTool("qemu-io", ["-f", "qcow2", ...commands.flatMap((command) => ["-c", command]), path]);
}
