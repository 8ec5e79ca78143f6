import { DiskError } from "../../errors.ts";
import { NO_GATE } from "../../gate.ts";
import type { Storage } from "../../storage.ts";
import { read, type Task } from "../../task.ts";
import type { CheckOptions, CheckResult, Finding } from "../check.ts";
import { identify } from "./descriptor.ts";
import { Directory } from "./directory.ts";
import { ZERO } from "./entries.ts";
import { ENTRY_SIZE, SECTOR, type SparseHeader, unsupported } from "./header.ts";
import { closeFiles, filesOf, openParts, type Part } from "./parts.ts";
import { SeSparseGrains, type SeSparseHeader } from "./seSparse.ts";

const MIB = 2 ** 20;

/**
 * Looks whether every grain is where it can be, as `qemu-img check` does and in its words, but to the end: QEMU stops at
 * the first error. As QEMU it mends nothing.
 */
export function* checkVmdk(file: Storage, options: CheckOptions = {}): Task<CheckResult> {
  if (options.repair !== undefined) throw unsupported(file, "VMDK images cannot be repaired: copy what can be read with convert", "check");
  const parts = yield* openParts(file, yield* identify(file), options.gate ?? NO_GATE, true), walk = new Walk(file, parts, options);
  try {
    for (const part of parts) {
      if (part.header !== undefined) yield* walk.sparse(part, part.header);
      if (part.seSparse !== undefined) yield* walk.seSparse(part, part.seSparse);
    }
  } finally {
    yield* closeFiles(filesOf(file, parts));
  }
  return walk.result();
}

class Walk {
  readonly #findings: Finding[] = [];
  #corruptions = 0;
  #done = 0;
  readonly #total: number;

  constructor(readonly file: Storage, parts: readonly Part[], readonly options: CheckOptions) {
    this.#total = parts.reduce((sum, { header }) => sum + (header === undefined ? 0 : header.entries * header.perTable * ENTRY_SIZE), 0);
  }

  *sparse(part: Part, header: SparseHeader): Task {
    const { storage, start } = part, bytes = header.perTable * ENTRY_SIZE, table = new Uint8Array(bytes), view = new DataView(table.buffer);
    const directory = yield* Directory.open(storage, header, false);
    for (let index = 0; index < header.entries; index++) {
      const guest = start + index * header.perTable * header.grainSize, at = this.#tableAt(directory, index, guest);
      this.#charge(bytes);
      if (at <= ZERO) continue;
      yield read(storage, at, table);
      for (let i = 0; i < header.perTable; i++) {
        const sector = view.getUint32(i * ENTRY_SIZE, true), grain = guest + i * header.grainSize;
        if (sector === 0 || (sector === ZERO && header.zeroGrain) || grain >= start + part.length) continue;
        if (sector * SECTOR >= storage.size) this.#found(at + i * ENTRY_SIZE, `ERROR: cluster offset for sector ${grain / SECTOR} points after EOF`);
      }
    }
  }

  *seSparse({ storage, start, length }: Part, header: SeSparseHeader): Task {
    const grains = yield* SeSparseGrains.open(storage, header, 1);
    for (let offset = 0; offset < length;) {
      try {
        yield* grains.load(offset);
        offset += grains.map(offset, length - offset)?.length ?? 0;
      } catch (error) {
        if (!(error instanceof DiskError) || error.kind !== "corrupt") throw error;
        this.#found(error.context.offset ?? 0, `ERROR: could not get cluster_offset for sector ${(start + offset) / SECTOR}`);
        offset += header.grainSize;
      }
      this.#charge(0);
    }
  }

  /** Where a grain table stands; 0: nowhere. */
  #tableAt(directory: Directory, index: number, guest: number): number {
    try {
      return directory.entry(index);
    } catch (error) {
      if (!(error instanceof DiskError)) throw error;
      this.#found(directory.first.at + index * ENTRY_SIZE, `ERROR: could not get cluster_offset for sector ${guest / SECTOR}`);
      return 0;
    }
  }

  result(): CheckResult {
    return {
      imageEndOffset: 0, totalClusters: 0, allocatedClusters: 0, fragmentedClusters: 0, compressedClusters: 0, leaks: 0, corruptions: this.#corruptions,
      leaksFixed: 0, corruptionsFixed: 0, checkErrors: 0, findings: this.#findings, findingCount: this.#corruptions,
    };
  }

  #found(offset: number, message: string): void {
    this.#corruptions++;
    if (this.#findings.length < (this.options.maxFindings ?? 1000)) this.#findings.push({ kind: "corruption", message, offset, repaired: false });
  }

  /** Keeps to the limits, and tells how far the check is. */
  #charge(bytes: number): void {
    const { signal, limits, onProgress } = this.options, most = limits?.reads ?? 4096 * MIB;
    if (signal?.aborted === true) throw new DiskError("io", "the check was stopped", { path: this.file.name, format: "vmdk", operation: "check" });
    this.#done += bytes;
    if (this.#done > most) throw unsupported(this.file, `the image cannot be checked: its tables are over the limit of ${most} bytes`, "check");
    onProgress?.(this.#done, this.#total);
  }
}
