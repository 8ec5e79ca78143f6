import { DiskError } from "../../errors.ts";
import { entryAt, scanBlockMap } from "../../metadata/blockMap.ts";
import type { Storage } from "../../storage.ts";
import { flush, truncate, type Task } from "../../task.ts";
import type { CheckOptions, CheckResult, Finding, FindingKind } from "../check.ts";
import { batLayout, ENTRY_SIZE, HeaderFields, markClosed, readHeader, type ParallelsHeader } from "./header.ts";
import { Used } from "./space.ts";

const MIB = 2 ** 20;

/** What a check has found so far, in QEMU's words where QEMU has them. */
class Findings {
  readonly kept: Finding[] = [];
  count = 0;
  readonly left = { leak: 0, corruption: 0, error: 0 };
  readonly fixed = { leak: 0, corruption: 0, error: 0 };
  readonly stats = { totalClusters: 0, allocatedClusters: 0, fragmentedClusters: 0, compressedClusters: 0, imageEndOffset: 0 };

  constructor(readonly most: number) {}

  add(kind: FindingKind, offset: number, repaired: boolean, message: string, times = 1): void {
    (repaired ? this.fixed : this.left)[kind] += times;
    this.count++;
    if (this.kept.length < this.most) this.kept.push({ kind, message: `${repaired ? "Repairing" : "ERROR"} ${message}`, offset, repaired });
  }

  result(): CheckResult {
    const { left, fixed, kept, count, stats } = this;
    return {
      ...stats, leaks: left.leak, corruptions: left.corruption, leaksFixed: fixed.leak, corruptionsFixed: fixed.corruption,
      checkErrors: left.error, findings: kept, findingCount: count,
    };
  }
}

/**
 * Checks the BAT and the file's end as `qemu-img check` does, and besides that no two clusters share a place: that is
 * found but not mended. Mends in an order in which a crash leaves what was wrong before, or less.
 */
export function* checkParallels(file: Storage, options: CheckOptions = {}): Task<CheckResult> {
  const header = yield* readHeader(file), { repair, limits } = options;
  const refuse = (kind: "read-only" | "unsupported", what: string): DiskError => new DiskError(kind, what, { path: file.name, format: "parallels", operation: "check" });
  if (repair !== undefined && file.readOnly) throw refuse("read-only", "cannot repair: the file is open read-only");
  if (header.extended && repair !== undefined) throw refuse("unsupported", "an image with a Format Extension (dirty bitmaps) cannot be repaired: its clusters would count as free");
  if (header.entries * ENTRY_SIZE > (limits?.reads ?? 2048 * MIB)) throw refuse("unsupported", `the image cannot be checked: its BAT has ${header.entries} entries, more than the check may read`);
  const findings = new Findings(options.maxFindings ?? 1000), mend = repair === "all";
  if (header.unclean) findings.add("corruption", HeaderFields.offsetOf("inUse"), mend, "image was not closed correctly");
  yield* checkBat(file, header, options, findings);
  const { imageEndOffset: end } = findings.stats, surplus = file.size - end;
  // What the Format Extension owns is in no BAT.
  if (surplus > 0 && !header.extended) {
    findings.add("leak", end, repair !== undefined, `space leaked at the end of the image ${surplus}`, Math.ceil(surplus / header.clusterSize));
    if (repair !== undefined) yield truncate(file, end);
  }
  if (repair !== undefined) yield flush(file, "the repaired image before it counts as closed");
  if (mend && header.unclean && findings.left.corruption === 0) yield* markClosed(file);
  return findings.result();
}

function* checkBat(file: Storage, header: ParallelsHeader, { repair, signal, onProgress, limits }: CheckOptions, findings: Findings): Task {
  const { entries, clusterSize, dataOffset } = header, layout = batLayout(header), { stats } = findings, used = new Used(header, file.size, (limits?.memory ?? 256 * MIB) * 8);
  /** The last cluster with space within the file. */
  let previous = { cluster: -1, at: 0 }, done = 0;
  stats.totalClusters = entries;
  stats.imageEndOffset = dataOffset;
  const charge = (bytes: number): void => {
    if (signal?.aborted === true) throw new DiskError("io", "the check was stopped", { path: file.name, format: "parallels", operation: "check" });
    onProgress?.(done += bytes, entries * ENTRY_SIZE);
  };
  yield* scanBlockMap(file, layout, (cluster, at) => {
    if (at >= file.size) {
      findings.add("corruption", entryAt(layout, cluster), repair === "all", `cluster ${cluster} is outside image`);
      return repair === "all" ? "clear" : undefined;
    }
    const wrong = used.add(at);
    if (wrong !== undefined) findings.add("corruption", entryAt(layout, cluster), false, `cluster ${cluster} ${wrong}`);
    stats.allocatedClusters++;
    if (previous.cluster === cluster - 1 && previous.at + clusterSize !== at) stats.fragmentedClusters++;
    stats.imageEndOffset = Math.max(stats.imageEndOffset, at + clusterSize);
    previous = { cluster, at };
    return undefined;
  }, charge);
}
