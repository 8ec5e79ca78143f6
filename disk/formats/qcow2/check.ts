import { DiskError } from "../../errors.ts";
import type { Storage } from "../../storage.ts";
import type { Task } from "../../task.ts";
import type { CheckResult } from "../check.ts";
import { checkCopied } from "./check-copied.ts";
import { countTables } from "./check-l2.ts";
import { Refcounting } from "./check-refcounts.ts";
import type { Report } from "./check-report.ts";
import { CheckState, type Qcow2CheckOptions } from "./check-state.ts";
import { walkMetadata } from "./check-walk.ts";
import { bitNames, INCOMPATIBLE } from "./features.ts";
import { readHeader, type Qcow2Header } from "./header.ts";
import { markClean, repair } from "./repair.ts";
import type { SnapshotTable } from "./snapshots.ts";

export type { Qcow2CheckOptions } from "./check-state.ts";

const KNOWN = INCOMPATIBLE.dirty | INCOMPATIBLE.corrupt | INCOMPATIBLE.externalData | INCOMPATIBLE.compressionType | INCOMPATIBLE.extendedL2;

/** A repair can uncover more to repair: a file that grew has room for what was behind its end. */
const ROUNDS = 4;

/**
 * Checks the refcounts and tables of a qcow2 image that nobody has open, as `qemu-img check` does, and repairs them
 * if asked. What is repaired is checked once more: the counts are those of the image as it is now. The guest's data
 * is not looked at. Throws `DiskError` for what is no qcow2 image, or none that can be checked (`unsupported`).
 */
export function* checkQcow2(file: Storage, options: Qcow2CheckOptions = {}): Task<CheckResult> {
  if (options.repair === undefined) return (yield* runCheck(file, options)).report.result();
  if (file.readOnly) throw new DiskError("read-only", "cannot repair: the file is open read-only", { path: file.name, operation: "repair" });
  let done: Report | undefined, last = yield* runCheck(file, options);
  for (let round = 1; last.changed; round++) {
    done = done === undefined ? last.report : done.with(last.report);
    last = yield* runCheck(file, round < ROUNDS ? options : { ...options, repair: undefined });
  }
  const { refusal } = last;
  if (refusal !== undefined) {
    last = yield* runCheck(file, { ...options, repair: undefined });
    last.report.add("error", 0, false, () => refusal);
  }
  const result = done === undefined ? last.report.result() : done.with(last.report).result();
  if (result.corruptions === 0 && result.checkErrors === 0) yield* markClean(file, last.header);
  return result;
}

/**
 * Brings an image that was not closed in order (the dirty bit: its refcounts may be behind) back to order, before it is
 * opened for writing. Answers what was found, or `undefined` if it was not dirty. Throws `corrupt` if it cannot.
 */
export function* repairDirty(file: Storage, options: Omit<Qcow2CheckOptions, "repair"> = {}): Task<CheckResult | undefined> {
  const header = yield* open(file);
  if ((header.incompatible & INCOMPATIBLE.dirty) === 0n) return undefined;
  const result = yield* checkQcow2(file, { ...options, repair: "all" });
  if (result.corruptions === 0 && result.checkErrors === 0) return result;
  const first = result.findings.find(({ repaired, kind }) => !repaired && kind !== "leak");
  throw new DiskError("corrupt", `the image was not closed in order, and cannot be repaired: ${first?.message ?? "it has errors"}; open it read-only to rescue what it holds`, { path: file.name, offset: first?.offset, format: "qcow2", operation: "repair" });
}

function* open(file: Storage): Task<Qcow2Header> {
  const header = yield* readHeader(file, true), foreign = header.incompatible & ~KNOWN;
  if (foreign === 0n) return header;
  throw new DiskError("unsupported", `the image cannot be checked: it needs features that disk86 does not know: ${bitNames(foreign, header).join(", ")}`, { path: file.name, format: "qcow2", operation: "check" });
}

function* runCheck(file: Storage, options: Qcow2CheckOptions): Task<CheckState> {
  const { state, refcounts, table } = yield* examine(file, options);
  if (options.repair !== undefined && !state.incomplete) state.refusal = yield* repair(state, refcounts, table);
  else yield* checkCopied(state, refcounts);
  return state;
}

interface Examined { readonly state: CheckState; readonly refcounts: Refcounting; readonly table: SnapshotTable }

function* examine(file: Storage, options: Qcow2CheckOptions): Task<Examined> {
  const state = new CheckState(file, yield* open(file), options), refcounts = new Refcounting(state);
  const table = yield* walkMetadata(state);
  yield* refcounts.read();
  yield* countTables(state);
  refcounts.judge();
  yield* refcounts.compare("report");
  return { state, refcounts, table };
}

/** What references what, in an image without contradictions: for changes of its structure. Leaks do no harm. */
export function* examineSound(file: Storage, options: Omit<Qcow2CheckOptions, "repair"> = {}): Task<Examined> {
  const examined = yield* examine(file, options);
  yield* checkCopied(examined.state, examined.refcounts);
  const { corruptions, checkErrors, findings } = examined.state.report.result(), first = findings.find(({ kind }) => kind !== "leak");
  if (corruptions + checkErrors > 0) throw new DiskError("corrupt", `the image has errors: repair it with check -r all first: ${first?.message ?? ""}`, { path: file.name, offset: first?.offset, format: "qcow2" });
  return examined;
}
