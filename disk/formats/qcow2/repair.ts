import { flush, write, type Task } from "../../task.ts";
import { hasBitmaps } from "./check-bitmaps.ts";
import { checkCopied } from "./check-copied.ts";
import { rebuild } from "./rebuild.ts";
import type { Refcounting } from "./check-refcounts.ts";
import type { CheckState } from "./check-state.ts";
import { EXTENSION, formatExtensions } from "./extensions.ts";
import { INCOMPATIBLE } from "./features.ts";
import { HeaderFields, HeaderFields3, type Qcow2Header } from "./header.ts";
import { isComplete, type SnapshotTable } from "./snapshots.ts";

const REBUILD = "ERROR need to rebuild refcount structures";

/**
 * Repairs what the check found, in an order in which a crash only ever leaves what was wrong before, or a leak:
 * refcounts are raised; tables say of clusters that they are theirs alone; refcounts are lowered. Answers why nothing
 * could be repaired, if so.
 */
export function* repair(state: CheckState, refcounts: Refcounting, table: SnapshotTable): Task<string | undefined> {
  const { file } = state, snapshots = state.mending && mustRewrite(state, table) ? table : undefined;
  if (!state.mending && refcounts.broken) return REBUILD;
  const rebuilding = state.mending && (!refcounts.usable || snapshots !== undefined);
  if (rebuilding && isTruncated(state)) return `${REBUILD}, but the file is truncated: what is appended to it would take the place of what is missing; get the whole file, or convert what can be read`;
  yield* dropStaleBitmaps(state);
  if (rebuilding) yield* rebuild(state, refcounts, snapshots);
  else if (refcounts.pending.raise) yield* refcounts.compare("raise");
  if (state.changed) yield flush(file, "raised refcounts before the tables that rely on them");
  yield* checkCopied(state, refcounts);
  if (state.changed) yield flush(file, "tables before the refcounts of what they dropped");
  if (rebuilding || !refcounts.pending.lower) return undefined;
  yield* refcounts.compare("lower");
  yield flush(file, "lowered refcounts before the image counts as clean");
  return undefined;
}

/** Whether a table points at what would soon be written behind the end of the file. A wild pointer far away is not that. */
function isTruncated({ beyond, file }: CheckState): boolean {
  return beyond < file.size + Math.max(file.size, 2 ** 30);
}

/** Version 3 asks for extra data in each entry; and QEMU reads no more of it than its bound. */
function mustRewrite({ header }: CheckState, table: SnapshotTable): boolean {
  return table.truncated || (header.version >= 3 && !table.snapshots.every(isComplete));
}

/** Bitmaps without their autoclear bit are nobody's: the header lets go of them before their clusters are given back. */
function* dropStaleBitmaps(state: CheckState): Task {
  const { header, file } = state;
  if (header.bitmapDirectory === undefined || hasBitmaps(state)) return;
  const old = formatExtensions(header.extensions), kept = formatExtensions(header.extensions.filter(({ type }) => type !== EXTENSION.bitmaps));
  old.fill(0);
  old.set(kept);
  yield write(file, header.headerLength, old);
  state.changed = true;
  yield flush(file, "header without bitmaps before their clusters are given back");
}

/** The image is clean: neither dirty nor corrupt any more. Version 2 has no such marks. */
export function* markClean(file: CheckState["file"], header: Qcow2Header): Task {
  const marks = INCOMPATIBLE.dirty | INCOMPATIBLE.corrupt;
  if (header.version < 3 || (header.incompatible & marks) === 0n) return;
  const last = HeaderFields.size + HeaderFields3.offsetOf("incompatible") + 7;
  yield write(file, last, Uint8Array.of(Number(header.incompatible & ~marks & 0xffn)));
  yield flush(file, "the image is clean");
}
