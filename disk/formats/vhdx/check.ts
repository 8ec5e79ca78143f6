import { DiskError } from "../../errors.ts";
import { entryAt, scanBlockMap } from "../../metadata/blockMap.ts";
import type { Storage } from "../../storage.ts";
import type { Task } from "../../task.ts";
import type { CheckOptions, CheckResult, Finding } from "../check.ts";
import { batLayout, ENTRY_SIZE, readLayout } from "./header.ts";
import { readHeader } from "./headers.ts";
import { readLog, replay } from "./replay.ts";
import { Used } from "./space.ts";
import { unsupported } from "./structures.ts";

const MIB = 2 ** 20;

/**
 * Checks the BAT as `qemu-img check` does, and besides that no two blocks share a place. A repair replays the log, which
 * counts as one corruption that was fixed; what is wrong in the BAT it leaves, as QEMU. Without one a log that has to be
 * replayed cannot be checked.
 */
export function* checkVhdx(file: Storage, { repair, maxFindings = 1000, limits, signal, onProgress }: CheckOptions = {}): Task<CheckResult> {
  const header = yield* readHeader(file), log = yield* readLog(file, header), findings: Finding[] = [];
  if (log !== undefined && repair === undefined) throw unsupported(file, "the image contains a log that needs to be replayed first: check it with -r all", header.logOffset);
  if (repair !== undefined && file.readOnly) throw new DiskError("read-only", "cannot repair: the file is open read-only", { path: file.name, format: "vhdx", operation: "check" });
  if (log !== undefined) {
    yield* replay(file, header, log);
    findings.push({ kind: "corruption", message: "Repairing the log was replayed", offset: header.logOffset, repaired: true });
  }
  const layout = yield* readLayout(file, header), bat = batLayout(layout), used = new Used(file, layout, (limits?.memory ?? 256 * MIB) * 8), total = layout.entries * ENTRY_SIZE;
  if (total > (limits?.reads ?? 4096 * MIB)) throw unsupported(file, `the image cannot be checked: its BAT has ${layout.entries} entries, more than the check may read`);
  let corruptions = 0, done = 0;
  yield* scanBlockMap(file, bat, (block, at) => {
    const wrong = used.add(at);
    if (wrong === undefined) return undefined;
    corruptions++;
    if (findings.length < maxFindings) findings.push({ kind: "corruption", message: `ERROR block ${block} ${wrong}`, offset: entryAt(bat, block), repaired: false });
    return undefined;
  }, (bytes) => {
    if (signal?.aborted === true) throw new DiskError("io", "the check was stopped", { path: file.name, format: "vhdx", operation: "check" });
    onProgress?.(done += bytes, total);
  });
  const fixed = log === undefined ? 0 : 1;
  return {
    imageEndOffset: 0, totalClusters: 0, allocatedClusters: 0, fragmentedClusters: 0, compressedClusters: 0,
    leaks: 0, corruptions, leaksFixed: 0, corruptionsFixed: fixed, checkErrors: 0, findings, findingCount: corruptions + fixed,
  };
}
