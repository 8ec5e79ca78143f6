import { all, failedAfter, type Pending, type Storage } from "../storage.ts";
import { type Task, wait } from "../task.ts";
import type { Extent, MetaContext } from "./export.ts";
import { State } from "./protocol.ts";
import type { Piece, Place } from "./replies.ts";

/** Holes that are shorter are sent as zeros: a chunk costs, too. */
const LEAST_HOLE = 4096;
/** More are not told of in one reply; the client asks again. */
export const MOST_EXTENTS = 4096;

/** Reads all that a reply needs, side by side. */
export function* fill(storage: Storage, places: readonly Place[]): Task {
  const started: Pending[] = [];
  try {
    for (const { offset, into } of places) started.push(storage.read(offset, into));
  } catch (error) {
    yield wait(() => failedAfter(started, error));
  }
  yield wait(() => all(started));
}

/** The range as data and holes in turn, by `base:allocation`. */
export function* pieces(allocation: MetaContext, offset: number, length: number): Task<Piece[]> {
  const pieces: { offset: number; length: number; hole: boolean }[] = [], end = offset + length;
  for (let at = offset; at < end;) {
    const { length, flags } = yield* allocation.extent(at, end - at), step = Math.min(length, end - at);
    const hole = (flags & State.zero) !== 0 && step >= LEAST_HOLE, last = pieces.at(-1);
    if (last?.hole === hole) last.length += step;
    else pieces.push({ offset: at, length: step, hole });
    at += step;
  }
  return pieces;
}

/** At most `most` extents; neighbours that are the same are one. */
export function* extents(context: MetaContext, start: number, end: number, most: number): Task<Extent[]> {
  const found: { length: number; flags: number }[] = [];
  for (let at = start, looks = 0; at < end && looks < MOST_EXTENTS; looks++) {
    const { length, flags } = yield* context.extent(at, end - at), last = found.at(-1), step = Math.min(length, end - at);
    if (last?.flags === flags) last.length += step;
    else if (found.length === most) break;
    else found.push({ length: step, flags });
    at += step;
  }
  return found;
}
